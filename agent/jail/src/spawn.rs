//! The agent's side: one clone into the namespaces and the cgroup of a plan.
//!
//! The child waits on a pipe until this side has written its id maps, its out-of-memory score and, in a user namespace
//! of its own, its limits: only the agent still has the right to. Then it executes `exe` as `husk-agent jail` with
//! this fixed set of descriptors, and nothing else open:
//!
//! | 0, 1, 2 | 3 | 4 | from 5 on |
//! |---|---|---|---|
//! | standard streams | the plan | its end of [`Control`] | for an exec: the pidfd of the container's first process; for a container: its [`mapped_mounts`] |

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, fcntl, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;

use crate::Plan;
use crate::cgroup::{Cgroup, CgroupError, Seat};
use crate::control::Control;
use crate::plan::{IdMap, NamespaceKind, Source};
use crate::sys;

/// The first argument with which the agent's binary must call [`crate::enter`].
pub(crate) const ARGV: [&CStr; 2] = [c"husk-agent", c"jail"];

/// What a new process is connected to.
#[derive(Debug, Default)]
pub struct ChildIo<'a> {
    /// Its standard input; `/dev/null` if absent. With a terminal the terminal takes the place of all three.
    pub stdin: Option<OwnedFd>,
    /// Its standard output.
    pub stdout: Option<OwnedFd>,
    /// Its standard error.
    pub stderr: Option<OwnedFd>,
    /// For an exec: the pidfd of the container's first process.
    pub container: Option<BorrowedFd<'a>>,
    /// For a container: what [`mapped_mounts`] gave for its plan.
    pub mounts: Vec<OwnedFd>,
}

/// A process on its way into its container. A direct child of the calling process, which must wait for it.
#[derive(Debug)]
pub struct Spawned {
    /// Its number in the caller's pid namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// The conversation with it.
    pub control: Control,
}

