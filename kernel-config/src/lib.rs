//! From pinned Linux source and configuration fragments to a guest kernel.
//!
//! The way of a kernel, one module per step:
//!
//! 1. `kernels.toml` pins Debian's source package; [`fragment`] reads `fragments/common/*.conf` and
//!    `fragments/<arch>/*.conf`, one concern per file, no symbol twice;
//! 2. `source` fetches the package and lays the tree out in a directory of the cache;
//! 3. `make` lets the kernel's own tools merge the fragments over `allnoconfig`;
//! 4. [`check`] compares every line of the fragments, each `is not set` too, with what came out: a symbol that the kernel
//!    dropped for a missing dependency fails the build by name;
//! 5. `make` builds the two images, [`elf`] packs an ELF one, and both are kept in the cache under a key made of all
//!    the inputs.
//!
//! It runs no compiler on a cache hit, needs no root, and writes nothing outside the cache.

pub mod elf;
pub mod error;
pub mod fragment;
mod make;
mod source;

use std::{
    fs,
    path::{Path, PathBuf},
};

use guest_arch::Arch;
use guest_inputs::{Cache, Key, Progress};

pub use error::Error;
pub use fragment::{Mismatch, check};
use make::Make;
pub use make::tools;
use source::Pinned;

/// Change it when this crate makes something else of the same inputs.
const RECIPE: &str = "kernel/v1";

/// A built kernel, in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// What QEMU boots: on x86_64 an ELF file with a PVH entry, without symbols.
    pub image: PathBuf,
    /// The smallest bootable form; the same path as `image` where the architecture has only one.
    pub compressed: PathBuf,
    /// The resolved configuration, every symbol.
    pub config: PathBuf,
    /// The version of Linux, as in "6.12.117".
    pub version: String,
}

/// The kernel for `arch`: from the cache, or built now (minutes).
pub fn build(cache: &Cache, arch: Arch, progress: &Progress) -> Result<Kernel, Error> {
    let pinned = source::pinned()?;
    let fragments = fragment::read(&fragments_dir(), arch.name())?;
    let requested = fragment::requested(&fragments)?;
    let key = fragments
        .iter()
        .fold(Key::new(RECIPE), |key, file| key.field(&file.name, &file.text))
        .field("source", &pinned.source.sha256)
        .field("timestamp", &pinned.timestamp)
        .field("arch", arch.name())
        .field("tools", make::tools(arch)?);
    let entry = cache.build("kernel", &key, |into| -> Result<(), Error> {
        let task = progress.task("kernel");
        let tree = source::unpack(cache, &pinned, into, progress, &task)?;
        let make = Make::new(&tree, arch, &pinned.timestamp, into.join("build.log"));
        task.doing("resolving the configuration");
        make.merge(fragments.iter().map(|file| file.path.as_path()))?;
        let config = tree.join(".config");
        let mismatches = check(&requested, &fragment::resolved(&read(&config)?));
        if !mismatches.is_empty() {
            return Err(Error::Mismatch(mismatches));
        }
        make.images(&task)?;
        collect(&tree, arch, into)?;
        task.doing("removing the source tree");
        source::remove(into)
    })?;
    Ok(kernel_in(&entry, arch, pinned))
}

/// The package that the source of every kernel is in.
pub fn source_pin() -> Result<guest_inputs::Pin, Error> {
    Ok(source::pinned()?.source)
}

/// The fragments are read where this crate's sources are: a person edits them, no list names them.
fn fragments_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fragments")
}

fn kernel_in(entry: &Path, arch: Arch, pinned: Pinned) -> Kernel {
    let file = |path: &str| entry.join(base_name(path));
    Kernel {
        image: file(arch.row().kernel_image),
        compressed: file(arch.row().compressed_image),
        config: entry.join("config"),
        version: pinned.version,
    }
}

/// Copies what is kept out of the tree.
fn collect(tree: &Path, arch: Arch, into: &Path) -> Result<(), Error> {
    let row = arch.row();
    let copy = |from: &str, to: &str| {
        let from = tree.join(from);
        fs::copy(&from, into.join(to)).map(|_| ()).map_err(error::at("keep", from))
    };
    copy(row.compressed_image, base_name(row.compressed_image))?;
    copy(row.kernel_image, base_name(row.kernel_image))?;
    copy(".config", "config")?;
    let image = into.join(base_name(row.kernel_image));
    let bytes = fs::read(&image).map_err(error::at("read", &image))?;
    if elf::is_elf(&bytes) {
        let packed = elf::pack(&bytes).map_err(|what| Error::Elf { path: image.clone(), what })?;
        fs::write(&image, packed).map_err(error::at("write", &image))?;
    }
    Ok(())
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(error::at("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fragments_of_this_crate_agree_with_each_other() {
        let fragments = fragment::read(&fragments_dir(), "x86_64").unwrap();
        let requested = fragment::requested(&fragments).unwrap();
        assert_eq!(requested["CONFIG_PVH"], "y");
        assert_eq!(requested["CONFIG_MODULES"], "n");
    }

    #[test]
    fn an_architecture_without_fragments_is_an_error_that_names_it() {
        let error = fragment::read(&fragments_dir(), "vax").unwrap_err();
        assert!(error.to_string().ends_with("fragments/vax"), "{error}");
    }

    #[test]
    fn one_image_is_both_where_there_is_only_one() {
        let pinned = source::pinned().unwrap();
        let kernel = kernel_in(Path::new("/e"), Arch::S390x, pinned.clone());
        assert_eq!(kernel.image, kernel.compressed);
        let kernel = kernel_in(Path::new("/e"), Arch::X86_64, pinned);
        assert_eq!(kernel.image, Path::new("/e/vmlinux"));
        assert_eq!(kernel.compressed, Path::new("/e/bzImage"));
    }
}
