//! Which namespaces a process gets, and how.
//!
//! Three ways: made by the clone, entered by the agent's thread around the clone (so that a container with a user
//! namespace of its own can still be in the sandbox's ipc and uts, which it could not enter later), or, for an exec,
//! all of the container's at once through its first process.

use std::path::PathBuf;

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
}

impl Namespaces {
    /// Whether the process gets a new namespace of this kind.
    pub fn creates(&self, kind: Kind) -> bool {
        self.create.contains(&kind)
    }

    /// Whether the process is in a namespace of this kind that is not the agent's.
    pub fn contains(&self, kind: Kind) -> bool {
        self.creates(kind) || self.join.iter().any(|join| join.kind == kind)
    }
}

impl Kind {
    /// The `CLONE_NEW*` flag.
    pub(crate) fn flag(self) -> u64 {
        match self {
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
        }
    }
}

pub(super) fn of_container(linux: Option<&Linux>, context: &Context) -> Result<Namespaces, PlanError> {
    let mut out = Namespaces { create: vec![Kind::Mount], own_cgroup: true, ..Namespaces::default() };
    match &context.pid {
        PidNamespace::New => out.create.push(Kind::Pid),
        PidNamespace::Join(path) => out.join.push(Join { kind: Kind::Pid, path: path.clone() }),
    }
    for (kind, path) in [(Kind::Ipc, &context.ipc), (Kind::Uts, &context.uts)] {
        if let Some(path) = path {
            out.join.push(Join { kind, path: path.clone() });
        }
    }
    let listed = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    for namespace in listed {
        let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
        let kind = match namespace.typ() {
            LinuxNamespaceType::Ipc => Kind::Ipc,
            LinuxNamespaceType::Uts => Kind::Uts,
            LinuxNamespaceType::User => Kind::User,
            // The network is the guest's own unless a namespace is named.
            LinuxNamespaceType::Network if path.is_some() => Kind::Network,
            // A mount and a cgroup namespace are made for every container; the pid namespace is the context's.
            LinuxNamespaceType::Mount
            | LinuxNamespaceType::Cgroup
            | LinuxNamespaceType::Pid
            | LinuxNamespaceType::Network => continue,
            LinuxNamespaceType::Time => {
                return Err(PlanError::Unsupported { what: "namespace", value: "time".to_owned() });
            }
        };
        if out.contains(kind) {
            continue;
        }
        match path {
            None => out.create.push(kind),
            Some(path) if kind == Kind::User => {
                let value = path.to_string_lossy().into_owned();
                return Err(PlanError::Unsupported { what: "user namespace by path", value });
            }
            Some(path) => {
                no_nul("namespace", path)?;
                out.join.push(Join { kind, path: path.clone() });
            }
        }
    }
    if out.creates(Kind::User) {
        out.uids = id_maps(linux.and_then(|linux| linux.uid_mappings().as_deref()));
        out.gids = id_maps(linux.and_then(|linux| linux.gid_mappings().as_deref()));
        if out.uids.is_empty() {
            return Err(PlanError::NoIdMap("uid"));
        }
        if out.gids.is_empty() {
            return Err(PlanError::NoIdMap("gid"));
        }
    }
    Ok(out)
}

pub(super) fn of_exec(container: &Namespaces) -> Namespaces {
    let mut of_container = vec![Kind::Pid, Kind::Mount, Kind::Ipc, Kind::Uts, Kind::Network, Kind::Cgroup];
    if container.creates(Kind::User) || container.of_container.contains(&Kind::User) {
        of_container.push(Kind::User);
    }
    Namespaces { of_container, ..Namespaces::default() }
}

fn id_maps(maps: Option<&[LinuxIdMapping]>) -> Vec<IdMap> {
    maps.unwrap_or_default()
        .iter()
        .map(|map| IdMap { inside: map.container_id(), outside: map.host_id(), size: map.size() })
        .collect()
}
