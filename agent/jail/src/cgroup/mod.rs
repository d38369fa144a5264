//! A container's cgroup, version 2: made, limited, measured, frozen, emptied, removed.
//!
//! Everything is a small file below the cgroup's directory. The cgroups-rs crate was looked at and left: it models
//! version 1 first, and brings a D-Bus client along for systemd hosts; a guest of ours has neither.

mod limits;
mod stats;

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::oci::LinuxResources;

pub use stats::{Cpu, Io, Memory, Pids, Stats};

/// Where the tree is mounted.
pub const ROOT: &str = "/sys/fs/cgroup";

/// The controllers that are handed down to every cgroup on the way, as far as the kernel has them.
const CONTROLLERS: [&str; 5] = ["cpuset", "cpu", "io", "memory", "pids"];

/// How long between two tries while waiting for the kernel.
const PAUSE: Duration = Duration::from_millis(2);

/// One cgroup, by its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

/// What went wrong with which file.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A path that leads out of the tree, or is the tree's root.
    #[error("cgroup: path {0:?} is not below the cgroup tree")]
    Path(PathBuf),
    /// A file could not be read or written.
    #[error("cgroup: {action} {path:?}: {source}")]
    File {
        /// `read`, `write "50" to`, `create`, `remove`.
        action: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A limit that cannot be.
    #[error("cgroup: {what}: {value}")]
    Limit {
        /// Which.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// The kernel did not do in time what it was asked for.
    #[error("cgroup: {path:?}: not {what} after {after:?}")]
    Deadline {
        /// The cgroup.
        path: PathBuf,
        /// `empty`, `frozen`, `removed`.
        what: &'static str,
        /// How long it was given.
        after: Duration,
    },
}

type Result<T> = std::result::Result<T, CgroupError>;

/// The directory that the `cgroupsPath` of a spec means: `:` separates like `/`, and nothing means the container's id.
pub fn path_of(cgroups_path: &str, id: &str) -> Result<PathBuf> {
    let relative = match cgroups_path {
        "" => id.to_owned(),
        path => path.replace(':', "/"),
    };
    let relative = Path::new(&relative);
    let mut path = PathBuf::from(ROOT);
    for part in relative.components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => return Err(CgroupError::Path(relative.to_owned())),
        }
    }
    if path == Path::new(ROOT) { Err(CgroupError::Path(relative.to_owned())) } else { Ok(path) }
}

