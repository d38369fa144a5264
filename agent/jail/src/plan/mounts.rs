//! Mounts of a container, from the spec's words to what the kernel is asked for.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::namespaces::{Kind, Namespaces};
use super::{Context, MountOptions, PlanError, inner_path, no_nul, options};
use crate::oci::{self, Spec};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where, inside the container.
    pub destination: PathBuf,
    /// What.
    pub source: Source,
    /// How.
    pub options: MountOptions,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A file or directory the agent sees; with everything mounted below it if `recursive`.
    Bind {
        /// The path, as the agent sees it.
        path: PathBuf,
        /// Whether mounts below it come along.
        recursive: bool,
    },
    /// A file system.
    FileSystem {
        /// Its type.
        fstype: String,
        /// Its source.
        source: String,
    },
}

/// What may be bound inside `/proc`: files that tools read to learn about the machine, and that such a mount makes
/// truer for the container. Everything else in there is the kernel's word.
pub(crate) const BINDABLE_IN_PROC: [&str; 8] =
    ["cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "net/dev"];

impl Mount {
    /// Whether this is a bind mount.
    pub fn is_bind(&self) -> bool {
        matches!(self.source, Source::Bind { .. })
    }
}

pub(super) fn of_spec(
    spec: &Spec,
    namespaces: &Namespaces,
    context: &Context,
) -> Result<Vec<Mount>, PlanError> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let planned = mounts.iter().map(|mount| one(mount, namespaces, context));
    let hierarchies = |mount: Mount| match &mount.source {
        Source::FileSystem { fstype, .. } if fstype == "cgroup2" && !context.cgroup_v1.is_empty() => {
            of_cgroup_v1(mount, &context.cgroup_v1)
        }
        _ => vec![mount],
    };
    Ok(planned.collect::<Result<Vec<_>, _>>()?.into_iter().flat_map(hierarchies).collect())
}

/// The cgroup tree of version 1: a directory in memory, with a mount for each hierarchy.
fn of_cgroup_v1(mount: Mount, hierarchies: &[(String, String)]) -> Vec<Mount> {
    let file_system =
        |fstype: &str| Source::FileSystem { fstype: fstype.to_owned(), source: fstype.to_owned() };
    let with_data = |data: &str| MountOptions { data: vec![data.to_owned()], ..mount.options.clone() };
    let one = |(name, controllers): &(String, String)| Mount {
        destination: mount.destination.join(name),
        source: file_system("cgroup"),
        options: with_data(controllers),
    };
    let top = Mount {
        destination: mount.destination.clone(),
        source: file_system("tmpfs"),
        options: with_data("mode=755"),
    };
    std::iter::once(top).chain(hierarchies.iter().map(one)).collect()
}

fn one(mount: &oci::Mount, namespaces: &Namespaces, context: &Context) -> Result<Mount, PlanError> {
    let destination = inner_path("mount at", mount.destination())?;
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        let value = destination.to_string_lossy().into_owned();
        return Err(PlanError::Unsupported { what: "id-mapped mount at", value });
    }
    if let Ok(inside) = destination.strip_prefix("/proc")
        && !inside.as_os_str().is_empty()
        && !BINDABLE_IN_PROC.iter().any(|name| inside == Path::new(name))
    {
        return Err(PlanError::InsideProc(destination));
    }
    let mut options = options::parse(mount.options().as_deref().unwrap_or_default())?;
    let typ = mount.typ().as_deref().unwrap_or("");
    let source = mount.source().as_deref().filter(|source| !source.as_os_str().is_empty());
    // The option wins over the type: an emptyDir comes as type "local" with "rbind".
    let mut source = if options.bind || (matches!(typ, "bind" | "rbind") && !options.remount) {
        let path = source.ok_or_else(|| PlanError::NoSource(destination.clone()))?;
        no_nul("mount source", path)?;
        Source::Bind { path: context.bundle.join(path), recursive: options.recursive || typ == "rbind" }
    } else {
        // How specs spell "the cgroup tree", of whichever version.
        let fstype = if typ == "cgroup" { "cgroup2" } else { typ };
        let source = source.map_or_else(|| fstype.to_owned(), |path| path.to_string_lossy().into_owned());
        no_nul("mount type", fstype)?;
        no_nul("mount source", &source)?;
        Source::FileSystem { fstype: fstype.to_owned(), source }
    };
    if namespaces.creates(Kind::User) {
        source = for_user_namespace(source, namespaces, context);
    }
    match &source {
        // Words for another file system than the one that is mounted now.
        Source::Bind { .. } => options.data.clear(),
        Source::FileSystem { fstype, .. } if fstype == "cgroup2" => options.data.clear(),
        // The kernel refuses a group that is not in the user namespace.
        Source::FileSystem { fstype, .. } if fstype == "devpts" && namespaces.creates(Kind::User) => {
            options.data.retain(|word| group_exists(word, namespaces));
        }
        Source::FileSystem { .. } => {}
    }
    Ok(Mount { destination, source, options })
}

/// sysfs belongs to the network namespace and mqueue to the ipc namespace; where those are not the user namespace's
/// own, the kernel refuses to mount them, and what the agent has mounted already is shown instead.
fn for_user_namespace(source: Source, namespaces: &Namespaces, context: &Context) -> Source {
    let Source::FileSystem { fstype, .. } = &source else { return source };
    match fstype.as_str() {
        "sysfs" if !namespaces.creates(Kind::Network) => {
            Source::Bind { path: "/sys".into(), recursive: true }
        }
        "mqueue" if !namespaces.creates(Kind::Ipc) => match &context.mqueue {
            Some(path) => Source::Bind { path: path.clone(), recursive: false },
            None => source,
        },
        _ => source,
    }
}

/// Whether the group of a `gid=N` word has an id in the user namespace; any other word has no group.
fn group_exists(word: &str, namespaces: &Namespaces) -> bool {
    let Some(gid) = word.strip_prefix("gid=").and_then(|gid| gid.parse::<u32>().ok()) else { return true };
    namespaces.gids.iter().any(|map| gid >= map.inside && gid - map.inside < map.size)
}
