//! Where cgroups are mounted, and in which version.
//!
//! A cgroup is named by one path below [`ROOT`]. With version 2 that is its directory. With version 1 it stands for one
//! directory in the hierarchy of each controller: `/sys/fs/cgroup/pod/c1` is `/sys/fs/cgroup/memory/pod/c1` and so on.
//! A path into a version 2 tree that is mounted beside version 1 (`/sys/fs/cgroup/unified/...`) is version 2. A cgroup
//! that systemd made there or in its named hierarchy is a version 1 cgroup with one directory more.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::{CgroupError, Result, write_file};

/// Where the tree is mounted.
pub const ROOT: &str = "/sys/fs/cgroup";

/// The cgroup of the agent itself. `@` keeps it apart from every container's id.
pub const AGENT: &str = "@husk-agent";

/// The controllers that are handed down to every cgroup on the way, as far as the kernel has them.
const CONTROLLERS: [&str; 8] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"];

/// The hierarchies without a controller that systemd mounts beside those of version 1.
const OF_SYSTEMD: [&str; 2] = ["systemd", "unified"];

/// A mounted cgroup tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tree {
    /// Version 2: where it is mounted.
    V2(PathBuf),
    /// Version 1: where the hierarchy of each controller is mounted.
    V1(BTreeMap<String, PathBuf>),
}

/// The directory that the `cgroupsPath` of a spec means: `:` separates like `/`, and nothing means the container's id.
pub fn path_of(cgroups_path: &str, id: &str) -> Result<PathBuf> {
    let relative = match cgroups_path {
        "" => id.to_owned(),
        path => path.replace(':', "/"),
    };
    let refused = || CgroupError::Path(PathBuf::from(&relative));
    let mut path = PathBuf::from(ROOT);
    for part in Path::new(&relative).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => return Err(refused()),
        }
    }
    if path == Path::new(ROOT) || path.starts_with(agent_path()) || relative.contains(['\0', '\n']) {
        return Err(refused());
    }
    Ok(path)
}

/// The path of the agent's own cgroup.
pub fn agent_path() -> PathBuf {
    Path::new(ROOT).join(AGENT)
}

/// The version 1 hierarchies that are mounted, by the name of their directory below [`ROOT`], each with its controllers
/// as `mount(2)` takes them. Empty with version 2.
pub fn v1_hierarchies() -> Vec<(String, String)> {
    if is_v2(Path::new(ROOT)) {
        return Vec::new();
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    hierarchies(&mounts).into_iter().map(|(name, controllers)| (name, controllers.join(","))).collect()
}

impl Tree {
    /// The tree that a path below [`ROOT`] lies in.
    pub(super) fn holding(path: &Path) -> Result<Tree> {
        let below = below(Path::new(ROOT), path)?;
        if is_v2(Path::new(ROOT)) {
            return Ok(Tree::V2(PathBuf::from(ROOT)));
        }
        let first = Path::new(ROOT).join(below.components().next().ok_or_else(|| refused(path))?);
        if is_v2(&first) {
            self::below(&first, path)?;
            return Ok(Tree::V2(first));
        }
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(|source| CgroupError::File {
            action: "read".to_owned(),
            path: "/proc/self/mounts".into(),
            source,
        })?;
        let of_each = |(name, controllers): (String, Vec<String>)| {
            let root = Path::new(ROOT).join(name);
            controllers.into_iter().map(move |controller| (controller, root.clone())).collect::<Vec<_>>()
        };
        let mut controllers: BTreeMap<_, _> = hierarchies(&mounts).into_iter().flat_map(of_each).collect();
        if controllers.is_empty() {
            return Err(CgroupError::NoTree);
        }
        // systemd has hierarchies of its own to know processes by. What it has made there has its processes there too.
        for name in OF_SYSTEMD {
            let root = Path::new(ROOT).join(name);
            if root.join(below).is_dir() {
                controllers.insert(name.to_owned(), root);
            }
        }
        Ok(Tree::V1(controllers))
    }

    /// The directories of a cgroup, each once.
    pub(super) fn directories(&self, path: &Path) -> Vec<PathBuf> {
        match self {
            Tree::V2(_) => vec![path.to_owned()],
            Tree::V1(controllers) => {
                let below = path.strip_prefix(ROOT).unwrap_or(path);
                let mut out: Vec<_> = controllers.values().map(|root| root.join(below)).collect();
                out.sort();
                out.dedup();
                out
            }
        }
    }

    /// The path of one of a cgroup's files. The file's name begins with its controller's.
    pub(super) fn file(&self, path: &Path, name: &str) -> Result<PathBuf> {
        match self {
            Tree::V2(_) => Ok(path.join(name)),
            Tree::V1(controllers) => {
                let controller = name.split('.').next().unwrap_or(name);
                let root = controllers.get(controller).ok_or_else(|| CgroupError::File {
                    action: "find the controller of".to_owned(),
                    path: name.into(),
                    source: io::ErrorKind::NotFound.into(),
                })?;
                Ok(root.join(path.strip_prefix(ROOT).unwrap_or(path)).join(name))
            }
        }
    }

    /// Makes the directories of a cgroup and of every one above it that is missing.
    pub(super) fn make(&self, path: &Path) -> Result<()> {
        match self {
            Tree::V2(root) => make_below(root, below(root, path)?, hand_down, |_, _| Ok(())),
            Tree::V1(controllers) => {
                let below = below(Path::new(ROOT), path)?;
                let mut roots: Vec<_> = controllers.values().collect();
                roots.sort();
                roots.dedup();
                let cpuset = controllers.get("cpuset");
                for root in roots {
                    let inherit = |parent: &Path, child: &Path| match cpuset == Some(root) {
                        true => inherit_cpuset(parent, child),
                        false => Ok(()),
                    };
                    make_below(root, below, |_| Ok(()), inherit)?;
                }
                Ok(())
            }
        }
    }
}

fn is_v2(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

fn refused(path: &Path) -> CgroupError {
    CgroupError::Path(path.to_owned())
}

fn below<'p>(root: &Path, path: &'p Path) -> Result<&'p Path> {
    let below = path.strip_prefix(root).map_err(|_| refused(path))?;
    let sound = below.components().all(|part| matches!(part, Component::Normal(_)));
    if sound && below.components().next().is_some() { Ok(below) } else { Err(refused(path)) }
}

