//! What husk remembers of its containers: a directory each, owned by the `husk run` that made it.
//!
//! ```text
//! <root>/<name>/lock          locked (flock) while that process lives
//!               state.json    what list, exec and delete need to know
//!               agent.sock    the VM's socket; see crate::transport
//!               *.log         console, QEMU, agent
//! ```
//!
//! A directory appears whole, by rename, with its lock already held: nobody sees half of one. A directory whose lock is
//! free belongs to a container that has stopped, or to a process that was killed.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use serde::{Deserialize, Serialize};

use crate::name::Name;

/// Life of a container, as `husk list` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its VM is booting or its files are being unpacked.
    Creating,
    /// Its workload runs.
    Running,
    /// Its workload has ended; its files are kept.
    Stopped,
    /// The process that ran it was killed.
    Dead,
}

impl Status {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Running => "running",
            Status::Stopped => "stopped",
            Status::Dead => "dead",
        }
    }
}

/// What `state.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The process that runs it.
    pub pid: u32,
    /// As of its last writing; [`Store::load`] corrects it.
    pub status: Status,
    /// The workload's exit code, once stopped.
    pub exit_code: Option<i32>,
    /// Where it comes from: `oci:…` or a directory.
    pub image: String,
    /// Its command.
    pub command: Vec<String>,
    /// The artefacts its VM booted from.
    pub artefacts: PathBuf,
    /// Files of its own, removed with it.
    pub data: Option<PathBuf>,
    /// Whether it goes when it ends.
    pub remove: bool,
    /// What a second process in it starts from.
    pub env: Vec<String>,
    /// Its working directory.
    pub cwd: String,
    /// Its user, as in the image or on the command line.
    pub user: String,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody has that name.
    #[error("{name}: name is in use by a container that is {}", .status.as_str())]
    InUse {
        /// The name.
        name: String,
        /// What it is doing.
        status: Status,
    },
    /// Nobody has that name.
    #[error("{0}: no such container")]
    Unknown(String),
    /// It is not running.
    #[error("{name}: container is {}", .status.as_str())]
    NotRunning {
        /// The name.
        name: String,
        /// What it is instead.
        status: Status,
    },
    /// It runs.
    #[error("{0}: container is running; kill it first or use --force")]
    Running(String),
    /// A file or directory.
    #[error("{}", .0.display())]
    File(PathBuf, #[source] io::Error),
}

/// All containers below one root.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// A container's directory, held by us.
#[derive(Debug)]
pub(crate) struct Held {
    dir: PathBuf,
    _lock: Flock<File>,
    keep: bool,
}

