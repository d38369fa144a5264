//! The process itself: who it is, what it may do, what it runs.

use std::path::{Path, PathBuf};

use nix::libc;
use serde::{Deserialize, Serialize};

use super::{Filter, PlanError, Scheduling, inner_path, label, no_nul, scheduling, seccomp};
use crate::caps;
use crate::oci::{self, Linux, PosixRlimitType};

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Whether it gets a terminal, from the container's own devpts.
    pub terminal: bool,
    /// The terminal's rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// Who it is.
    pub user: User,
    /// The program and its arguments; at least the program.
    pub args: Vec<String>,
    /// The environment.
    pub env: Vec<String>,
    /// The working directory, made if missing.
    pub cwd: PathBuf,
    /// What it may do.
    pub capabilities: Capabilities,
    /// Whether it can never gain more than it has.
    pub no_new_privileges: bool,
    /// How likely the kernel kills it first.
    pub oom_score_adj: Option<i32>,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// When and where it runs.
    pub scheduling: Scheduling,
    /// What it is to the kernel's security modules.
    pub labels: Labels,
    /// Which system calls it may make.
    pub seccomp: Option<Filter>,
}

/// The names by which security modules know a process. A kernel without the module cannot give one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Labels {
    /// AppArmor's profile.
    pub apparmor: Option<String>,
    /// SELinux's context.
    pub selinux: Option<String>,
}

/// Who a process is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// `name`, `name:group`, `uid` or `uid:gid`, to be looked up in the container's own files; overrules the ids.
    pub name: Option<String>,
    /// File creation mask.
    pub umask: u32,
}

/// Capability sets as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capabilities {
    /// The most that any program executed later can have.
    pub bounding: u64,
    /// In force.
    pub effective: u64,
    /// Kept across an execute of a file that says so.
    pub inheritable: u64,
    /// What can be put in force.
    pub permitted: u64,
    /// Kept across every execute.
    pub ambient: u64,
}

/// One resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// The kernel's number of it.
    pub resource: u32,
    /// What holds.
    pub soft: u64,
    /// How far the process may raise it.
    pub hard: u64,
}

pub(super) fn of_container(process: &oci::Process, linux: Option<&Linux>) -> Result<Process, PlanError> {
    let mut out = of_spec(process)?;
    out.scheduling = scheduling::of_process(process, linux)?;
    out.seccomp = linux.and_then(|linux| linux.seccomp().as_ref()).map(seccomp::compile).transpose()?;
    Ok(out)
}

/// What a request leaves out of these is the container's. Limits and the promise never to gain privileges are not
/// among them.
pub(super) fn of_exec(process: &oci::Process, container: &Process) -> Result<Process, PlanError> {
    let mut out = of_spec(process)?;
    if process.capabilities().is_none() {
        out.capabilities = container.capabilities;
    }
    out.oom_score_adj = out.oom_score_adj.or(container.oom_score_adj);
    out.scheduling = scheduling::of_exec(process, &container.scheduling)?;
    out.labels.apparmor = out.labels.apparmor.or_else(|| container.labels.apparmor.clone());
    out.labels.selinux = out.labels.selinux.or_else(|| container.labels.selinux.clone());
    out.seccomp = container.seccomp.clone();
    Ok(out)
}

fn of_spec(process: &oci::Process) -> Result<Process, PlanError> {
    let args = process.args().clone().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return Err(PlanError::Missing("process.args"));
    }
    let env = process.env().clone().unwrap_or_default();
    for arg in &args {
        no_nul("argument", arg)?;
    }
    for entry in &env {
        no_nul("environment entry", entry)?;
        if entry.find('=').is_none_or(|at| at == 0) {
            return Err(PlanError::Env(entry.clone()));
        }
    }
    let cwd = process.cwd();
    let cwd = if cwd.as_os_str().is_empty() { Path::new("/") } else { cwd };
    let user = process.user();
    let console_size = process.console_size().map(|size| (clamp(size.height()), clamp(size.width())));
    Ok(Process {
        terminal: process.terminal().unwrap_or(false),
        console_size: console_size.filter(|&(rows, columns)| rows > 0 && columns > 0),
        user: User {
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            name: user.username().clone().filter(|name| !name.is_empty() && user.uid() == 0),
            umask: user.umask().unwrap_or(0o022) & 0o777,
        },
        args,
        env,
        cwd: inner_path("cwd", cwd)?,
        capabilities: process.capabilities().as_ref().map(capability_sets).unwrap_or_default(),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: process.oom_score_adj().map(|value| value.clamp(-1000, 1000)),
        rlimits: process.rlimits().iter().flatten().map(rlimit).collect::<Result<_, _>>()?,
        scheduling: Scheduling::default(),
        labels: Labels {
            apparmor: label(process.apparmor_profile().as_ref())?,
            selinux: label(process.selinux_label().as_ref())?,
        },
        seccomp: None,
    })
}

fn clamp(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

fn capability_sets(sets: &oci::LinuxCapabilities) -> Capabilities {
    let bits = |set: &Option<oci::Capabilities>| set.as_ref().map_or(0, caps::bits);
    Capabilities {
        bounding: bits(sets.bounding()),
        effective: bits(sets.effective()),
        inheritable: bits(sets.inheritable()),
        permitted: bits(sets.permitted()),
        ambient: bits(sets.ambient()),
    }
}

fn rlimit(limit: &oci::PosixRlimit) -> Result<Rlimit, PlanError> {
    let resource = match limit.typ() {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    };
    if limit.soft() > limit.hard() {
        let name = limit.typ().to_string();
        return Err(PlanError::Rlimit { name, soft: limit.soft(), hard: limit.hard() });
    }
    // glibc numbers resources with an unsigned type, musl with a signed one.
    #[allow(clippy::unnecessary_cast)]
    Ok(Rlimit { resource: resource as u32, soft: limit.soft(), hard: limit.hard() })
}
