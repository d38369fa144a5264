//! Replaces a whole directory in one step: a reader sees the old files or the new ones, never some of each.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::error::{Error, at};

/// Lets `fill` write into an empty directory, then puts that in the place of `target`. After a failure `target` is as it
/// was.
pub(crate) fn replace(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    let parent = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(at("create", parent))?;
    let fresh = tempfile::Builder::new().prefix(".new-").tempdir_in(parent);
    let fresh = fresh.map_err(at("create a directory in", parent))?;
    // Private while it is made, like any temporary directory; open to readers from here on.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(fresh.path(), open).map_err(at("open", fresh.path()))?;
    fill(fresh.path())?;
    if target.exists() {
        let exchange = RenameFlags::RENAME_EXCHANGE;
        let exchanged = renameat2(AT_FDCWD, fresh.path(), AT_FDCWD, target, exchange);
        exchanged.map_err(|e| at("replace", target)(e.into()))?;
        // `fresh` is now the name of the old directory, and removes it.
    } else {
        fs::rename(fresh.path(), target).map_err(at("rename into place", target))?;
        let _moved_away = fresh.keep();
    }
    Ok(target.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_new_directory_replaces_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        for name in ["first", "second"] {
            replace(&target, |into| fs::write(into.join(name), "").map_err(at("write", into))).unwrap();
            assert_eq!(names(&target), [name]);
            assert_eq!(names(dir.path()), ["out"]);
        }
    }

    #[test]
    fn a_failure_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        replace(&target, |into| fs::write(into.join("old"), "").map_err(at("write", into))).unwrap();
        let failed = replace(&target, |into| Err(at("write", into)(std::io::Error::other("full"))));
        assert!(failed.is_err());
        assert_eq!(names(&target), ["old"]);
        assert_eq!(names(dir.path()), ["out"]);
    }
}
