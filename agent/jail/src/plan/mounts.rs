//! Mounts of a container, from the spec's words to what the kernel is asked for.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::namespaces::{IdMap, Kind, Namespaces, id_maps};
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
    /// Whose the files seem to be, if not whose they are.
    pub owners: Option<Owners>,
}

/// The owners of files as a mount shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// User ids: those in the files are the `inside` ones, those shown the `outside` ones.
    pub uids: Vec<IdMap>,
    /// Group ids, the same way.
    pub gids: Vec<IdMap>,
    /// Whether it holds for the mounts below too.
    pub below: bool,
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

/// File systems whose labels are the kernel's own affair.
const UNLABELLED: [&str; 4] = ["proc", "sysfs", "mqueue", "cgroup2"];

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
    let planned = mounts.iter().map(|mount| one(mount, spec, namespaces, context));
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
        owners: None,
    };
    let top = Mount {
        destination: mount.destination.clone(),
        source: file_system("tmpfs"),
        options: with_data("mode=755"),
        owners: None,
    };
    std::iter::once(top).chain(hierarchies.iter().map(one)).collect()
}

fn one(
    mount: &oci::Mount,
    spec: &Spec,
    namespaces: &Namespaces,
    context: &Context,
) -> Result<Mount, PlanError> {
    let destination = inner_path("mount at", mount.destination())?;
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
    let owners = owners(mount, &options, matches!(source, Source::Bind { .. }), namespaces)?;
    if namespaces.contains(Kind::User) {
        source = for_user_namespace(source, namespaces, context);
    }
    match &source {
        // Words for another file system than the one that is mounted now.
        Source::Bind { .. } => options.data.clear(),
        Source::FileSystem { fstype, .. } if fstype == "cgroup2" => options.data.clear(),
        // The kernel refuses a group that is not in the user namespace.
        Source::FileSystem { fstype, .. } if fstype == "devpts" && namespaces.contains(Kind::User) => {
            options.data.retain(|word| group_exists(word, namespaces));
        }
        Source::FileSystem { .. } => {}
    }
    let label = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref()).unwrap_or("");
    if let Source::FileSystem { fstype, .. } = &source
        && !label.is_empty()
        && !UNLABELLED.contains(&fstype.as_str())
    {
        no_nul("label", label)?;
        options.data.push(format!("context=\"{label}\""));
    }
    Ok(Mount { destination, source, options, owners })
}

/// The id maps of a mount: its own, or with the option alone those of the container's user namespace.
fn owners(
    mount: &oci::Mount,
    options: &MountOptions,
    bind: bool,
    namespaces: &Namespaces,
) -> Result<Option<Owners>, PlanError> {
    let mut uids = id_maps(mount.uid_mappings().as_deref());
    let mut gids = id_maps(mount.gid_mappings().as_deref());
    if options.id_map.is_none() && uids.is_empty() && gids.is_empty() {
        return Ok(None);
    }
    let refused = |why: &str| PlanError::Unsupported {
        what: "id-mapped mount",
        value: format!("{} {why}", mount.destination().display()),
    };
    if !bind {
        return Err(refused("that is not a bind mount"));
    }
    if uids.is_empty() && gids.is_empty() {
        (uids, gids) = (namespaces.uids.clone(), namespaces.gids.clone());
    }
    if uids.is_empty() || gids.is_empty() {
        return Err(refused("without uid and gid mappings"));
    }
    Ok(Some(Owners { uids, gids, below: options.id_map.unwrap_or(false) }))
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
