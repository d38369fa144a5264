//! Which namespaces a process gets, and how.
//!
//! Three ways: made by the clone, entered by the agent's thread around the clone (so that a container with a user
//! namespace of its own can still be in the sandbox's ipc and uts, which it could not enter later), or, for an exec,
//! all of the container's at once through its first process. Two kinds are special: a user namespace to join is entered
//! by a process in between, because no thread of a threaded program may, and a time namespace is made or entered by the
//! new process itself, because its offsets are set before anybody is in it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Context, PidNamespace, PlanError, no_nul};
use crate::oci::{Linux, LinuxIdMapping, LinuxNamespaceType};

/// A kind of namespace this crate makes or joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Mounts.
    Mount,
    /// Process numbers.
    Pid,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// Network.
    Network,
    /// The view of the cgroup tree.
    Cgroup,
    /// Users, groups and capabilities.
    User,
    /// Clocks that count from some start: monotonic and boot time.
    Time,
}

/// An existing namespace to be in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Its kind.
    pub kind: Kind,
    /// Its path.
    pub path: PathBuf,
}

/// A range of ids: `size` ids from `inside` on are those from `outside` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// The first id inside.
    pub inside: u32,
    /// The first id outside.
    pub outside: u32,
    /// How many.
    pub size: u32,
}

/// The namespaces of one process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Namespaces {
    /// Made by the clone.
    pub create: Vec<Kind>,
    /// Entered by path before the clone.
    pub join: Vec<Join>,
    /// Whether the process unshares a cgroup namespace once it is in its cgroup.
    pub own_cgroup: bool,
    /// For an exec: which namespaces of the container's first process to enter.
    pub of_container: Vec<Kind>,
    /// The new user namespace's user ids.
    pub uids: Vec<IdMap>,
    /// The new user namespace's group ids.
    pub gids: Vec<IdMap>,
    /// How the new time namespace's clocks differ from the agent's.
    pub clocks: Vec<ClockOffset>,
}

/// By how much a clock of a time namespace is ahead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockOffset {
    /// `monotonic` or `boottime`.
    pub clock: String,
    /// Seconds; behind, if negative.
    pub seconds: i64,
    /// Nanoseconds on top.
    pub nanoseconds: u32,
}

impl Namespaces {
    /// Whether the process gets a new namespace of this kind.
    pub fn creates(&self, kind: Kind) -> bool {
        self.create.contains(&kind)
    }

    /// Whether the process is in a namespace of this kind that is not the agent's.
    pub fn contains(&self, kind: Kind) -> bool {
        self.creates(kind) || self.joins(kind).is_some()
    }

    /// The path of the existing namespace of this kind that the process enters.
    pub fn joins(&self, kind: Kind) -> Option<&Path> {
        self.join.iter().find(|join| join.kind == kind).map(|join| join.path.as_path())
    }
}

impl Kind {
    /// The `CLONE_NEW*` flag.
    pub(crate) fn flag(self) -> u64 {
        match self {
            Kind::Time => 0x0000_0080,
            Kind::Mount => 0x0002_0000,
            Kind::Cgroup => 0x0200_0000,
            Kind::Uts => 0x0400_0000,
            Kind::Ipc => 0x0800_0000,
            Kind::User => 0x1000_0000,
            Kind::Pid => 0x2000_0000,
            Kind::Network => 0x4000_0000,
        }
    }

    /// The name below `/proc/PID/ns`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Mount => "mnt",
            Kind::Cgroup => "cgroup",
            Kind::Uts => "uts",
            Kind::Ipc => "ipc",
            Kind::User => "user",
            Kind::Pid => "pid",
            Kind::Network => "net",
            Kind::Time => "time",
        }
    }
}

