//! From pinned Linux source and configuration fragments to a guest kernel.
//!
//! The way of a kernel, one module per step:
//!
//! 1. `kernels.toml` pins Debian's source package; [`fragment`] reads the fragments, one concern per file, no symbol twice:
//!    `fragments/common/`, what the architecture's machine has (`pci/`, `acpi/`, ...), `<arch>/`, `variants/<variant>/`;
//! 2. `source` fetches the package and lays the tree out in a directory of the cache;
//! 3. `make` lets the kernel's own tools merge the fragments over `allnoconfig`;
//! 4. every line of the fragments, each `is not set` too, is compared with what came out: a symbol that the kernel dropped
//!    for a missing dependency fails the build by name;
//! 5. `make` builds the two images, [`elf`] packs an ELF one, and both are kept in the cache under a key made of all
//!    the inputs. The kernel carries the [`golden::mark`] of its configuration.
//!
//! [`check()`] does the first four for any architecture and variant without compiling, and judges more (`verdict`): that
//! no default of the kernel got lost without a reason, that the lists of `checks/` are met, that the configuration is the
//! golden one.
//!
//! It runs no compiler on a cache hit, needs no root, and writes nothing outside the cache, golden files excepted.

mod check;
pub mod elf;
pub mod error;
pub mod fragment;
pub mod golden;
mod list;
mod make;
mod release;
mod resolve;
mod source;
mod variant;
mod verdict;

use std::{
    fs,
    path::{Path, PathBuf},
};

use guest_arch::Arch;
use guest_inputs::{Cache, Key, Progress};

pub use check::{Checked, Outcome, check};
pub use error::Error;
pub use fragment::{Fragment, Mismatch};
use list::{Kind, Lists};
pub use make::tools;
use make::{Base, Make};
use source::Pinned;
pub use variant::{UnknownVariant, Variant};
pub use verdict::Finding;

/// Change it when this crate makes something else of the same inputs.
const RECIPE: &str = "kernel/v2";

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

/// The kernel of this kind for `arch`: from the cache, or built now (minutes).
pub fn build(cache: &Cache, arch: Arch, variant: Variant, progress: &Progress) -> Result<Kernel, Error> {
    let pinned = source::pinned()?;
    let fragments = fragments(arch, variant)?;
    let requested = fragment::requested(&fragments)?;
    let settings = fragment::settings(&requested);
    let key = key(RECIPE, &pinned, arch, variant, &settings)?;
    let entry = cache.build("kernel", &key, |into| -> Result<(), Error> {
        let task = progress.task("kernel");
        let tree = source::unpack(cache, &pinned, into, progress, &task)?;
        let make = Make::new(&tree, arch, variant, &pinned.timestamp, into.join("build.log"))?;
        task.doing("resolving the configuration");
        let config = make.configure(&write_settings(&settings, into)?, Base::Nothing)?;
        let kind = Kind { arch, variant, release: pinned.version.parse().map_err(Error::Release)? };
        let mut lost = fragment::mismatches(&requested, &fragment::resolved(&config));
        let allowed = Lists::read(&list::dir())?.allowed;
        lost.retain(|mismatch| allowed.entry(kind, mismatch.name()).is_none());
        if !lost.is_empty() {
            return Err(Error::Mismatch(lost));
        }
        make.images(&format!("config-{}", golden::mark(&config)), &task)?;
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

/// What a kernel's configuration is made of. The fragments are read where this crate's sources are: a person edits them,
/// no list names them.
pub fn fragments(arch: Arch, variant: Variant) -> Result<Vec<Fragment>, Error> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fragments");
    fragment::read(&dir, &fragment::shelves(&dir, arch, variant))
}

/// The digest of all that a kernel, or its configuration, is made of. Comments in fragments are no part of either.
fn key(recipe: &str, pinned: &Pinned, arch: Arch, variant: Variant, settings: &str) -> Result<Key, Error> {
    Ok(Key::new(recipe)
        .field("settings", settings)
        .field("source", &pinned.source.sha256)
        .field("timestamp", &pinned.timestamp)
        .field("arch", arch.name())
        .field("tools", make::tools(arch, variant)?))
}

/// The settings of all fragments, as the file that the kernel's tools read.
fn write_settings(settings: &str, into: &Path) -> Result<PathBuf, Error> {
    let path = into.join("settings");
    fs::write(&path, settings).map_err(error::at("write", &path))?;
    Ok(path)
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
        for arch in Arch::ALL {
            for variant in Variant::ALL {
                let requested = fragment::requested(&fragments(arch, variant).unwrap()).unwrap();
                assert_eq!(requested["CONFIG_MODULES"], "n", "{arch} {variant}");
            }
        }
    }

    #[test]
    fn a_shelf_that_is_not_there_is_an_error_that_names_it() {
        let error = fragment::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fragments"), &["vax".into()]);
        let error = error.unwrap_err();
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
