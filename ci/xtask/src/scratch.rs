//! A directory for what is built only to be compared. It goes when its owner does; what a killed owner has left goes when
//! the next one comes: a second build is some gigabytes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

const PREFIX: &str = "husk-scratch-";
/// Locked as long as somebody is at work.
const LOCK: &str = "lock";

/// The directory.
pub(crate) struct Scratch {
    dir: TempDir,
    _lock: File,
}

impl Scratch {
    pub(crate) fn new() -> Result<Scratch> {
        Scratch::within(&std::env::temp_dir())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("in")
    }

    fn within(place: &Path) -> Result<Scratch> {
        sweep(place);
        let made = || -> std::io::Result<Scratch> {
            let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(place)?;
            let lock = File::create(dir.path().join(LOCK))?;
            lock.lock()?;
            let scratch = Scratch { dir, _lock: lock };
            fs::create_dir(scratch.path())?;
            Ok(scratch)
        };
        made().with_context(|| format!("cannot make a directory in {}", place.display()))
    }
}

/// One without a lock was made just now, or is nobody's.
fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if is_ours && File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _best_effort = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_owner_left_goes_and_what_is_at_work_stays() {
        let place = tempfile::tempdir().unwrap();
        let left = place.path().join(format!("{PREFIX}left"));
        fs::create_dir_all(left.join("in/deep")).unwrap();
        fs::write(left.join(LOCK), "").unwrap();
        let one = Scratch::within(place.path()).unwrap();
        assert!(!left.exists());
        let other = Scratch::within(place.path()).unwrap();
        assert!(one.path().is_dir() && other.path().is_dir());
        drop((one, other));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
