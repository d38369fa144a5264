//! A container's cgroup: made, limited, measured, frozen, emptied, removed. Version 2 and version 1.
//!
//! Everything is a small file below the cgroup's directory. What to write is decided by plain functions from OCI
//! resources to files and values ([`v2`], [`v1`]) and from device rules to a program ([`devices`]); this file performs
//! it. [`tree`] knows where the directories are.
//!
//! Who makes the directory is decided by a [`Place`]: this code, or, where systemd is PID 1 and a spec asks for
//! `slice:prefix:name`, systemd ([`systemd`]). Under PID 1 that form means the directories `slice/prefix/name`, as with
//! peers.
//!
//! `cgroups-rs` was looked at and left: it models version 1 first, gives no way to say "no limit" where 0 is meant to
//! stay unset, has no device program for version 2, and brings a D-Bus client with its own runtime along.

mod devices;
mod error;
mod freezer;
mod oom;
mod place;
mod settings;
mod stats;
pub mod systemd;
mod tree;
mod v1;
mod v2;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::oci::LinuxResources;

pub use devices::DeviceRules;
pub(crate) use devices::Instruction;
pub use error::CgroupError;
pub use oom::OomWatch;
pub use place::Place;
pub use stats::{Cpu, Hugetlb, Io, IoEntry, Memory, Pids, Stats, Usage};
pub use tree::{AGENT, ROOT, agent_path, path_of, v1_hierarchies};

use settings::Setting;
use systemd::Scope;
use tree::Tree;

/// How long between two tries while waiting for the kernel.
const PAUSE: Duration = Duration::from_millis(2);

/// One cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
    tree: Tree,
    /// Whether systemd made it.
    scope: Option<Scope>,
}

type Result<T> = std::result::Result<T, CgroupError>;

/// How a process gets into a cgroup.
#[derive(Debug)]
pub(crate) enum Seat {
    /// By its clone, into this directory.
    Directory(OwnedFd),
    /// By its number, written to each of these files.
    Lists(Vec<PathBuf>),
}

impl Cgroup {
    /// Makes the cgroup and every one above it that is missing, and hands the controllers down to it.
    pub fn create(path: &Path) -> Result<Cgroup> {
        let tree = Tree::holding(path)?;
        tree.make(path)?;
        Ok(Cgroup { path: path.to_owned(), tree, scope: None })
    }

    /// Has systemd make a scope with these limits, around a process that it takes into it. The scope is gone as soon as
    /// nobody is in it: the process must stay until another one is.
    pub fn create_scope(
        scope: &Scope,
        description: &str,
        pid: i32,
        resources: Option<&LinuxResources>,
    ) -> Result<Cgroup> {
        let path = scope.path();
        let nobody = Cgroup { tree: Tree::holding(&path)?, path: path.clone(), scope: None };
        let settings = resources.map_or(Ok(Vec::new()), |resources| nobody.settings(resources))?;
        scope.start(description, pid, &settings, &|_| None).map_err(CgroupError::Systemd)?;
        let made = nobody.complete(pid, &settings).and_then(|tree| {
            let cgroup = Cgroup { path, tree, scope: Some(scope.clone()) };
            cgroup.set_unknown(&settings)?;
            Ok(cgroup)
        });
        made.inspect_err(|_| {
            // The error to tell is the first one.
            let _ = scope.stop();
        })
    }

    /// Writes the files of which systemd knows nothing.
    fn set_unknown(&self, settings: &[Setting]) -> Result<()> {
        let now = |file: &str| self.now(file);
        let mut unknown = settings.iter().filter(|setting| !systemd::knows(setting, &now));
        unknown.try_for_each(|setting| self.set(setting))
    }

    /// What systemd leaves to others in a scope that it has made: controllers and hierarchies that it does not know.
    fn complete(&self, pid: i32, settings: &[Setting]) -> Result<Tree> {
        const UNKNOWN: [&str; 3] = ["hugetlb.", "misc.", "rdma."];
        let unknown = |setting: &Setting| UNKNOWN.iter().any(|prefix| setting.file.starts_with(prefix));
        if !self.is_v2() || settings.iter().any(unknown) {
            self.tree.make(&self.path)?;
        }
        // Looked at anew: systemd's own hierarchies are part of a version 1 tree for what is in them.
        let whole = Cgroup { tree: Tree::holding(&self.path)?, path: self.path.clone(), scope: None };
        if !whole.is_v2() {
            whole.enter(pid)?;
        }
        Ok(whole.tree)
    }

    /// A cgroup that is there already.
    pub fn open(path: &Path) -> Result<Cgroup> {
        let cgroup = Cgroup { path: path.to_owned(), tree: Tree::holding(path)?, scope: None };
        match cgroup.directories().iter().find(|directory| !directory.is_dir()) {
            None => Ok(cgroup),
            Some(missing) => Err(CgroupError::File {
                action: "open".to_owned(),
                path: missing.clone(),
                source: io::ErrorKind::NotFound.into(),
            }),
        }
    }

