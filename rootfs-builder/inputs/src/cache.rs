//! The cache: directories named by what they were made from. An entry is whole or absent, never half written.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
};

use crate::{
    Key,
    error::{Error, at},
};

/// A directory of finished results, shared by all clones of this user.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    offline: bool,
}

impl Cache {
    /// The user's cache: `$XDG_CACHE_HOME/husk`, else `$HOME/.cache/husk`.
    pub fn open() -> Result<Self, Error> {
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
        let cache = Self::at(&base.ok_or(Error::NoCacheHome)?.join("husk"))?;
        // Not only where something is built: whoever has a kernel may never build another.
        for shelf in fs::read_dir(&cache.root).into_iter().flatten().flatten() {
            sweep(&shelf.path(), None);
        }
        Ok(cache)
    }

    /// A cache in a directory of the caller's choice, which is made if it is missing.
    pub fn at(root: &Path) -> Result<Self, Error> {
        fs::create_dir_all(root).map_err(at("create", root))?;
        Ok(Cache { root: root.canonicalize().map_err(at("resolve", root))?, offline: false })
    }

    /// The same cache for a build that must do with what is there: nothing is downloaded through it.
    #[must_use]
    pub fn offline(self, offline: bool) -> Self {
        Cache { offline, ..self }
    }

    /// Whether nothing may be downloaded.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// The directory of the cache.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A directory for a tool that keeps a cache of its own, and looks after it.
    pub fn for_tool(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.root.join("tools").join(name);
        fs::create_dir_all(&path).map_err(at("create", &path))?;
        Ok(path)
    }

    /// Where an entry is, or will be.
    #[must_use]
    pub fn path(&self, kind: &str, key: &Key) -> PathBuf {
        self.root.join(kind).join(key.hex())
    }

    /// The directory for `key`, made by `builder` if it is not there yet.
    ///
    /// `builder` gets an empty directory beside the final one; on success that is renamed into place, on failure it is
    /// removed. A second builder of the same key, thread or process, waits for the first and finds its result.
    pub fn build<E: From<Error>>(
        &self,
        kind: &str,
        key: &Key,
        builder: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let entry = self.path(kind, key);
        if entry.is_dir() {
            return Ok(entry);
        }
        let shelf = self.root.join(kind);
        fs::create_dir_all(&shelf).map_err(at("create", &shelf))?;
        let lock_path = shelf.join(format!(".{}.lock", key.hex()));
        let lock = File::create(&lock_path).map_err(at("create", &lock_path))?;
        if lock.try_lock().is_err() {
            eprintln!("{kind}: waiting for another build of the same");
            lock.lock().map_err(at("lock", &lock_path))?;
        } // released when `lock` is dropped
        if entry.is_dir() {
            return Ok(entry);
        }
        sweep(&shelf, Some(key));
        let half = tempfile::Builder::new()
            .prefix(&half_prefix(key))
            .tempdir_in(&shelf)
            .map_err(at("create a directory in", &shelf))?;
        builder(half.path())?;
        fs::rename(half.path(), &entry).map_err(at("rename into place", &entry))?;
        let _moved_away = half.keep();
        Ok(entry)
    }
}

/// Removes what killed builders left on a shelf, of whatever key: half a kernel is a gigabyte. A half whose lock is held
/// is somebody's work, unless it is us who hold it.
fn sweep(shelf: &Path, own: Option<&Key>) {
    for left in fs::read_dir(shelf).into_iter().flatten().flatten() {
        let name = left.file_name().to_string_lossy().into_owned();
        let Some((prefix, _)) = name.split_once(HALF) else { continue };
        let abandoned = own.is_some_and(|own| prefix == format!(".{}", own.hex()))
            || File::open(shelf.join(format!("{prefix}.lock"))).is_ok_and(|lock| lock.try_lock().is_ok());
        if abandoned {
            let _best_effort = fs::remove_dir_all(left.path());
        }
    }
}

/// Between the key and the random end of a half-built entry's name.
const HALF: &str = ".half-";

fn half_prefix(key: &Key) -> String {
    format!(".{}{HALF}", key.hex())
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    fn directories(cache: &Cache, kind: &str) -> usize {
        let shelf = fs::read_dir(cache.root.join(kind)).unwrap();
        shelf.filter(|e| e.as_ref().unwrap().file_type().unwrap().is_dir()).count()
    }

    fn failure() -> Error {
        Error::NoCacheHome
    }

    #[test]
    fn a_failing_builder_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let key = Key::new("t");
        let result = cache.build("things", &key, |into| {
            fs::write(into.join("half"), "x").unwrap();
            Err(failure())
        });
        assert!(matches!(result, Err(Error::NoCacheHome)));
        assert_eq!(directories(&cache, "things"), 0);
        let built = cache.build("things", &key, |into| {
            assert_eq!(fs::read_dir(into).unwrap().count(), 0);
            fs::write(into.join("whole"), "x").map_err(at("write", into))
        });
        assert!(built.unwrap().join("whole").is_file());
        assert_eq!(directories(&cache, "things"), 1);
    }

    #[test]
    fn two_threads_build_once() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let key = Key::new("t");
        let built = AtomicUsize::new(0);
        let build = || {
            let made = cache.build("things", &key, |into| {
                built.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(100));
                fs::write(into.join("f"), "x").map_err(at("write", into))
            });
            assert!(made.unwrap().join("f").is_file());
        };
        thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(build);
            }
        });
        assert_eq!(built.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn what_killed_builders_left_is_swept_and_what_others_build_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let [own, dead, alive] = ["own", "dead", "alive"].map(Key::new);
        let shelf = dir.path().join("things");
        fs::create_dir(&shelf).unwrap();
        let half = |key| shelf.join(format!("{}xyz", half_prefix(key)));
        let lock = |key: &Key| File::create(shelf.join(format!(".{}.lock", key.hex()))).unwrap();
        for key in [&own, &dead, &alive] {
            fs::create_dir(half(key)).unwrap();
            lock(key);
        }
        let at_work = lock(&alive);
        at_work.lock().unwrap();
        cache.build("things", &own, |_| Ok::<(), Error>(())).unwrap();
        assert!(!half(&own).exists() && !half(&dead).exists());
        assert!(half(&alive).exists());
    }
}