/// Why no process was made. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The plan could not be put into a file.
    #[error("jail: plan: {0}")]
    Plan(#[source] io::Error),
    /// A descriptor could not be prepared.
    #[error("jail: {what}: {source}")]
    Descriptor {
        /// Which.
        what: &'static str,
        /// Why.
        source: Errno,
    },
    /// The cgroup is not there.
    #[error("jail: {0}")]
    Cgroup(#[from] CgroupError),
    /// A namespace could not be entered or left again.
    #[error("jail: {action} {kind} namespace {path:?}: {source}")]
    Namespace {
        /// `open`, `enter` or `leave`.
        action: &'static str,
        /// Its kind.
        kind: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// An exec without the container's first process.
    #[error("jail: exec: no pidfd of the container's first process")]
    NoContainer,
    /// The container's first process is gone.
    #[error("jail: exec: the container's first process is gone")]
    ContainerGone,
    /// A mount whose owners are mapped could not be prepared.
    #[error("jail: id-mapped mount of {path:?} at {at:?}: {source}")]
    Mapped {
        /// Its source.
        path: PathBuf,
        /// Its place in the container.
        at: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The clone failed.
    #[error("jail: clone: {0}")]
    Clone(#[source] Errno),
    /// The new process could not be given what only the agent can give.
    #[error("jail: {what} of process {pid}: {source}")]
    Prepare {
        /// What.
        what: &'static str,
        /// The process, which was killed.
        pid: i32,
        /// Why.
        source: io::Error,
    },
}

/// The mounts of a plan whose owners are mapped, in its order, detached.
///
/// Only the agent may map owners: a container with a user namespace of its own has no say over the file systems outside
/// of it. Waits for the sources to answer, so call it on a thread that may wait.
pub fn mapped_mounts(plan: &Plan) -> Result<Vec<OwnedFd>, SpawnError> {
    let mounts = plan.container.iter().flat_map(|container| &container.mounts);
    let mut out = Vec::new();
    for mount in mounts {
        let (Some(owners), Source::Bind { path, recursive }) = (&mount.owners, &mount.source) else {
            continue;
        };
        let made = sys::user_namespace(&id_map(&owners.uids), &id_map(&owners.gids)).and_then(|namespace| {
            let tree = sys::clone_mount(AT_FDCWD, path, *recursive)?;
            sys::map_owners(&tree, &namespace, owners.below)?;
            Ok(tree)
        });
        let at = mount.destination.clone();
        out.push(made.map_err(|source| SpawnError::Mapped { path: path.clone(), at, source })?);
    }
    Ok(out)
}

/// Starts the process of `plan`.
///
/// Blocks for no longer than a clone takes, but enters namespaces with the calling thread meanwhile: call it on a
/// thread that does nothing else at the time. `exe` is the path of a binary whose main calls [`crate::enter`] when its
/// first argument is `jail`.
pub fn spawn(plan: &Plan, io: ChildIo<'_>, exe: &CStr) -> Result<Spawned, SpawnError> {
    let floor = Floor(sys::FIRST_FREE_FD.max(FIXED + 1 + io.mounts.len() as RawFd));
    let plan_file = floor.above(plan_file(plan).map_err(SpawnError::Plan)?, "plan")?;
    let (control, report) =
        Control::pair().map_err(|source| SpawnError::Descriptor { what: "control socket", source })?;
    let (release, releaser) = nix::unistd::pipe2(OFlag::O_CLOEXEC)
        .map_err(|source| SpawnError::Descriptor { what: "release pipe", source })?;
    let release = floor.above(release, "release pipe")?;
    let releaser = floor.above(releaser, "release pipe")?;
    let report = floor.above(report, "control socket")?;
    let stdin = floor.stream(io.stdin, OFlag::O_RDONLY, "stdin")?;
    let stdout = floor.stream(io.stdout, OFlag::O_WRONLY, "stdout")?;
    let stderr = floor.stream(io.stderr, OFlag::O_WRONLY, "stderr")?;
    let container = match (plan.is_exec(), io.container) {
        (true, None) => return Err(SpawnError::NoContainer),
        (true, Some(fd)) => Some(floor.duplicate(fd, "container pidfd")?),
        (false, _) => None,
    };
    let mounts =
        io.mounts.into_iter().map(|tree| floor.above(tree, "mount")).collect::<Result<Vec<_>, _>>()?;
    let user = plan.namespaces.joins(NamespaceKind::User);
    let user = user.map(|path| open_namespace(NamespaceKind::User, path)).transpose()?;
    let seat = plan.cgroup.as_deref().map(|path| Cgroup::seat(path, plan.is_exec())).transpose()?;
    let cgroup = match &seat {
        Some(Seat::Directory(fd)) => Some(fd.as_fd()),
        _ => None,
    };

    let mut fds = vec![stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), plan_file.as_fd(), report.as_fd()];
    fds.extend(container.as_ref().map(AsFd::as_fd));
    fds.extend(mounts.iter().map(AsFd::as_fd));
    let launch = sys::Launch {
        namespaces: born_with(plan).fold(0, |flags, kind| flags | kind.flag()),
        user_namespace: user.as_ref().map(AsFd::as_fd),
        cgroup,
        fds: &fds,
        release: release.as_fd(),
        become_root: plan.namespaces.contains(NamespaceKind::User),
        exe,
        argv: &ARGV,
    };
    let mut visit = Visit::default();
    let cloned = match visit.enter(plan, container.as_ref()) {
        Ok(()) => sys::clone_and_exec(&launch).map_err(SpawnError::Clone),
        Err(error) => Err(error),
    };
    let left = visit.leave();
    let (pid, pidfd) = cloned?;
    let prepared = left.and_then(|()| prepare(plan, pid, seat.as_ref())).and_then(|()| {
        let mut releaser = File::from(releaser);
        releaser.write_all(b"g").map_err(|source| SpawnError::Prepare { what: "release", pid, source })
    });
    match prepared {
        Ok(()) => Ok(Spawned { pid, pidfd, control }),
        Err(error) => {
            // Ours alone so far: kill it and take its status, or it stays a zombie that nobody knows.
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(pid, None);
            Err(error)
        }
    }
}

/// The calling thread's visit to other namespaces: whatever it clones meanwhile is born there.
#[derive(Default)]
struct Visit {
    homes: Vec<(NamespaceKind, OwnedFd)>,
}

impl Visit {
    fn enter(&mut self, plan: &Plan, container: Option<&OwnedFd>) -> Result<(), SpawnError> {
        if let Some(container) = container {
            // Only the pid namespace: it holds for children, not for this thread. The child enters the others.
            return self.step_into(NamespaceKind::Pid, container, Path::new("of the container")).map_err(
                |error| match error {
                    SpawnError::Namespace { source: Errno::ESRCH, .. } => SpawnError::ContainerGone,
                    error => error,
                },
            );
        }
        let others = [NamespaceKind::User, NamespaceKind::Time];
        for join in plan.namespaces.join.iter().filter(|join| !others.contains(&join.kind)) {
            let fd = open_namespace(join.kind, &join.path)?;
            self.step_into(join.kind, &fd, &join.path)?;
        }
        Ok(())
    }

    fn step_into(&mut self, kind: NamespaceKind, fd: &OwnedFd, path: &Path) -> Result<(), SpawnError> {
        let home = open_namespace(kind, &home_path(kind))?;
        setns(fd, clone_flag(kind)).map_err(|source| SpawnError::Namespace {
            action: "enter",
            kind: kind.name(),
            path: path.to_owned(),
            source,
        })?;
        self.homes.push((kind, home));
        Ok(())
    }

    fn leave(self) -> Result<(), SpawnError> {
        let mut outcome = Ok(());
        for (kind, home) in self.homes.into_iter().rev() {
            if let Err(source) = setns(&home, clone_flag(kind)) {
                let path = home_path(kind);
                outcome = Err(SpawnError::Namespace { action: "leave", kind: kind.name(), path, source });
            }
        }
        outcome
    }
}

/// The namespaces the clone makes. A time namespace is made by the new process, which then can still set its clocks.
fn born_with(plan: &Plan) -> impl Iterator<Item = NamespaceKind> + '_ {
    plan.namespaces.create.iter().copied().filter(|kind| *kind != NamespaceKind::Time)
}

fn clone_flag(kind: NamespaceKind) -> CloneFlags {
    CloneFlags::from_bits_retain(kind.flag() as i32)
}

fn home_path(kind: NamespaceKind) -> PathBuf {
    // The thread's, not the process's; and for pid the one it is in itself, to which children go back.
    PathBuf::from(format!("/proc/thread-self/ns/{}", kind.name()))
}

fn open_namespace(kind: NamespaceKind, path: &Path) -> Result<OwnedFd, SpawnError> {
    open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map_err(|source| SpawnError::Namespace {
        action: "open",
        kind: kind.name(),
        path: path.to_owned(),
        source,
    })
}

/// What only the agent may do to the new process, before it runs.
fn prepare(plan: &Plan, pid: i32, seat: Option<&Seat>) -> Result<(), SpawnError> {
    let fail = |what: &'static str| move |source: io::Error| SpawnError::Prepare { what, pid, source };
    if let Some(Seat::Lists(lists)) = seat {
        for list in lists {
            std::fs::write(list, pid.to_string()).map_err(fail("cgroup"))?;
        }
    }
    if plan.namespaces.creates(NamespaceKind::User) {
        std::fs::write(format!("/proc/{pid}/uid_map"), id_map(&plan.namespaces.uids))
            .map_err(fail("uid map"))?;
        std::fs::write(format!("/proc/{pid}/gid_map"), id_map(&plan.namespaces.gids))
            .map_err(fail("gid map"))?;
    }
    if plan.namespaces.contains(NamespaceKind::User) {
        for limit in &plan.process.rlimits {
            sys::set_rlimit_of(pid, limit.resource, limit.soft, limit.hard)
                .map_err(|errno| fail("resource limits")(errno.into()))?;
        }
    }
    // Always: what the agent has of its own, which keeps it alive, is not for containers.
    let score = plan.process.oom_score_adj.unwrap_or(0).to_string();
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), score).map_err(fail("oom_score_adj"))
}

