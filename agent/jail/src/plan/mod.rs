//! What a contained process shall be, decided before anything is touched.
//!
//! [`container`] and [`exec`] turn the caller's OCI values into a [`Plan`]. They look at nothing but their arguments:
//! no file, no namespace, no clock. What depends on the container's own files (a user's name, the program's place in
//! PATH) stays a question in the plan and is answered inside the container.

mod devices;
mod hooks;
mod mounts;
mod namespaces;
mod options;
mod process;
mod scheduling;
mod seccomp;
mod sysctl;

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::oci;

pub use devices::{Device, DeviceKind};
pub use hooks::{Hook, Hooks, State, Status};
pub(crate) use mounts::BINDABLE_IN_PROC;
pub use mounts::{Mount, Owners, Source};
pub use namespaces::{ClockOffset, IdMap, Join, Kind as NamespaceKind, Namespaces};
pub use options::MountOptions;
pub use process::{Capabilities, Labels, Process, Rlimit, User};
pub use scheduling::{MemoryPolicy, Scheduler, Scheduling};
pub use seccomp::Filter;
pub use sysctl::Sysctl;

/// Where a new process goes that the spec does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Context {
    /// The container's id.
    pub id: String,
    /// The directory a relative root path starts from.
    pub bundle: PathBuf,
    /// The sandbox's ipc namespace. Joined whatever the spec says; `None` leaves it to the spec.
    pub ipc: Option<PathBuf>,
    /// The sandbox's uts namespace. Joined whatever the spec says; `None` leaves it to the spec.
    pub uts: Option<PathBuf>,
    /// The pid namespace.
    pub pid: PidNamespace,
    /// Whether the agent's own root is an initramfs, which `pivot_root` refuses to leave without help.
    pub root_is_ramfs: bool,
    /// The container's cgroup: a path below `/sys/fs/cgroup`. `None` leaves the process where the agent is.
    pub cgroup: Option<PathBuf>,
    /// With cgroup version 1, the hierarchies that a mount of the cgroup tree shows: [`crate::cgroup::v1_hierarchies`].
    pub cgroup_v1: Vec<(String, String)>,
    /// A mounted mqueue file system of the sandbox's ipc namespace, for containers with a user namespace of their own,
    /// which may not mount one.
    pub mqueue: Option<PathBuf>,
}

/// The pid namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PidNamespace {
    /// One of its own, in which its first process is pid 1.
    #[default]
    New,
    /// An existing one, by its path.
    Join(PathBuf),
}

/// Everything that makes one process of a container, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The container's id.
    pub id: String,
    /// The namespaces to make, to join and to share.
    pub namespaces: Namespaces,
    /// The cgroup directory to start in.
    pub cgroup: Option<PathBuf>,
    /// What the container's first process sets up for all of them. `None` for an exec, which joins it.
    pub container: Option<Container>,
    /// The process itself.
    pub process: Process,
}

/// What is set up once per container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The root file system, as the agent sees it.
    pub root: PathBuf,
    /// Whether the root is read-only.
    pub readonly_root: bool,
    /// Whether the agent's root must be stacked before `pivot_root` can leave it.
    pub stack_root: bool,
    /// The root mount's propagation (`MS_SHARED` and so on) and whether it holds for everything below, where the spec
    /// names one.
    pub propagation: Option<(u64, bool)>,
    /// The host name, where the container has a uts namespace of its own.
    pub hostname: Option<String>,
    /// The NIS domain name, where the container has a uts namespace of its own.
    pub domainname: Option<String>,
    /// In this order.
    pub mounts: Vec<Mount>,
    /// Device nodes, the defaults first. Empty if `/dev` is a bind mount.
    pub devices: Vec<Device>,
    /// Whether devices are bind mounts of the agent's own nodes, because `mknod` is not allowed in a user namespace.
    pub bind_devices: bool,
    /// Whether `/dev/fd`, `/dev/stdin`, `/dev/ptmx` and so on are made.
    pub device_links: bool,
    /// Kernel settings.
    pub sysctls: Vec<Sysctl>,
    /// Paths that are covered up.
    pub masked_paths: Vec<PathBuf>,
    /// Paths that are made read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// The SELinux context of what is mounted.
    pub mount_label: Option<String>,
    /// Programs to run on the way.
    pub hooks: Hooks,
}

