//! Replaces a whole directory in one step: a reader sees the old files or the new ones, never some of each.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::error::{Error, at};

/// Lets `fill` write into an empty directory, then puts that in the place of `target`; gives what `fill` gave. After a
/// failure `target` is as it was. Two that replace the same directory take turns.
pub(crate) fn replace<T>(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<T, Error>,
) -> Result<(PathBuf, T), Error> {
    let parent = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(at("create", parent))?;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let lock_path = parent.join(format!(".{name}.lock"));
    let lock = File::create(&lock_path).map_err(at("create", &lock_path))?;
    lock.lock().map_err(at("lock", &lock_path))?; // released when `lock` is dropped
    let prefix = format!(".{name}.new-");
    sweep(parent, &prefix);
    let fresh = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent);
    let fresh = fresh.map_err(at("create a directory in", parent))?;
    // Private while it is made, like any temporary directory; open to readers from here on.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(fresh.path(), open).map_err(at("open", fresh.path()))?;
    let filled = fill(fresh.path())?;
    if target.exists() {
        let exchange = RenameFlags::RENAME_EXCHANGE;
        let exchanged = renameat2(AT_FDCWD, fresh.path(), AT_FDCWD, target, exchange);
        exchanged.map_err(|e| at("replace", target)(e.into()))?;
        // `fresh` is now the name of the old directory, and removes it.
    } else {
        fs::rename(fresh.path(), target).map_err(at("rename into place", target))?;
        let _moved_away = fresh.keep();
    }
    Ok((target.to_owned(), filled))
}

/// Removes what killed builds left: nobody else is at work here while we hold the lock.
fn sweep(parent: &Path, prefix: &str) {
    for left in fs::read_dir(parent).into_iter().flatten().flatten() {
        if left.file_name().to_string_lossy().starts_with(prefix) {
            let _best_effort = fs::remove_dir_all(left.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.ends_with(".lock")).collect()
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
        let full = |into: &Path| Err::<(), _>(at("write", into)(std::io::Error::other("full")));
        let failed = replace(&target, full);
        assert!(failed.is_err());
        assert_eq!(names(&target), ["old"]);
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn what_a_killed_build_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        for left in [".out.new-abc", ".other.new-abc"] {
            fs::create_dir(dir.path().join(left)).unwrap();
        }
        replace(&dir.path().join("out"), |_| Ok(())).unwrap();
        let mut left = names(dir.path());
        left.sort();
        assert_eq!(left, [".other.new-abc", "out"]);
    }

    #[test]
    fn two_at_once_take_turns() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        let at_work = std::sync::atomic::AtomicUsize::new(0);
        let build = &|name: &str| {
            replace(&target, |into| {
                use std::sync::atomic::Ordering::SeqCst;
                assert_eq!(at_work.fetch_add(1, SeqCst), 0);
                std::thread::sleep(std::time::Duration::from_millis(20));
                fs::write(into.join(name), "").map_err(at("write", into))?;
                at_work.fetch_sub(1, SeqCst);
                Ok(())
            })
            .unwrap();
        };
        std::thread::scope(|scope| {
            for name in ["a", "b", "c"] {
                scope.spawn(move || build(name));
            }
        });
        assert_eq!(names(&target).len(), 1, "one of the three, whole");
    }
}