    /// The path it goes by: below [`ROOT`], and with version 2 its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is of version 2.
    pub fn is_v2(&self) -> bool {
        matches!(self.tree, Tree::V2(_))
    }

    /// Sets the limits that are present, device rules excepted. -1 is no limit, also where there was one. A scope has
    /// them from the start.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        self.settings(resources)?.iter().try_for_each(|setting| self.set(setting))
    }

    /// The same, in a cgroup that is in use: if one cannot be set, those before it are set back.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        let settings = self.settings(resources)?;
        let before = self.change(&settings)?;
        let Some(scope) = &self.scope else { return Ok(()) };
        // After the kernel: what takes a while, as to free memory, is not for PID 1 to wait for.
        if let Err(error) = scope.set(&settings, &|file| self.now(file)) {
            self.put_back(&before);
            return Err(CgroupError::Systemd(error));
        }
        // It writes all that it holds for a unit at any change. What it was not told of is ours to write again.
        self.set_unknown(&settings)
    }

    /// Writes all of these files or none, and returns what was in them.
    fn change(&self, settings: &[Setting]) -> Result<Vec<(String, String)>> {
        let mut before: Vec<(String, String)> = Vec::new();
        for setting in settings {
            // Files with a line for each device are left out: what they say is not what they take.
            let held = self.read(&setting.file).ok().filter(|text| text.trim_end().lines().count() == 1);
            if let Err(error) = self.set(setting) {
                self.put_back(&before);
                return Err(error);
            }
            before.extend(held.map(|text| (setting.file.clone(), text.trim_end().to_owned())));
        }
        Ok(before)
    }

    fn put_back(&self, before: &[(String, String)]) {
        for (file, value) in before.iter().rev() {
            // The error to tell is the first one.
            let _ = self.write(file, value);
        }
    }

    fn settings(&self, resources: &LinuxResources) -> Result<Vec<Setting>> {
        let now = |file: &str| self.now(file);
        match self.tree {
            Tree::V2(_) => v2::settings(resources, &now),
            Tree::V1(_) => v1::settings(resources, &now),
        }
    }

    fn now(&self, file: &str) -> Option<String> {
        self.read(file).ok().map(|text| text.trim().to_owned())
    }

    fn set(&self, setting: &Setting) -> Result<()> {
        match self.write(&setting.file, &setting.value) {
            // A kernel without swap accounting has no swap to limit.
            Err(error) if setting.optional && error.is_missing() => Ok(()),
            other => other,
        }
    }

    /// What of these resources this version of cgroups has no file for, by the specification's names.
    pub fn ignored(&self, resources: &LinuxResources) -> Vec<&'static str> {
        if self.is_v2() { v2::ignored(resources) } else { Vec::new() }
    }

    /// Holds its processes to these device rules, from one moment to the next if there were others.
    pub fn set_devices(&self, rules: &DeviceRules) -> Result<()> {
        devices::set(self, rules)
    }

    /// Runs `cpuset.cpus` and `cpuset.mems` through once more, as more of them may be there than when they were set.
    /// With version 1 every cgroup above gets what the root has first, because it learns of no new one by itself.
    pub fn refresh_cpuset(&self, resources: &LinuxResources) -> Result<()> {
        let Some(cpu) = resources.cpu() else { return Ok(()) };
        let wanted = [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())];
        for (file, list) in wanted {
            let Some(list) = list.as_ref().filter(|list| !list.is_empty()) else { continue };
            if let Tree::V1(_) = self.tree {
                let path = self.tree.file(&self.path, file)?;
                let top = self.tree.file(Path::new(ROOT), file)?;
                let all = fs::read_to_string(&top).unwrap_or_default();
                let parents: Vec<_> = path.ancestors().skip(2).collect();
                let below_top = |parent: &&&Path| Some(**parent) != top.parent();
                for parent in parents.iter().take_while(below_top).collect::<Vec<_>>().into_iter().rev() {
                    write_file(&parent.join(file), all.trim())?;
                }
            }
            self.write(file, list)?;
        }
        Ok(())
    }

    /// What it uses.
    pub fn stats(&self) -> Result<Stats> {
        match self.tree {
            Tree::V2(_) => stats::v2::read(self),
            Tree::V1(_) => stats::v1::read(self),
        }
    }

    /// The processes in it and in the cgroups below it.
    pub fn procs(&self) -> Result<Vec<i32>> {
        let mut out = Vec::new();
        for directory in self.directories().iter().flat_map(|top| walk(top)) {
            // A cgroup below may go at any time: then nobody is in it.
            let Ok(text) = fs::read_to_string(directory.join("cgroup.procs")) else { continue };
            out.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|&pid| pid > 0));
        }
        out.sort_unstable();
        out.dedup();
        Ok(out)
    }

    /// Whether any process is in it or below it.
    pub fn populated(&self) -> Result<bool> {
        match self.tree {
            Tree::V2(_) => Ok(stats::field(&self.read("cgroup.events")?, "populated") == Some(1)),
            Tree::V1(_) => Ok(!self.procs()?.is_empty()),
        }
    }

    /// How often the kernel killed for lack of memory in it.
    pub fn oom_kills(&self) -> Result<u64> {
        let file = if self.is_v2() { "memory.events" } else { "memory.oom_control" };
        Ok(stats::field(&self.read(file)?, "oom_kill").unwrap_or(0))
    }

    /// Watches for such kills.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        OomWatch::new(self)
    }

    /// Kills every process in it and below it, frozen or not.
    pub fn kill_all(&self) -> Result<()> {
        freezer::kill_all(self)
    }

    /// Stops every process in it and below it, and waits until they are. If that takes too long, they go on.
    pub fn freeze(&self, deadline: Duration) -> Result<()> {
        freezer::freeze(self, deadline)
    }

    /// Lets them go on.
    pub fn thaw(&self, deadline: Duration) -> Result<()> {
        freezer::thaw(self, deadline)
    }

    /// Removes it with every cgroup below it. Its processes must be dead or dying; the kernel gets until the deadline to
    /// see them off. One that is gone already is fine.
    pub fn remove(&self, deadline: Duration) -> Result<()> {
        let stopped = self.scope.as_ref().map_or(Ok(()), Scope::stop);
        self.remove_directories(deadline)?;
        stopped.map_err(CgroupError::Systemd)
    }

    fn remove_directories(&self, deadline: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let mut busy = None;
            for top in self.directories() {
                // The deepest first.
                for directory in walk(&top).into_iter().rev() {
                    match fs::remove_dir(&directory) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
                            busy = Some(directory);
                        }
                        Err(source) => {
                            let action = "remove".to_owned();
                            return Err(CgroupError::File { action, path: directory, source });
                        }
                        Ok(()) => {}
                    }
                }
            }
            let Some(path) = busy else { return Ok(()) };
            if start.elapsed() >= deadline {
                return Err(CgroupError::Deadline { path, what: "removed", after: deadline });
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Removes it if nothing is in it, neither a process nor a cgroup, and tells whether it is gone.
    pub fn remove_if_empty(&self) -> bool {
        self.directories().iter().all(|directory| match fs::remove_dir(directory) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        })
    }

    /// Moves a process, with all its threads, into it.
    pub fn enter(&self, pid: i32) -> Result<()> {
        self.directories()
            .iter()
            .try_for_each(|directory| write_file(&directory.join("cgroup.procs"), &pid.to_string()))
    }

    /// Writes one of its files.
    pub fn write(&self, file: &str, value: &str) -> Result<()> {
        write_file(&self.tree.file(&self.path, file)?, value)
    }

    /// How a new process gets into it. With version 2 a container whose own init moved itself into a child called
    /// `init` (systemd, docker in docker) cannot take processes beside it: the kernel allows none in a cgroup that
    /// hands controllers on. There an exec goes into that child.
    pub(crate) fn seat(path: &Path, exec: bool) -> Result<Seat> {
        let cgroup = Cgroup::open(path)?;
        if !cgroup.is_v2() {
            let list = |directory: PathBuf| directory.join("cgroup.procs");
            return Ok(Seat::Lists(cgroup.directories().into_iter().map(list).collect()));
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        if exec && let Ok(fd) = open(&path.join("init"), flags, Mode::empty()) {
            return Ok(Seat::Directory(fd));
        }
        let opened = open(path, flags, Mode::empty()).map_err(|source| CgroupError::File {
            action: "open".to_owned(),
            path: path.to_owned(),
            source: source.into(),
        });
        Ok(Seat::Directory(opened?))
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.tree.file(&self.path, file)?;
        fs::read_to_string(&path).map_err(|source| CgroupError::File {
            action: "read".to_owned(),
            path,
            source,
        })
    }

    fn directories(&self) -> Vec<PathBuf> {
        self.tree.directories(&self.path)
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
}

fn write_file(path: &Path, value: &str) -> Result<()> {
    // Not fs::write: a missing file must stay missing, not be created. And one write only: each is a command.
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
        .map_err(|source| CgroupError::File {
            action: format!("write {value:?} to"),
            path: path.to_owned(),
            source,
        })
}

/// A directory and those below it, parents before children.
fn walk(top: &Path) -> Vec<PathBuf> {
    let mut out = vec![top.to_owned()];
    let mut at = 0;
    while at < out.len() {
        let below = fs::read_dir(&out[at]).into_iter().flatten().flatten();
        let directories = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        out.extend(directories.map(|entry| entry.path()).collect::<Vec<_>>());
        at += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_below_the_root_are_touched() {
        assert!(matches!(Cgroup::create(Path::new("/sys/fs/cgroup")), Err(CgroupError::Path(_))));
        assert!(matches!(Cgroup::create(Path::new("/tmp/x")), Err(CgroupError::Path(_))));
        assert!(matches!(Cgroup::open(Path::new("/sys/fs/cgroup/../x")), Err(CgroupError::Path(_))));
    }
}