impl Store {
    /// The containers below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Store {
        Store { root: root.into() }
    }

    /// Where a container's directory is.
    pub fn dir(&self, name: &Name) -> PathBuf {
        self.root.join(name.as_str())
    }

    /// Takes `name`. What a killed `husk run --rm` left behind under it is removed first.
    pub(crate) fn create(&self, name: &Name, record: &Record) -> Result<Held, Error> {
        make_private(&self.root)?;
        let dir = self.dir(name);
        let new = self.beside("new", name);
        make_private(&new)?;
        let made = (|| {
            let lock = lock(&new)?.ok_or_else(|| Error::File(new.clone(), Errno::EAGAIN.into()))?;
            write(&new, record)?;
            loop {
                match renameat2(AT_FDCWD, &new, AT_FDCWD, &dir, RenameFlags::RENAME_NOREPLACE) {
                    Ok(()) => return Ok(Held { dir: dir.clone(), _lock: lock, keep: false }),
                    Err(Errno::EEXIST) => self.reclaim(name)?,
                    Err(e) => return Err(Error::File(dir.clone(), e.into())),
                }
            }
        })();
        if made.is_err() {
            let _ = fs::remove_dir_all(&new);
        }
        made
    }

    /// What is known of `name`, its status corrected by whether its process lives.
    pub fn load(&self, name: &Name) -> Result<Record, Error> {
        let dir = self.dir(name);
        let path = dir.join(STATE);
        let bytes = fs::read(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::Unknown(name.to_string()),
            _ => Error::File(path.clone(), e),
        })?;
        let mut record: Record = serde_json::from_slice(&bytes).map_err(|e| Error::File(path, e.into()))?;
        if record.status != Status::Stopped && is_free(&dir)? {
            record.status = Status::Dead;
        }
        Ok(record)
    }

    /// The record of a container that runs.
    pub(crate) fn running(&self, name: &Name) -> Result<Record, Error> {
        let record = self.load(name)?;
        match record.status {
            Status::Running => Ok(record),
            status => Err(Error::NotRunning { name: name.to_string(), status }),
        }
    }

    /// Every container, by name.
    pub fn list(&self) -> Result<Vec<(Name, Record)>, Error> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::File(self.root.clone(), e)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::File(self.root.clone(), e))?;
            let Some(name) = entry.file_name().to_str().and_then(|name| name.parse::<Name>().ok()) else {
                continue;
            };
            match self.load(&name) {
                Ok(record) => found.push((name, record)),
                // Removed while we were looking.
                Err(Error::Unknown(_)) => {}
                Err(e) => return Err(e),
            }
        }
        found.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        Ok(found)
    }

    /// Removes a container that does not run, with its files.
    pub(crate) fn remove(&self, name: &Name) -> Result<(), Error> {
        let dir = self.dir(name);
        let record = self.load(name)?;
        let Some(_lock) = lock(&dir)? else { return Err(Error::Running(name.to_string())) };
        if let Some(data) = &record.data {
            remove_tree(data)?;
        }
        self.discard(name)
    }

    /// Makes way for a new container of this name, if what is there may go.
    fn reclaim(&self, name: &Name) -> Result<(), Error> {
        match self.load(name) {
            Err(Error::Unknown(_)) => self.remove_remains(name),
            Ok(record) if record.status == Status::Dead && record.remove => self.remove(name),
            Ok(record) => Err(Error::InUse { name: name.to_string(), status: record.status }),
            Err(e) => Err(e),
        }
    }

    /// A directory without a state file: somebody's removal was interrupted. If it holds anything else it stays.
    fn remove_remains(&self, name: &Name) -> Result<(), Error> {
        let dir = self.dir(name);
        match fs::remove_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::File(dir, e)),
            _ => Ok(()),
        }
    }

    /// Out of sight in one step, then piece by piece.
    fn discard(&self, name: &Name) -> Result<(), Error> {
        let old = self.beside("old", name);
        let dir = self.dir(name);
        fs::rename(&dir, &old).map_err(|e| Error::File(dir, e))?;
        remove_tree(&old)
    }

    /// A name no container can have.
    fn beside(&self, what: &str, name: &Name) -> PathBuf {
        self.root.join(format!(".{what}-{}-{name}", std::process::id()))
    }
}

impl Held {
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Replaces the record.
    pub(crate) fn update(&self, record: &Record) -> Result<(), Error> {
        write(&self.dir, record)
    }

    /// The directory stays, for `husk delete`.
    pub(crate) fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.keep {
            let mut old: OsString = self.dir.as_os_str().to_owned();
            if let Some(name) = self.dir.file_name() {
                old =
                    self.dir.with_file_name(format!(".old-{}-{}", std::process::id(), name.display())).into();
            }
            let _ = fs::rename(&self.dir, &old);
            let _ = fs::remove_dir_all(&old);
        }
    }
}

const STATE: &str = "state.json";
const LOCK: &str = "lock";

/// Where containers are kept unless said otherwise: `/run/husk` for root, else the user's runtime directory.
pub fn default_root() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/run/husk");
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir).join("husk"),
        _ => PathBuf::from(format!("/tmp/husk-{}", nix::unistd::geteuid())),
    }
}

/// Where unpacked images are kept unless said otherwise.
pub fn default_data() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/husk");
    }
    match (std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME")) {
        (Some(dir), _) if !dir.is_empty() => PathBuf::from(dir).join("husk"),
        (_, Some(home)) if !home.is_empty() => PathBuf::from(home).join(".local/share/husk"),
        _ => default_root().join(".data"),
    }
}

/// A directory nobody else looks into.
pub(crate) fn make_private(dir: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| Error::File(dir.to_path_buf(), e))
}

