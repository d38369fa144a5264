//! The guest's artefacts: where they are when nobody says, and for which machine. What they are is
//! [`guest_manifest`]'s business.

use std::path::{Path, PathBuf};

use guest_arch::{Arch, UnknownArch};
use guest_manifest::{Attachment, Manifest};

/// A set of artefacts whose manifest was read.
#[derive(Clone, Debug)]
pub struct Artefacts {
    /// What they are.
    pub manifest: Manifest,
    /// The guest's architecture. It need not be this machine's: QEMU emulates any.
    pub arch: Arch,
    /// The image that is booted.
    pub root: PathBuf,
    /// Where the kernel finds it.
    pub attachment: Attachment,
    /// What the kernel must have on its command line.
    pub cmdline: String,
    dir: PathBuf,
}

/// Why artefacts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Their manifest, or a file it names.
    #[error(transparent)]
    Manifest(#[from] guest_manifest::Error),
    /// Nobody knows how to boot them.
    #[error("artefacts {}: {unknown}", .dir.display())]
    Arch {
        /// Their directory.
        dir: PathBuf,
        /// What they say they are made for.
        unknown: UnknownArch,
    },
}

impl Artefacts {
    /// Reads what is in `dir`, checks that all of it is there, and chooses what to boot: the image of that format, else a
    /// ramdisk, else the first that boots.
    pub fn load(dir: &Path, format: Option<&str>) -> Result<Self, Error> {
        let manifest = Manifest::load(dir)?;
        let arch = manifest.arch.parse();
        let arch = arch.map_err(|unknown| Error::Arch { dir: dir.to_path_buf(), unknown })?;
        let (root, attachment, cmdline) = manifest.bootable(dir, format)?;
        let (root, cmdline) = (root.path(dir), cmdline.to_owned());
        Ok(Self { manifest, arch, dir: dir.to_path_buf(), root, attachment, cmdline })
    }

    /// The kernel that QEMU boots.
    pub fn kernel(&self) -> PathBuf {
        self.manifest.kernel_path(&self.dir)
    }
}

/// `out/<arch>/minimal` in a checkout that has built one, else where packages put it.
pub fn default_dir() -> PathBuf {
    let arch = Arch::host();
    let checkout = Path::new("out").join(arch.name()).join("minimal");
    if checkout.join(guest_manifest::FILE).exists() {
        return checkout;
    }
    Path::new("/usr/lib/husk").join(arch.name()).join("minimal")
}
