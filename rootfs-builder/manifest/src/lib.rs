//! What a set of guest artefacts is: a directory with a kernel, a root file system in one or several formats, the agent on
//! its own, and the `manifest.json` that names them.
//!
//! The builders write it, the host runtime reads it; neither knows how the other works. A manifest holds nothing of the
//! machine it was made on: no path, no time, no user.

mod attachment;

use std::{
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use attachment::Attachment;

/// The manifest's name in its directory.
pub const FILE: &str = "manifest.json";
/// The version of this format. A reader refuses any other.
pub const VERSION: u32 = 3;

/// The name of the format that a VM boots without any disk.
pub const INITRD: &str = "initrd";
/// The name of the same, uncompressed: quick to make, and all the same to a VM.
pub const INITRD_PLAIN: &str = "initrd-none";

/// A set of artefacts that boots one kind of VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format of this file: [`VERSION`].
    pub version: u32,
    /// Architecture of the guest, as in guest-arch: "x86_64".
    pub arch: String,
    /// The recipe this was made by: "minimal".
    pub recipe: String,
    /// Which of our kernels it is: "lean", "debug", "hardened".
    pub variant: String,
    /// What the agent was built with beyond its usual: "policy".
    pub features: Vec<String>,
    /// The kernel's release: "6.12.1".
    pub kernel_version: String,
    /// The kernel that QEMU boots.
    pub kernel: Artefact,
    /// The same kernel, in its smallest form.
    pub kernel_compressed: Artefact,
    /// Every option of that kernel.
    pub kernel_config: Artefact,
    /// The agent on its own, as it is in every image.
    pub agent: Artefact,
    /// What any guest of this recipe has on its command line, before what a format adds.
    pub cmdline: String,
    /// The root file system, once for each format it was written in.
    pub images: Vec<Image>,
    /// Read-only images that can be attached to a VM beside its root.
    pub extensions: Vec<Extension>,
    /// What is said about all of the above: contents, bills of material, provenance.
    pub documents: Vec<Artefact>,
}

/// The root file system in one format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The format's name: [`INITRD`], "erofs".
    pub format: String,
    /// The file that holds it.
    pub artefact: Artefact,
    /// What the kernel must have on its command line with this image as first disk, or as ramdisk. The host appends to it.
    /// Nothing for what no kernel boots from.
    pub cmdline: Option<String>,
    /// What makes the kernel refuse a changed image, where the format has that.
    pub verity: Option<Verity>,
}

/// A read-only image beside the root, on a disk with the serial number `extension-<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extension {
    /// Its name in the recipe.
    pub name: String,
    /// The file that holds it.
    pub artefact: Artefact,
    /// What the kernel must have on its command line behind everything else, for the agent to mount it.
    pub cmdline: String,
    /// What makes the kernel refuse a changed one.
    pub verity: Verity,
}

/// A dm-verity device: blocks of data and, elsewhere in the same file, the hash tree over them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verity {
    /// The one digest that vouches for every block, in hexadecimal.
    pub root_hash: String,
    /// What each block is hashed with, in hexadecimal.
    pub salt: String,
    /// The UUID in the tree's superblock.
    pub uuid: String,
    /// Bytes in a block, of data and of the tree.
    pub block_size: u32,
    /// How many blocks of data there are.
    pub data_blocks: u64,
    /// Where in the file the data is, in bytes.
    pub data_offset: u64,
    /// Where in the file the superblock is, in bytes; the tree begins one block later. Without a superblock it begins here.
    pub hash_offset: u64,
    /// Whether there is a superblock. Without one there is no UUID in the image either.
    #[serde(default = "usually", skip_serializing_if = "is_usual")]
    pub superblock: bool,
    /// The word of the command line that makes the kernel set the device up by itself, before it mounts its root. It names
    /// the disk that the image is on: the first of the machine for a root, the ones behind it for extensions.
    pub dm_mod_create: String,
}

/// One file of the set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artefact {
    /// Its name in the manifest's directory.
    pub file: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest, in hexadecimal.
    pub sha256: String,
}

