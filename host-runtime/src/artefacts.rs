//! Where the guest's kernel and initrd are, checked before anything starts.

use std::io;
use std::path::{Path, PathBuf};

use guest_arch::Arch;
use serde::Deserialize;

/// A set of guest artefacts, ready to boot.
#[derive(Clone, Debug)]
pub(crate) struct Artefacts {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(crate) cmdline: String,
}

/// Why a directory is no set of artefacts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No or unreadable `manifest.json`.
    #[error("{}", .0.display())]
    Manifest(PathBuf, #[source] io::Error),
    /// A file the manifest names is not there.
    #[error("{}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// A file is not the one the manifest describes.
    #[error("{}: {found} bytes, the manifest says {expected}", .path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The size it should have.
        expected: u64,
    },
}

#[derive(Deserialize)]
struct Manifest {
    kernel: File,
    initrd: File,
    cmdline: String,
}

#[derive(Deserialize)]
struct File {
    file: String,
    size: u64,
}

impl Artefacts {
    /// The set in `dir`, as its manifest describes it. Sizes are compared; digests are for who installs it.
    pub(crate) fn load(dir: &Path) -> Result<Artefacts, Error> {
        let path = dir.join("manifest.json");
        let bytes = std::fs::read(&path).map_err(|e| Error::Manifest(path.clone(), e))?;
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| Error::Manifest(path, e.into()))?;
        Ok(Artefacts {
            kernel: checked(dir, &manifest.kernel)?,
            initrd: checked(dir, &manifest.initrd)?,
            cmdline: manifest.cmdline,
        })
    }
}

fn checked(dir: &Path, file: &File) -> Result<PathBuf, Error> {
    let path = dir.join(&file.file);
    let found = path.metadata().map_err(|e| Error::File(path.clone(), e))?.len();
    if found == file.size { Ok(path) } else { Err(Error::Size { path, found, expected: file.size }) }
}

/// Where artefacts are when nobody says: in this checkout's `out`, else where packages put them.
pub fn default_dir() -> PathBuf {
    let arch = Arch::host();
    let checkout = Path::new("out").join(arch.name()).join("minimal");
    if checkout.join("manifest.json").exists() {
        return checkout;
    }
    Path::new("/usr/lib/husk").join(arch.name()).join("minimal")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(kernel: Option<&str>) -> (tempfile::TempDir, Result<Artefacts, Error>) {
        let dir = tempfile::tempdir().unwrap();
        let manifest = r#"{"arch": "x86_64", "kernel": {"file": "vmlinux", "size": 3, "sha256": ""},
            "initrd": {"file": "initrd", "size": 0, "sha256": ""}, "cmdline": "quiet"}"#;
        std::fs::write(dir.path().join("manifest.json"), manifest).unwrap();
        std::fs::write(dir.path().join("initrd"), "").unwrap();
        if let Some(kernel) = kernel {
            std::fs::write(dir.path().join("vmlinux"), kernel).unwrap();
        }
        let loaded = Artefacts::load(dir.path());
        (dir, loaded)
    }

    #[test]
    fn a_whole_set_loads() {
        let (dir, loaded) = set(Some("elf"));
        assert_eq!(loaded.unwrap().kernel, dir.path().join("vmlinux"));
    }

    #[test]
    fn a_missing_or_short_kernel_is_named() {
        let (dir, loaded) = set(None);
        assert_eq!(loaded.unwrap_err().to_string(), dir.path().join("vmlinux").display().to_string());
        let (_dir, loaded) = set(Some("e"));
        assert!(loaded.unwrap_err().to_string().ends_with("vmlinux: 1 bytes, the manifest says 3"));
    }

    #[test]
    fn no_manifest_is_named() {
        let error = Artefacts::load(Path::new("/no/such")).unwrap_err();
        assert_eq!(error.to_string(), "/no/such/manifest.json");
    }
}
