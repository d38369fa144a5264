//! The cgroups above those of containers: the pod's, and what it lies in.
//!
//! They are made with the first container and removed with the sandbox. The one right above a container carries the
//! pod's device rules: the defaults, and whatever one of its containers may use, since the kernel asks every cgroup on
//! the way up. One that was there before is somebody else's, and stays as it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use jail::cgroup::systemd::{self, Scope};
use jail::cgroup::{Cgroup, CgroupError, DeviceRules, ROOT};

/// The cgroups that the agent made above those of containers.
#[derive(Default)]
pub(crate) struct Pods(Mutex<BTreeMap<PathBuf, Made>>);

/// How one of them came about.
enum Made {
    /// As a directory, with these device rules.
    Directory(Option<DeviceRules>),
    /// By systemd, as a slice for a container's scope.
    Slice,
}

impl Pods {
    /// Makes what is missing above a container's cgroup, and lets its pod use what the container may use.
    pub(crate) fn admit(&self, container: &Path, rules: &DeviceRules) -> Result<(), CgroupError> {
        let above = |path: &&Path| path.starts_with(ROOT) && *path != Path::new(ROOT);
        let mut above: Vec<_> = container.ancestors().skip(1).take_while(above).collect();
        above.reverse();
        let mut ours = self.ours();
        for path in &above {
            if Cgroup::open(path).is_err() {
                Cgroup::create(path)?;
                ours.insert(path.to_path_buf(), Made::Directory(None));
            }
        }
        let Some(pod) = above.last() else { return Ok(()) };
        let Some(Made::Directory(held)) = ours.get_mut(*pod) else { return Ok(()) };
        let mut wanted = held.clone().unwrap_or_else(DeviceRules::defaults);
        if !wanted.admit(rules) && held.is_some() {
            return Ok(());
        }
        match Cgroup::open(pod)?.set_devices(&wanted) {
            // A kernel without device rules: whoever asked for one hears of it where it is set.
            Err(error) if error.is_without_device_rules() => {}
            other => other?,
        }
        *held = Some(wanted);
        Ok(())
    }

    /// Remembers the slices that systemd is about to make for a scope. What devices their processes may use is said at
    /// each scope alone.
    pub(crate) fn admit_scope(&self, scope: &Scope) {
        let mut ours = self.ours();
        for path in scope.missing_slices() {
            ours.insert(path, Made::Slice);
        }
    }

    /// Removes those that nobody is in any more, the deepest first.
    pub(crate) fn remove(&self) {
        let ours = std::mem::take(&mut *self.ours());
        for (path, made) in ours.into_iter().rev() {
            let removed = match made {
                Made::Directory(_) => Cgroup::open(&path).map_or(true, |cgroup| cgroup.remove_if_empty()),
                Made::Slice => systemd::stop_slice(&path).unwrap_or_else(|error| {
                    tracing::warn!(%error, "a pod's slice was not stopped");
                    false
                }),
            };
            if !removed {
                tracing::warn!(cgroup = %path.display(), "a pod's cgroup is in use and stays");
            }
        }
    }

    fn ours(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Made>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On the machine's own cgroups, of whichever version: needs root.
    #[test]
    fn what_was_made_above_a_container_goes_with_the_sandbox() {
        let top = Path::new(ROOT).join(format!("husk-agent-test-{}", std::process::id()));
        let (container, other) = (top.join("pod/c1"), top.join("pod/c2"));
        let pods = Pods::default();
        let rules = DeviceRules::defaults();
        pods.admit(&container, &rules).unwrap();
        pods.admit(&other, &rules).unwrap();
        assert!(Cgroup::open(&top.join("pod")).is_ok(), "the pod's is there");
        assert!(Cgroup::open(&container).is_err(), "the container's is not ours to make");
        // One that somebody still is in stays, and so does what it lies in.
        let mine = Cgroup::create(&container).unwrap();
        pods.remove();
        assert!(Cgroup::open(&top).is_ok());
        assert!(mine.remove_if_empty());
        for path in [top.join("pod"), top.clone()] {
            assert!(Cgroup::open(&path).unwrap().remove_if_empty());
        }
        pods.admit(&container, &rules).unwrap();
        pods.remove();
        assert!(Cgroup::open(&top).is_err());
        // Right below the root there is nothing to make.
        pods.admit(&Path::new(ROOT).join("c1"), &rules).unwrap();
        pods.remove();
    }
}