/// Why a spec was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// A part of the spec that must be there is not.
    #[error("spec: {0} is missing")]
    Missing(&'static str),
    /// A path that must be absolute and free of `..` is not.
    #[error("spec: {what} {path:?}: not an absolute path without \"..\"")]
    Path {
        /// Which path.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// Something this crate does not do, rather than doing it halfway.
    #[error("spec: {what} {value:?} is not supported")]
    Unsupported {
        /// What kind of thing.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// A mount inside `/proc` other than those that are harmless.
    #[error("spec: mount at {0:?}: inside /proc")]
    InsideProc(PathBuf),
    /// A bind mount without a source.
    #[error("spec: mount at {0:?}: a bind mount without a source")]
    NoSource(PathBuf),
    /// A sysctl that would change more than the container.
    #[error("spec: sysctl {0:?} is not one of a namespace the container has")]
    Sysctl(String),
    /// A text with a NUL in it, which no system call can take.
    #[error("spec: {what} {value:?} holds a NUL byte")]
    Nul {
        /// Which text.
        what: &'static str,
        /// The text.
        value: String,
    },
    /// A filter of system calls that libseccomp cannot make.
    #[error("spec: seccomp {what}: {cause}")]
    Seccomp {
        /// Which part of it.
        what: String,
        /// What libseccomp says.
        cause: String,
    },
    /// A user namespace without id maps.
    #[error("spec: a user namespace without {0} mappings")]
    NoIdMap(&'static str),
    /// A resource limit whose soft value is above its hard value.
    #[error("spec: {name}: soft limit {soft} above hard limit {hard}")]
    Rlimit {
        /// The limit's name.
        name: String,
        /// The soft value.
        soft: u64,
        /// The hard value.
        hard: u64,
    },
    /// An environment entry that is not `NAME=value`.
    #[error("spec: environment entry {0:?}: not NAME=value")]
    Env(String),
}

/// The plan of a container's first process.
pub fn container(spec: &oci::Spec, context: &Context) -> Result<Plan, PlanError> {
    let process = spec.process().as_ref().ok_or(PlanError::Missing("process"))?;
    let root = spec.root().as_ref().ok_or(PlanError::Missing("root"))?;
    let linux = spec.linux().as_ref();
    let namespaces = namespaces::of_container(linux, context)?;
    if linux.is_some_and(|linux| linux.intel_rdt().is_some()) {
        return Err(PlanError::Unsupported { what: "linux.intelRdt", value: "resctrl".to_owned() });
    }
    if let Some(device) = linux.and_then(|linux| linux.net_devices().as_ref()?.keys().min()) {
        return Err(PlanError::Unsupported { what: "linux.netDevices", value: device.clone() });
    }
    let mounts = mounts::of_spec(spec, &namespaces, context)?;
    let dev_is_bind = mounts.iter().any(|mount| mount.destination == Path::new("/dev") && mount.is_bind());
    let own_uts = namespaces.creates(NamespaceKind::Uts);
    let hostname = spec.hostname().clone().filter(|name| own_uts && !name.is_empty());
    let domainname = spec.domainname().clone().filter(|name| own_uts && !name.is_empty());
    let container = Container {
        root: context.bundle.join(root.path()),
        readonly_root: root.readonly().unwrap_or(false),
        stack_root: context.root_is_ramfs,
        propagation: options::root_propagation(
            linux.and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or(""),
        )?,
        hostname,
        domainname,
        devices: if dev_is_bind { Vec::new() } else { devices::of_spec(linux)? },
        bind_devices: namespaces.contains(NamespaceKind::User),
        device_links: !dev_is_bind,
        sysctls: sysctl::of_spec(linux, &namespaces)?,
        masked_paths: inner_paths("masked path", linux.and_then(|linux| linux.masked_paths().as_ref()))?,
        readonly_paths: inner_paths(
            "read-only path",
            linux.and_then(|linux| linux.readonly_paths().as_ref()),
        )?,
        mount_label: label(linux.and_then(|linux| linux.mount_label().as_ref()))?,
        hooks: hooks::of_spec(spec, context)?,
        mounts,
    };
    no_nul("root", &container.root)?;
    Ok(Plan {
        id: context.id.clone(),
        namespaces,
        cgroup: context.cgroup.clone(),
        container: Some(container),
        process: process::of_container(process, linux)?,
    })
}

/// The plan of one more process in the container that `of` made.
///
/// It joins the namespaces and the cgroup of the container's first process, whose pidfd is given to
/// [`crate::spawn`]. Capabilities that the request leaves out are the container's.
pub fn exec(process: &oci::Process, of: &Plan) -> Result<Plan, PlanError> {
    Ok(Plan {
        id: of.id.clone(),
        namespaces: namespaces::of_exec(&of.namespaces),
        cgroup: of.cgroup.clone(),
        container: None,
        process: process::of_exec(process, &of.process)?,
    })
}

impl Plan {
    /// Whether this is one more process of a running container.
    pub fn is_exec(&self) -> bool {
        self.container.is_none()
    }

    /// The container's hooks, if it has any.
    pub fn hooks(&self) -> Option<&Hooks> {
        self.container.as_ref().map(|container| &container.hooks).filter(|hooks| !hooks.is_empty())
    }
}

/// A path inside the container in its one spelling: absolute, without `.`, `..` or doubled slashes.
fn inner_path(what: &'static str, path: &Path) -> Result<PathBuf, PlanError> {
    no_nul(what, path)?;
    let sound = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    if sound { Ok(path.components().collect()) } else { Err(PlanError::Path { what, path: path.to_owned() }) }
}

fn inner_paths(what: &'static str, paths: Option<&Vec<String>>) -> Result<Vec<PathBuf>, PlanError> {
    paths.into_iter().flatten().map(|path| inner_path(what, Path::new(path))).collect()
}

fn label(text: Option<&String>) -> Result<Option<String>, PlanError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    no_nul("label", text)?;
    Ok(Some(text.clone()))
}

fn no_nul(what: &'static str, value: impl AsRef<std::ffi::OsStr>) -> Result<(), PlanError> {
    let value = value.as_ref();
    if value.as_encoded_bytes().contains(&0) {
        return Err(PlanError::Nul { what, value: value.to_string_lossy().into_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