fn id_map(maps: &[IdMap]) -> String {
    maps.iter().map(|map| format!("{} {} {}\n", map.inside, map.outside, map.size)).collect()
}

/// The plan in a file without a name.
fn plan_file(plan: &Plan) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"husk-jail-plan", MFdFlags::MFD_CLOEXEC)?);
    serde_json::to_writer(&mut file, plan)?;
    io::Seek::rewind(&mut file)?;
    Ok(file.into())
}

/// The first number that is not one of the child's fixed ones.
#[derive(Clone, Copy)]
struct Floor(RawFd);

/// The child's descriptors 0 to 4 are always there.
const FIXED: RawFd = 4;

impl Floor {
    fn stream(self, fd: Option<OwnedFd>, mode: OFlag, what: &'static str) -> Result<OwnedFd, SpawnError> {
        let fd = match fd {
            Some(fd) => fd,
            None => open(c"/dev/null", mode | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(|source| SpawnError::Descriptor { what, source })?,
        };
        self.above(fd, what)
    }

    /// Moves a descriptor out of the way of the child's fixed numbers.
    fn above(self, fd: OwnedFd, what: &'static str) -> Result<OwnedFd, SpawnError> {
        if fd.as_raw_fd() >= self.0 { Ok(fd) } else { self.duplicate(fd.as_fd(), what) }
    }

    fn duplicate(self, fd: BorrowedFd<'_>, what: &'static str) -> Result<OwnedFd, SpawnError> {
        let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(self.0))
            .map_err(|source| SpawnError::Descriptor { what, source })?;
        Ok(sys::fresh(number))
    }
}
