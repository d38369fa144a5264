//! Where a container's cgroup is to be, and who makes it.

use std::path::PathBuf;

use super::systemd::Scope;
use super::{CgroupError, Result, path_of};

/// Where a container's cgroup is to be, and who makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// This directory, made by us.
    Directory(PathBuf),
    /// A scope of systemd's.
    Scope(Scope),
}

impl Place {
    /// The place that the `cgroupsPath` of a spec means. Nothing means the container's id.
    pub fn of(cgroups_path: &str, id: &str, with_systemd: bool) -> Result<Place> {
        match Scope::parse(cgroups_path).filter(|_| with_systemd) {
            Some(scope) => scope.map(Place::Scope).map_err(CgroupError::Systemd),
            None => Ok(Place::Directory(path_of(cgroups_path, id)?)),
        }
    }

    /// The cgroup's path.
    pub fn path(&self) -> PathBuf {
        match self {
            Place::Directory(path) => path.clone(),
            Place::Scope(scope) => scope.path(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_makes_what_is_meant_for_it_and_only_where_it_runs() {
        let place = |path: &str, with_systemd| Place::of(path, "c1", with_systemd).unwrap();
        let scope = place("a-b.slice:cri:c1", true);
        assert!(matches!(scope, Place::Scope(_)));
        assert_eq!(scope.path(), PathBuf::from("/sys/fs/cgroup/a.slice/a-b.slice/cri-c1.scope"));
        let directory = |path: &str| Place::Directory(PathBuf::from(path));
        assert_eq!(place("a-b.slice:cri:c1", false), directory("/sys/fs/cgroup/a-b.slice/cri/c1"));
        assert_eq!(place("/pod/c1", true), directory("/sys/fs/cgroup/pod/c1"));
        assert_eq!(place("", true), directory("/sys/fs/cgroup/c1"));
        let error = Place::of("a:b:c", "c1", true).unwrap_err().to_string();
        assert_eq!(error, "cgroupsPath: slice \"a\": it does not end in .slice");
    }
}