/// Makes what is missing of `root/below`, part by part: `before` is told each parent, `after` each parent and child.
fn make_below(
    root: &Path,
    below: &Path,
    before: impl Fn(&Path) -> Result<()>,
    after: impl Fn(&Path, &Path) -> Result<()>,
) -> Result<()> {
    let mut at = root.to_owned();
    for part in below.components() {
        before(&at)?;
        let child = at.join(part);
        match fs::create_dir(&child) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(CgroupError::File { action: "create".to_owned(), path: child, source: error });
            }
            _ => {}
        }
        after(&at, &child)?;
        at = child;
    }
    Ok(())
}

/// Version 2: enables for the children of `directory` what the kernel offers there.
fn hand_down(directory: &Path) -> Result<()> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path).map_err(|source| CgroupError::File {
            action: "read".to_owned(),
            path,
            source,
        })
    };
    let offered = read("cgroup.controllers")?;
    let enabled = read("cgroup.subtree_control")?;
    let has = |text: &str, controller: &str| text.split_whitespace().any(|word| word == controller);
    for controller in CONTROLLERS {
        if has(&offered, controller) && !has(&enabled, controller) {
            write_file(&directory.join("cgroup.subtree_control"), &format!("+{controller}"))?;
        }
    }
    Ok(())
}

/// Version 1: a new cpuset is empty, and nobody can enter it before it has processors and memory nodes.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let read = |directory: &Path| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(|source| CgroupError::File {
                action: "read".to_owned(),
                path,
                source,
            })
        };
        if read(child)?.trim().is_empty() {
            write_file(&child.join(name), read(parent)?.trim())?;
        }
    }
    Ok(())
}

/// The version 1 hierarchies below [`ROOT`] in the text of `/proc/self/mounts`: directory name and controllers. Named
/// hierarchies carry no controller and are left out.
fn hierarchies(mounts: &str) -> Vec<(String, Vec<String>)> {
    const KNOWN: [&str; 13] = [
        "cpuset",
        "cpu",
        "cpuacct",
        "blkio",
        "memory",
        "devices",
        "freezer",
        "net_cls",
        "perf_event",
        "net_prio",
        "hugetlb",
        "pids",
        "rdma",
    ];
    let one = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let (target, kind, options) = (words.next()?, words.next()?, words.next()?);
        let name = target.strip_prefix(ROOT)?.strip_prefix('/')?;
        let controllers: Vec<_> =
            options.split(',').filter(|word| KNOWN.contains(word)).map(str::to_owned).collect();
        (kind == "cgroup" && !controllers.is_empty() && !name.contains('/'))
            .then(|| (name.to_owned(), controllers))
    };
    mounts.lines().filter_map(one).collect()
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
        for bad in ["a/../../etc", "/", ":", "..", "a\0b", "a\nb", "/@husk-agent", "@husk-agent/x"] {
            assert_eq!(path(bad), None, "{bad:?}");
        }
        assert!(path_of("", "..").is_err());
    }

    #[test]
    fn version_1_hierarchies_are_found_in_the_mounts() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
            cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
            cgroup /elsewhere/pids cgroup rw,pids 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let found = hierarchies(mounts);
        let names: Vec<_> =
            found.iter().map(|(name, controllers)| (name.as_str(), controllers.len())).collect();
        assert_eq!(names, [("cpu,cpuacct", 2), ("memory", 1)]);
        let tree = Tree::V1(BTreeMap::from([("memory".to_owned(), "/sys/fs/cgroup/memory".into())]));
        let file = tree.file(Path::new("/sys/fs/cgroup/pod/c1"), "memory.limit_in_bytes").unwrap();
        assert_eq!(file, Path::new("/sys/fs/cgroup/memory/pod/c1/memory.limit_in_bytes"));
        assert!(tree.file(Path::new("/sys/fs/cgroup/c1"), "rdma.max").unwrap_err().is_missing());
    }
}
