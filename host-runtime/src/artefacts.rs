//! The guest's artefacts: where they are when nobody says, and for which machine. What they are is
//! [`guest_manifest`]'s business.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

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

/// An extension by name, as `[DIR:]NAME`: of the set in a directory, else of the set that is booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionName {
    /// The directory.
    pub set: Option<PathBuf>,
    /// Its name in the recipe of that set.
    pub name: String,
}

/// An extension that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// The disk.
    pub image: PathBuf,
    /// What the kernel must have on its command line.
    pub cmdline: String,
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
    /// A set has no extension of that name.
    #[error("artefacts {}: there is no extension {name:?} in this set ({})", .dir.display(), in_words(there))]
    NoExtension {
        /// The directory of the set.
        dir: PathBuf,
        /// The name.
        name: String,
        /// Those that it has.
        there: Vec<String>,
    },
    /// An extension of another machine's.
    #[error("artefacts {}: its extensions are for {found}, and the VM is {wanted}", .dir.display())]
    ExtensionArch {
        /// The directory of the set.
        dir: PathBuf,
        /// What they are for.
        found: String,
        /// What is booted.
        wanted: Arch,
    },
    /// The guest has one directory for each name.
    #[error("extension {0}: it is asked for twice")]
    ExtensionTwice(String),
}

fn in_words(names: &[String]) -> String {
    if names.is_empty() { "it has none".to_owned() } else { names.join(", ") }
}

impl FromStr for ExtensionName {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.rsplit_once(':') {
            Some((set, name)) => Self { set: Some(set.into()), name: name.to_owned() },
            None => Self { set: None, name: text.to_owned() },
        })
    }
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

    /// Finds extensions, in the order in which they are named.
    pub fn extensions(&self, names: &[ExtensionName]) -> Result<Vec<Extension>, Error> {
        let mut found: Vec<Extension> = Vec::new();
        for wanted in names {
            let extension = match &wanted.set {
                None => extension_of(&self.manifest, &self.dir, &wanted.name)?,
                Some(dir) => {
                    let manifest = Manifest::load(dir)?;
                    if manifest.arch != self.manifest.arch {
                        let (dir, found) = (dir.clone(), manifest.arch);
                        return Err(Error::ExtensionArch { dir, found, wanted: self.arch });
                    }
                    extension_of(&manifest, dir, &wanted.name)?
                }
            };
            if found.iter().any(|other| other.name == extension.name) {
                return Err(Error::ExtensionTwice(extension.name));
            }
            found.push(extension);
        }
        Ok(found)
    }

    /// The kernel that QEMU boots.
    pub fn kernel(&self) -> PathBuf {
        self.manifest.kernel_path(&self.dir)
    }
}

fn extension_of(manifest: &Manifest, dir: &Path, name: &str) -> Result<Extension, Error> {
    let found = manifest.extensions.iter().find(|extension| extension.name == name);
    let extension = found.ok_or_else(|| {
        let there = manifest.extensions.iter().map(|extension| extension.name.clone()).collect();
        Error::NoExtension { dir: dir.to_owned(), name: name.to_owned(), there }
    })?;
    let (image, cmdline) = (dir.join(&extension.artefact.file), extension.cmdline.clone());
    Ok(Extension { name: name.to_owned(), image, cmdline })
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