/// Removes a tree that may already be gone.
pub(crate) fn remove_tree(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::File(dir.to_path_buf(), e)),
        _ => Ok(()),
    }
}

/// The lock of a directory; `None` if somebody holds it.
fn lock(dir: &Path) -> Result<Option<Flock<File>>, Error> {
    try_lock(dir, FlockArg::LockExclusiveNonblock)
}

/// Whether nobody holds it. Two who ask at once do not take each other for the owner.
fn is_free(dir: &Path) -> Result<bool, Error> {
    Ok(try_lock(dir, FlockArg::LockSharedNonblock)?.is_some())
}

fn try_lock(dir: &Path, how: FlockArg) -> Result<Option<Flock<File>>, Error> {
    let path = dir.join(LOCK);
    let open = File::options().create(true).truncate(false).write(true).open(&path);
    let file = match open {
        Ok(file) => file,
        Err(e) => return Err(Error::File(path, e)),
    };
    match Flock::lock(file, how) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, e)) => Err(Error::File(path, e.into())),
    }
}

/// Replaces the state file in one step.
fn write(dir: &Path, record: &Record) -> Result<(), Error> {
    let path = dir.join(STATE);
    let new = dir.join("state.json.new");
    let bytes = serde_json::to_vec_pretty(record).expect("a record is plain data");
    fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path)).map_err(|e| Error::File(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(status: Status, remove: bool) -> Record {
        Record {
            pid: std::process::id(),
            status,
            exit_code: None,
            image: "oci:x".into(),
            command: vec!["sh".into()],
            artefacts: "/a".into(),
            data: None,
            remove,
            env: vec![],
            cwd: "/".into(),
            user: String::new(),
        }
    }

    fn store() -> (tempfile::TempDir, Store, Name) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("root"));
        (dir, store, "web".parse().unwrap())
    }

    fn names(store: &Store) -> Vec<String> {
        fs::read_dir(&store.root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_name_is_taken_once_and_free_again_after() {
        let (_dir, store, name) = store();
        let held = store.create(&name, &record(Status::Running, true)).unwrap();
        assert_eq!(store.load(&name).unwrap().status, Status::Running);
        let error = store.create(&name, &record(Status::Running, true)).unwrap_err();
        assert_eq!(error.to_string(), "web: name is in use by a container that is running");
        assert_eq!(names(&store), ["web"]);
        drop(held);
        assert_eq!(names(&store), [] as [&str; 0]);
        store.create(&name, &record(Status::Running, true)).unwrap();
    }

    #[test]
    fn the_dead_are_told_from_the_living() {
        let (_dir, store, name) = store();
        store.create(&name, &record(Status::Running, false)).unwrap().keep();
        assert_eq!(store.load(&name).unwrap().status, Status::Dead);
        assert!(matches!(store.running(&name), Err(Error::NotRunning { status: Status::Dead, .. })));
        assert!(matches!(store.create(&name, &record(Status::Running, false)), Err(Error::InUse { .. })));
        store.remove(&name).unwrap();
        assert_eq!(names(&store), [] as [&str; 0]);
    }

    #[test]
    fn a_dead_one_that_was_to_go_makes_way() {
        let (dir, store, name) = store();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        let old = Record { data: Some(data.clone()), ..record(Status::Running, true) };
        store.create(&name, &old).unwrap().keep();
        let _held = store.create(&name, &record(Status::Creating, true)).unwrap();
        assert_eq!(store.load(&name).unwrap().status, Status::Creating);
        assert!(!data.exists());
    }

    #[test]
    fn the_living_are_not_removed_and_the_stopped_are() {
        let (_dir, store, name) = store();
        let held = store.create(&name, &record(Status::Running, false)).unwrap();
        assert!(matches!(store.remove(&name), Err(Error::Running(_))));
        held.update(&record(Status::Stopped, false)).unwrap();
        held.keep();
        assert_eq!(store.list().unwrap().len(), 1);
        store.remove(&name).unwrap();
        assert!(matches!(store.load(&name), Err(Error::Unknown(_))));
    }

    #[test]
    fn no_root_is_an_empty_list() {
        assert!(Store::new("/no/such/root").list().unwrap().is_empty());
    }
}