impl Cgroup {
    /// Makes the cgroup and every one above it that is missing, and hands the controllers down to it.
    pub fn create(path: &Path) -> Result<Cgroup> {
        let below = below_root(path)?;
        let mut at = PathBuf::from(ROOT);
        for part in below.components() {
            hand_down(&at)?;
            at.push(part);
            match fs::create_dir(&at) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(CgroupError::File { action: "create".to_owned(), path: at, source: error });
                }
                _ => {}
            }
        }
        Ok(Cgroup { path: at })
    }

    /// A cgroup that is there already.
    pub fn open(path: &Path) -> Result<Cgroup> {
        below_root(path)?;
        let cgroup = Cgroup { path: path.to_owned() };
        cgroup.read("cgroup.procs")?;
        Ok(cgroup)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the limits that are present. 0 means not set, -1 no limit.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        for setting in limits::settings(resources)? {
            match self.write(&setting.file, &setting.value) {
                // A kernel without swap accounting has no swap to limit.
                Err(CgroupError::File { source, .. })
                    if setting.optional && source.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// What it uses.
    pub fn stats(&self) -> Result<Stats> {
        stats::read(self)
    }

    /// The processes in it and in the cgroups below it.
    pub fn procs(&self) -> Result<Vec<i32>> {
        let mut out = Vec::new();
        for directory in self.tree() {
            // A cgroup below may go at any time: then nobody is in it.
            let Ok(text) = fs::read_to_string(directory.join("cgroup.procs")) else { continue };
            out.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|&pid| pid > 0));
        }
        Ok(out)
    }

    /// Whether any process is in it or below it.
    pub fn populated(&self) -> Result<bool> {
        Ok(stats::field(&self.read("cgroup.events")?, "populated") == Some(1))
    }

    /// How often the kernel killed for lack of memory in it.
    pub fn oom_kills(&self) -> Result<u64> {
        Ok(stats::field(&self.read("memory.events")?, "oom_kill").unwrap_or(0))
    }

    /// Kills every process in it and below it.
    pub fn kill_all(&self) -> Result<()> {
        match self.write("cgroup.kill", "1") {
            Err(CgroupError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        // Before Linux 5.14: hold them still, so that none forks past us.
        let frozen = self.freeze(Duration::from_millis(500));
        for pid in self.procs()? {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        self.write("cgroup.freeze", "0")?;
        frozen
    }

    /// Stops every process in it and below it, and waits until they are.
    pub fn freeze(&self, deadline: Duration) -> Result<()> {
        self.write("cgroup.freeze", "1")?;
        self.wait("frozen", deadline, || Ok(stats::field(&self.read("cgroup.events")?, "frozen") == Some(1)))
    }

    /// Lets them go on.
    pub fn thaw(&self, deadline: Duration) -> Result<()> {
        self.write("cgroup.freeze", "0")?;
        self.wait("thawed", deadline, || Ok(stats::field(&self.read("cgroup.events")?, "frozen") != Some(1)))
    }

    /// Removes it with every cgroup below it. Its processes must be dead or dying; the kernel gets until the deadline to
    /// see them off. One that is gone already is fine.
    pub fn remove(&self, deadline: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let mut busy = None;
            // The deepest first.
            for directory in self.tree().into_iter().rev() {
                match fs::remove_dir(&directory) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => busy = Some(directory),
                    Err(source) => {
                        return Err(CgroupError::File {
                            action: "remove".to_owned(),
                            path: directory,
                            source,
                        });
                    }
                    Ok(()) => {}
                }
            }
            let Some(path) = busy else { return Ok(()) };
            if start.elapsed() >= deadline {
                return Err(CgroupError::Deadline { path, what: "removed", after: deadline });
            }
            std::thread::sleep(PAUSE);
        }
    }

    pub(crate) fn read(&self, file: &str) -> Result<String> {
        let path = self.path.join(file);
        fs::read_to_string(&path).map_err(|source| CgroupError::File {
            action: "read".to_owned(),
            path,
            source,
        })
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.path.join(file);
        // Not fs::write: a missing file must stay missing, not be created.
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
            .map_err(|source| CgroupError::File { action: format!("write {value:?} to"), path, source })
    }

    fn wait(&self, what: &'static str, deadline: Duration, done: impl Fn() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !done()? {
            if start.elapsed() >= deadline {
                return Err(CgroupError::Deadline { path: self.path.clone(), what, after: deadline });
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// This cgroup and those below it, parents before children.
    fn tree(&self) -> Vec<PathBuf> {
        let mut out = vec![self.path.clone()];
        let mut at = 0;
        while at < out.len() {
            let below = fs::read_dir(&out[at]).into_iter().flatten().flatten();
            let directories = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            out.extend(directories.map(|entry| entry.path()).collect::<Vec<_>>());
            at += 1;
        }
        out
    }
}

fn below_root(path: &Path) -> Result<&Path> {
    let below = path.strip_prefix(ROOT).map_err(|_| CgroupError::Path(path.to_owned()))?;
    let sound = below.components().all(|part| matches!(part, Component::Normal(_)));
    if sound && below.components().next().is_some() {
        Ok(below)
    } else {
        Err(CgroupError::Path(path.to_owned()))
    }
}

/// Enables for the children of `directory` what the kernel offers there.
fn hand_down(directory: &Path) -> Result<()> {
    let file = |name: &str| directory.join(name);
    let read = |name: &str| {
        fs::read_to_string(file(name)).map_err(|source| CgroupError::File {
            action: "read".to_owned(),
            path: file(name),
            source,
        })
    };
    let offered = read("cgroup.controllers")?;
    let enabled = read("cgroup.subtree_control")?;
    for controller in CONTROLLERS {
        let has = |text: &str| text.split_whitespace().any(|word| word == controller);
        if has(&offered) && !has(&enabled) {
            let value = format!("+{controller}");
            fs::write(file("cgroup.subtree_control"), &value).map_err(|source| CgroupError::File {
                action: format!("write {value:?} to"),
                path: file("cgroup.subtree_control"),
                source,
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroups_path_stays_below_the_root() {
        let path = |text| path_of(text, "c1").ok();
        assert_eq!(path(""), Some("/sys/fs/cgroup/c1".into()));
        assert_eq!(path("/pod/c2"), Some("/sys/fs/cgroup/pod/c2".into()));
        assert_eq!(path("system.slice:cri:c3"), Some("/sys/fs/cgroup/system.slice/cri/c3".into()));
        assert_eq!(path("a/../../etc"), None);
        assert_eq!(path("/"), None);
        assert!(path_of("", "..").is_err());
    }

    #[test]
    fn only_directories_below_the_root_are_touched() {
        assert!(matches!(Cgroup::create(Path::new("/sys/fs/cgroup")), Err(CgroupError::Path(_))));
        assert!(matches!(Cgroup::create(Path::new("/tmp/x")), Err(CgroupError::Path(_))));
        assert!(matches!(Cgroup::open(Path::new("/sys/fs/cgroup/../x")), Err(CgroupError::Path(_))));
    }
}