pub(super) fn of_container(linux: Option<&Linux>, context: &Context) -> Result<Namespaces, PlanError> {
    let mut out = Namespaces { create: vec![Kind::Mount], ..Namespaces::default() };
    if let PidNamespace::Join(path) = &context.pid {
        out.join.push(Join { kind: Kind::Pid, path: path.clone() });
    }
    for (kind, path) in [(Kind::Ipc, &context.ipc), (Kind::Uts, &context.uts)] {
        if let Some(path) = path {
            out.join.push(Join { kind, path: path.clone() });
        }
    }
    let listed = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    for namespace in listed {
        let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
        let kind = match (namespace.typ(), path) {
            (LinuxNamespaceType::Ipc, _) => Kind::Ipc,
            (LinuxNamespaceType::Uts, _) => Kind::Uts,
            (LinuxNamespaceType::User, _) => Kind::User,
            (LinuxNamespaceType::Time, _) => Kind::Time,
            (LinuxNamespaceType::Pid, Some(_)) => Kind::Pid,
            (LinuxNamespaceType::Cgroup, Some(_)) => Kind::Cgroup,
            // The network is the guest's own unless a namespace is named.
            (LinuxNamespaceType::Network, Some(_)) => Kind::Network,
            // A mount, a pid and a cgroup namespace are made for every container; the mounts are always its own.
            (
                LinuxNamespaceType::Mount
                | LinuxNamespaceType::Pid
                | LinuxNamespaceType::Cgroup
                | LinuxNamespaceType::Network,
                _,
            ) => continue,
        };
        if out.contains(kind) {
            continue;
        }
        match path {
            None => out.create.push(kind),
            Some(path) => {
                no_nul("namespace", path)?;
                out.join.push(Join { kind, path: path.clone() });
            }
        }
    }
    if !out.contains(Kind::Pid) {
        out.create.insert(1, Kind::Pid);
    }
    out.own_cgroup = !out.contains(Kind::Cgroup);
    let uids = id_maps(linux.and_then(|linux| linux.uid_mappings().as_deref()));
    let gids = id_maps(linux.and_then(|linux| linux.gid_mappings().as_deref()));
    if out.creates(Kind::User) {
        if uids.is_empty() {
            return Err(PlanError::NoIdMap("uid"));
        }
        if gids.is_empty() {
            return Err(PlanError::NoIdMap("gid"));
        }
        (out.uids, out.gids) = (uids, gids);
    }
    out.clocks = clocks(linux, &out)?;
    Ok(out)
}

pub(super) fn of_exec(container: &Namespaces) -> Namespaces {
    let mut of_container = vec![Kind::Pid, Kind::Mount, Kind::Ipc, Kind::Uts, Kind::Network, Kind::Cgroup];
    for kind in [Kind::User, Kind::Time] {
        if container.contains(kind) || container.of_container.contains(&kind) {
            of_container.push(kind);
        }
    }
    Namespaces { of_container, ..Namespaces::default() }
}

/// The offsets of the clocks, by name, so that equal specs give equal plans.
fn clocks(linux: Option<&Linux>, namespaces: &Namespaces) -> Result<Vec<ClockOffset>, PlanError> {
    let offsets = linux.and_then(|linux| linux.time_offsets().as_ref());
    let mut out = Vec::new();
    for (clock, offset) in offsets.into_iter().flatten() {
        if clock != "monotonic" && clock != "boottime" {
            return Err(PlanError::Unsupported { what: "time offset of clock", value: clock.clone() });
        }
        if !namespaces.creates(Kind::Time) {
            let value = format!("{clock} without a new time namespace");
            return Err(PlanError::Unsupported { what: "time offset", value });
        }
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if nanoseconds >= 1_000_000_000 {
            let value = format!("{clock} with {nanoseconds} ns");
            return Err(PlanError::Unsupported { what: "time offset", value });
        }
        out.push(ClockOffset { clock: clock.clone(), seconds, nanoseconds });
    }
    out.sort_by(|a, b| a.clock.cmp(&b.clock));
    Ok(out)
}

pub(super) fn id_maps(maps: Option<&[LinuxIdMapping]>) -> Vec<IdMap> {
    maps.unwrap_or_default()
        .iter()
        .map(|map| IdMap { inside: map.container_id(), outside: map.host_id(), size: map.size() })
        .collect()
}
