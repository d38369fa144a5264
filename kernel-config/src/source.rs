//! The pinned source: what `kernels.toml` says, and the tree that comes of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use guest_inputs::{Cache, Key, Pin, Progress, Task};
use serde::Deserialize;

use crate::error::{Error, at};

/// Below the entry under construction; gone when the entry is whole.
const WORK: &str = "work";
/// Change it when [`kconfig`] keeps something else.
const KCONFIG: &str = "kernel-kconfig/v1";
/// Below an entry that holds a part of the source.
const TREE: &str = "linux";

/// `kernels.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pinned {
    /// What the source calls itself.
    pub(crate) version: String,
    /// The time that goes into the kernel.
    pub(crate) timestamp: String,
    /// Debian's package of it.
    pub(crate) source: Pin,
}

/// The pin this crate was built with.
pub(crate) fn pinned() -> Result<Pinned, Error> {
    toml::from_str(include_str!("../kernels.toml")).map_err(Error::Pin)
}

/// Fetches the package and lays the source tree out below `into`.
pub(crate) fn unpack(
    cache: &Cache,
    pinned: &Pinned,
    into: &Path,
    progress: &Progress,
    task: &Task,
) -> Result<PathBuf, Error> {
    let package = guest_inputs::fetch(cache, &pinned.source, progress)?;
    task.doing("unpacking the source");
    let work = into.join(WORK);
    let files = work.join("package");
    guest_inputs::unpack_deb(&package, &files)?;
    let name = &pinned.source.name;
    guest_inputs::unpack_tar(&files.join("usr/src").join(format!("{name}.tar.xz")), &work)?;
    fs::remove_dir_all(&files).map_err(at("remove", &files))?;
    let tree = work.join(name);
    let found = version(&crate::read(&tree.join("Makefile"))?);
    if found == pinned.version {
        Ok(tree)
    } else {
        Err(Error::Version { package: pinned.source.to_string(), found, expected: pinned.version.clone() })
    }
}

/// The part of the source that decides on configurations, in the cache: a tenth of it.
pub(crate) fn kconfig(cache: &Cache, pinned: &Pinned, progress: &Progress) -> Result<PathBuf, Error> {
    let key = Key::new(KCONFIG).field("source", &pinned.source.sha256);
    let entry = cache.build("kernel-kconfig", &key, |into| -> Result<(), Error> {
        let task = progress.task("kernel");
        let tree = unpack(cache, pinned, into, progress, &task)?;
        task.doing("keeping what decides on configurations");
        prune(&tree, Path::new(""))?;
        fs::rename(&tree, into.join(TREE)).map_err(at("move", &tree))?;
        remove(into)
    })?;
    Ok(entry.join(TREE))
}

/// Removes the files below `dir` of `tree` that no `make *config` reads.
fn prune(tree: &Path, dir: &Path) -> Result<(), Error> {
    let whole = tree.join(dir);
    for entry in fs::read_dir(&whole).map_err(at("list", &whole))? {
        let entry = entry.map_err(at("list", &whole))?;
        let path = dir.join(entry.file_name());
        if entry.file_type().map_err(at("examine", tree.join(&path)))?.is_dir() {
            prune(tree, &path)?;
        } else if !is_of_kconfig(&path) {
            let path = tree.join(path);
            fs::remove_file(&path).map_err(at("remove", path))?;
        }
    }
    Ok(())
}

/// Kconfig files, makefiles, and the programs that both call: those of `scripts/`, and those an architecture has.
fn is_of_kconfig(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parts: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
    let is_program = match parts.as_slice() {
        ["scripts", ..] | ["arch", _, "tools" | "scripts", ..] => true,
        ["arch", _, .., name] => name.ends_with(".sh"),
        _ => false,
    };
    is_program || ["Kconfig", "Kbuild", "Makefile"].iter().any(|start| name.starts_with(start))
}

/// Removes what [`unpack`] and the build left below `into`: more than a gigabyte.
pub(crate) fn remove(into: &Path) -> Result<(), Error> {
    let work = into.join(WORK);
    fs::remove_dir_all(&work).map_err(at("remove", work))
}

/// The version a kernel's makefile begins with.
fn version(makefile: &str) -> String {
    let value = |name: &str| {
        let line = makefile.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='));
        line.map_or("?", str::trim)
    };
    format!("{}.{}.{}{}", value("VERSION"), value("PATCHLEVEL"), value("SUBLEVEL"), value("EXTRAVERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_is_the_version_it_claims() {
        let pinned = pinned().unwrap();
        assert!(pinned.source.version.starts_with(&format!("{}-", pinned.version)));
        assert!(pinned.source.path.contains(&pinned.source.version));
        assert_eq!(pinned.source.sha256.len(), 64);
    }

    #[test]
    fn only_what_decides_on_configurations_is_kept() {
        let kept =
            ["Makefile", "Kconfig", "mm/Kconfig.debug", "scripts/kconfig/conf.c", "arch/x86/Makefile_32.cpu"];
        let gone = [
            "mm/slub.c",
            "arch/x86/boot/main.c",
            "Documentation/index.rst",
            "tools/perf/perf.c",
            "MAINTAINERS",
        ];
        assert!(kept.iter().all(|path| is_of_kconfig(Path::new(path))));
        assert!(is_of_kconfig(Path::new("arch/powerpc/tools/gcc-check-mprofile-kernel.sh")));
        assert!(!gone.iter().any(|path| is_of_kconfig(Path::new(path))));
        let tree = tempfile::tempdir().unwrap();
        for path in kept.iter().chain(&gone) {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        prune(tree.path(), Path::new("")).unwrap();
        assert!(kept.iter().all(|path| tree.path().join(path).exists()));
        assert!(!gone.iter().any(|path| tree.path().join(path).exists()));
    }

    #[test]
    fn a_makefile_tells_its_version() {
        let head = "# SPDX\nVERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 117\nEXTRAVERSION =\nNAME = Baby\n";
        assert_eq!(version(head), "6.12.117");
        assert_eq!(version(&head.replace("EXTRAVERSION =", "EXTRAVERSION = -rc1")), "6.12.117-rc1");
        assert_eq!(version("all:"), "?.?.??");
    }
}