/// Why a set of artefacts cannot be used, or not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("artefacts {}: {}", path.display(), plain(source))]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The manifest is not one.
    #[error("artefacts {}: {source}", path.display())]
    Format {
        /// The manifest.
        path: PathBuf,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
    /// The manifest is of another version of Husk.
    #[error("artefacts {}: format version {found}, this husk reads {VERSION}: build the image again", path.display())]
    Version {
        /// The manifest.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A file name in the manifest leads out of its directory.
    #[error("artefacts {}: {file:?} is not the name of a file beside it", path.display())]
    Name {
        /// The manifest.
        path: PathBuf,
        /// The name.
        file: String,
    },
    /// The set cannot be booted in the way that is wanted.
    #[error("artefacts {}: there is no {format} in this set ({there}): build it with --format {format}", path.display())]
    NoFormat {
        /// The manifest.
        path: PathBuf,
        /// The format that is wanted.
        format: String,
        /// Those that are in the set.
        there: String,
    },
    /// An image is none that a VM boots from.
    #[error("artefacts {}: {format} {lacks}", path.display())]
    NotBootable {
        /// The manifest.
        path: PathBuf,
        /// The image's format.
        format: String,
        /// Why, in words that go on after the format's name.
        lacks: &'static str,
    },
    /// A file is not the one the manifest is about.
    #[error("artefacts {}: {found} bytes, the manifest says {expected}: build the image again", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The size in the manifest.
        expected: u64,
    },
}

impl Manifest {
    /// Reads the manifest in `dir`, and checks that every file it names is there and has its size.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let bytes = fs::read(&path).map_err(at(&path))?;
        let format = |source| Error::Format { path: path.clone(), source };
        // The version first: a later format may differ in anything else.
        let Head { version } = serde_json::from_slice(&bytes).map_err(format)?;
        if version != VERSION {
            return Err(Error::Version { path, found: version });
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(format)?;
        manifest.artefacts().into_iter().try_for_each(|artefact| artefact.check(dir, &path))?;
        Ok(manifest)
    }

    /// Writes the manifest into `dir`.
    pub fn write(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(FILE);
        let mut text = serde_json::to_string_pretty(self).expect("a struct of strings and numbers is JSON");
        text.push('\n');
        fs::write(&path, text).map_err(at(&path))
    }

    /// Every file of the set, in the order of the fields.
    #[must_use]
    pub fn artefacts(&self) -> Vec<&Artefact> {
        let mut all = vec![&self.kernel, &self.kernel_compressed, &self.kernel_config, &self.agent];
        all.extend(self.images.iter().map(|image| &image.artefact));
        all.extend(self.extensions.iter().map(|extension| &extension.artefact));
        all.extend(&self.documents);
        all
    }

    /// The root file system in a format, if there is one.
    #[must_use]
    pub fn image(&self, format: &str) -> Option<&Image> {
        self.images.iter().find(|image| image.format == format)
    }

    /// Where the kernel is that QEMU boots.
    #[must_use]
    pub fn kernel_path(&self, dir: &Path) -> PathBuf {
        dir.join(&self.kernel.file)
    }

    /// The image of a VM that has its root in a ramdisk: the compressed one if there are both.
    pub fn initrd(&self, dir: &Path) -> Result<&Image, Error> {
        let found = [INITRD, INITRD_PLAIN].into_iter().find_map(|format| self.image(format));
        found.ok_or_else(|| self.no_format(dir, INITRD))
    }

    fn no_format(&self, dir: &Path, format: &str) -> Error {
        let there: Vec<_> = self.images.iter().map(|image| image.format.as_str()).collect();
        Error::NoFormat { path: dir.join(FILE), format: format.to_owned(), there: there.join(", ") }
    }
}

impl Image {
    /// Where its file is.
    #[must_use]
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(&self.artefact.file)
    }
}

impl Verity {
    /// The same as the runtimes of Kata Containers have it in their configuration, as `kernel_verity_params`.
    #[must_use]
    pub fn kata_params(&self) -> String {
        let Verity { root_hash, salt, data_blocks, block_size, .. } = self;
        format!(
            "root_hash={root_hash},salt={salt},data_blocks={data_blocks},data_block_size={block_size},\
             hash_block_size={block_size}"
        )
    }
}

impl Artefact {
    /// Measures the file `file` in `dir`.
    pub fn measure(dir: &Path, file: &str) -> Result<Self, Error> {
        let path = dir.join(file);
        let mut reader = fs::File::open(&path).map_err(at(&path))?;
        let (mut size, mut digest, mut chunk) = (0, Sha256::new(), vec![0; 256 * 1024]);
        loop {
            let n = reader.read(&mut chunk).map_err(at(&path))?;
            if n == 0 {
                break;
            }
            size += n as u64;
            digest.update(&chunk[..n]);
        }
        let sha256 = digest.finalize().iter().map(|b| format!("{b:02x}")).collect();
        Ok(Artefact { file: file.to_owned(), size, sha256 })
    }

