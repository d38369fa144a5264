//! What a set of guest artefacts is: a directory with a kernel, an initial ramdisk, the agent on its own, and the
//! `manifest.json` that names them.
//!
//! The builders write it, the host runtime reads it; neither knows how the other works. A manifest holds nothing of the
//! machine it was made on: no path, no time, no user.

use std::{
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The manifest's name in its directory.
pub const FILE: &str = "manifest.json";
/// The version of this format. A reader refuses any other.
pub const VERSION: u32 = 1;

/// A set of artefacts that boots one kind of VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format of this file: [`VERSION`].
    pub version: u32,
    /// Architecture of the guest, as in guest-arch: "x86_64".
    pub arch: String,
    /// The kernel's release: "6.12.1".
    pub kernel_version: String,
    /// The kernel that QEMU boots.
    pub kernel: Artefact,
    /// The same kernel, in its smallest form.
    pub kernel_compressed: Artefact,
    /// The initial ramdisk, which is all there is of a root file system.
    pub initrd: Artefact,
    /// The agent on its own, as it is in the ramdisk.
    pub agent: Artefact,
    /// What this kernel with this ramdisk must have on its command line. The host appends to it.
    pub cmdline: String,
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
    pub fn artefacts(&self) -> [&Artefact; 4] {
        [&self.kernel, &self.kernel_compressed, &self.initrd, &self.agent]
    }

    /// Where the kernel is that QEMU boots.
    #[must_use]
    pub fn kernel_path(&self, dir: &Path) -> PathBuf {
        dir.join(&self.kernel.file)
    }

    /// Where the initial ramdisk is.
    #[must_use]
    pub fn initrd_path(&self, dir: &Path) -> PathBuf {
        dir.join(&self.initrd.file)
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
mod tests {
    use super::*;

    fn set(dir: &Path) -> Manifest {
        for name in ["vmlinux", "bzImage", "initrd.cpio.zst", "husk-agent"] {
            fs::write(dir.join(name), "abc").unwrap();
        }
        let measure = |file| Artefact::measure(dir, file).unwrap();
        Manifest {
            version: VERSION,
            arch: "x86_64".into(),
            kernel_version: "6.12.1".into(),
            kernel: measure("vmlinux"),
            kernel_compressed: measure("bzImage"),
            initrd: measure("initrd.cpio.zst"),
            agent: measure("husk-agent"),
            cmdline: "console=hvc0".into(),
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
        assert_eq!(manifest.initrd.sha256, abc);
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
        let later = broken(|_, m| m.version = 2);
        assert!(
            later.starts_with("artefacts /x/manifest.json: format version 2, this husk reads 1"),
            "{later}"
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
        fs::write(dir.path().join(FILE), "{\"version\": 1, \"arch\": 3}").unwrap();
        let error = Manifest::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("invalid type: integer `3`, expected a string at line 1"), "{error}");
    }
}
