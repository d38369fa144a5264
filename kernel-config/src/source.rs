//! The pinned source: what `kernels.toml` says, and the tree that comes of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use guest_inputs::{Cache, Pin, Progress, Task};
use serde::Deserialize;

use crate::error::{Error, at};

/// Below the entry under construction; gone when the entry is whole.
const WORK: &str = "work";

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
    fn a_makefile_tells_its_version() {
        let head = "# SPDX\nVERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 117\nEXTRAVERSION =\nNAME = Baby\n";
        assert_eq!(version(head), "6.12.117");
        assert_eq!(version(&head.replace("EXTRAVERSION =", "EXTRAVERSION = -rc1")), "6.12.117-rc1");
        assert_eq!(version("all:"), "?.?.??");
    }
}