    fn check(&self, dir: &Path, manifest: &Path) -> Result<(), Error> {
        // A name is one component that is itself: no "..", no "a/b", no "".
        if Path::new(&self.file).file_name() != Some(self.file.as_ref()) {
            return Err(Error::Name { path: manifest.to_owned(), file: self.file.clone() });
        }
        let path = dir.join(&self.file);
        let found = fs::metadata(&path).map_err(at(&path))?.len();
        if found != self.size {
            return Err(Error::Size { path, found, expected: self.size });
        }
        Ok(())
    }
}

/// A tree has a superblock, of which a manifest says nothing.
fn usually() -> bool {
    true
}

fn is_usual(superblock: &bool) -> bool {
    *superblock
}

#[derive(Deserialize)]
struct Head {
    version: u32,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { path, source }
}

/// The commonest cause in a person's words, without "(os error 2)".
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A set of small files that boots from an erofs and from a ramdisk.
    pub(crate) fn set(dir: &Path) -> Manifest {
        for name in ["vmlinux", "bzImage", "kernel.config", "initrd.cpio.zst", "rootfs.erofs", "husk-agent"] {
            fs::write(dir.join(name), "abc").unwrap();
        }
        let measure = |file| Artefact::measure(dir, file).unwrap();
        let image = |format: &str, file| Image {
            format: format.into(),
            artefact: measure(file),
            cmdline: Some("console=hvc0".into()),
            verity: None,
        };
        Manifest {
            version: VERSION,
            arch: "x86_64".into(),
            recipe: "minimal".into(),
            variant: "lean".into(),
            features: vec![],
            kernel_version: "6.12.1".into(),
            kernel: measure("vmlinux"),
            kernel_compressed: measure("bzImage"),
            kernel_config: measure("kernel.config"),
            agent: measure("husk-agent"),
            cmdline: "console=hvc0".into(),
            images: vec![image("erofs", "rootfs.erofs"), image(INITRD, "initrd.cpio.zst")],
            extensions: vec![],
            documents: vec![],
        }
    }

    fn broken(change: impl FnOnce(&Path, &mut Manifest)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = set(dir.path());
        change(dir.path(), &mut manifest);
        manifest.write(dir.path()).unwrap();
        let error = Manifest::load(dir.path()).unwrap_err().to_string();
        error.replace(dir.path().to_str().unwrap(), "/x")
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = set(dir.path());
        manifest.write(dir.path()).unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), manifest);
        assert_eq!(manifest.kernel.size, 3);
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let initrd = manifest.initrd(dir.path()).unwrap();
        assert_eq!(initrd.artefact.sha256, abc);
        assert_eq!(initrd.path(Path::new("/x")), Path::new("/x/initrd.cpio.zst"));
        assert_eq!(manifest.kernel_path(Path::new("/x")), Path::new("/x/vmlinux"));
    }

    #[test]
    fn errors_name_file_and_cause() {
        let missing = Manifest::load(Path::new("/nonexistent")).unwrap_err().to_string();
        assert_eq!(missing, "artefacts /nonexistent/manifest.json: no such file");
        let gone = broken(|dir, _| fs::remove_file(dir.join("vmlinux")).unwrap());
        assert_eq!(gone, "artefacts /x/vmlinux: no such file");
        let cut = broken(|dir, _| fs::write(dir.join("initrd.cpio.zst"), "a").unwrap());
        assert_eq!(cut, "artefacts /x/initrd.cpio.zst: 1 bytes, the manifest says 3: build the image again");
        let later = broken(|_, m| m.version = 4);
        assert!(
            later.starts_with("artefacts /x/manifest.json: format version 4, this husk reads 3"),
            "{later}"
        );
    }

    #[test]
    fn a_set_without_a_ramdisk_says_how_to_get_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = set(dir.path());
        manifest.images.retain(|image| image.format != INITRD);
        let error = manifest.initrd(Path::new("/x")).unwrap_err().to_string();
        assert!(
            error.starts_with("artefacts /x/manifest.json: there is no initrd in this set (erofs)"),
            "{error}"
        );
    }

    #[test]
    fn names_stay_in_the_directory() {
        for name in ["../vmlinux", "/vmlinux", "a/vmlinux", "..", "", "vmlinux/"] {
            let error = broken(|_, m| m.kernel.file = name.into());
            assert_eq!(
                error,
                format!("artefacts /x/manifest.json: {name:?} is not the name of a file beside it")
            );
        }
    }

    #[test]
    fn garbage_is_told_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{\"version\": 3, \"arch\": 3}").unwrap();
        let error = Manifest::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("invalid type: integer `3`, expected a string at line 1"), "{error}");
    }
}
