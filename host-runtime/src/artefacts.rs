//! The guest's artefacts: where they are when nobody says, and for which machine. What they are is
//! [`guest_manifest`]'s business.

use std::path::{Path, PathBuf};

use guest_arch::{Arch, UnknownArch};
use guest_manifest::{Image, Manifest};

/// A set of artefacts whose manifest was read.
#[derive(Clone, Debug)]
pub struct Artefacts {
    /// What they are.
    pub manifest: Manifest,
    /// The guest's architecture. It need not be this machine's: QEMU emulates any.
    pub arch: Arch,
    dir: PathBuf,
    /// The root file system that is booted from.
    root: Image,
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
    /// Reads what is in `dir`, and checks that all of it is there.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let manifest = Manifest::load(dir)?;
        let arch = manifest.arch.parse();
        let arch = arch.map_err(|unknown| Error::Arch { dir: dir.to_path_buf(), unknown })?;
        let root = manifest.initrd(dir)?.clone();
        Ok(Self { manifest, arch, dir: dir.to_path_buf(), root })
    }

    /// The kernel that QEMU boots.
    pub fn kernel(&self) -> PathBuf {
        self.manifest.kernel_path(&self.dir)
    }

    /// The initial ramdisk.
    pub fn initrd(&self) -> PathBuf {
        self.root.path(&self.dir)
    }

    /// What that kernel with that ramdisk must have on its command line.
    pub fn cmdline(&self) -> &str {
        self.root.cmdline.as_deref().unwrap_or_default()
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
