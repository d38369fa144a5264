//! What bounds a container: its cgroup, the devices it may use, and the watch for kills for lack of memory.

use std::sync::Arc;
use std::time::Duration;

use jail::cgroup::{Cgroup, CgroupError, DeviceRules, Place};
use jail::oci;

use super::placeholder::Placeholder;
use crate::boot::AGENT_BINARY;
use crate::guest::Guest;
use crate::oom::{self, Init, Watch};

/// How long the processes of a removed container may take to die, and its cgroup to go.
const REMOVAL: Duration = Duration::from_secs(10);

/// How long the processes of a container may take to stand still. One that waits for a device or a file system that
/// does not answer never does.
const STANDSTILL: Duration = Duration::from_secs(10);

/// A container's cgroup, kept by the container's task.
pub(super) struct Bounds {
    cgroup: Cgroup,
    /// The spec's device nodes, which every list of rules for this container begins with.
    nodes: Vec<oci::LinuxDevice>,
    watch: Option<Watch>,
    /// Until the container's first process is in the cgroup, where systemd made that.
    held: Option<Held>,
}

/// What keeps a scope until somebody is in it, and what can be set only then.
struct Held {
    placeholder: Placeholder,
    /// A limit on processes. The placeholder is one, and may be one too many.
    pids: Option<oci::LinuxResources>,
}

impl Bounds {
    /// Makes the cgroup of a container that is about to be created, limits and all; or leaves nothing.
    pub(super) async fn make(
        id: &str,
        place: &Place,
        spec: &oci::Spec,
        guest: &Guest,
    ) -> Result<Self, CgroupError> {
        let linux = spec.linux().as_ref();
        let rules = DeviceRules::of(linux)?;
        let mut resources = linux.and_then(|linux| linux.resources().clone());
        let asked = resources.as_ref().is_some_and(|resources| resources.devices().is_some());
        let (cgroup, held) = match place {
            Place::Directory(path) => {
                guest.pods.admit(path, &rules)?;
                (Cgroup::create(path)?, None)
            }
            Place::Scope(scope) => {
                let pids = resources.as_mut().and_then(take_pids);
                guest.pods.admit_scope(scope);
                let placeholder = Placeholder::start(&guest.reaper).map_err(|source| CgroupError::File {
                    action: "start a placeholder from".to_string(),
                    path: AGENT_BINARY.into(),
                    source,
                })?;
                let (scope, limits, pid) = (scope.clone(), resources.clone(), placeholder.pid());
                let description = format!("Husk container {id}");
                let made = move || Cgroup::create_scope(&scope, &description, pid, limits.as_ref());
                (blocking(made).await?, Some(Held { placeholder, pids }))
            }
        };
        let nodes = linux.and_then(|linux| linux.devices().clone()).unwrap_or_default();
        let mut bounds = Self { cgroup, nodes, watch: None, held };
        if let Err(error) = bounds.set(id, resources.as_ref(), &rules, asked) {
            bounds.dispose().await;
            return Err(error);
        }
        Ok(bounds)
    }

    fn set(
        &self,
        id: &str,
        resources: Option<&oci::LinuxResources>,
        rules: &DeviceRules,
        asked: bool,
    ) -> Result<(), CgroupError> {
        if let Some(resources) = resources {
            let ignored = self.cgroup.ignored(resources);
            if !ignored.is_empty() {
                tracing::warn!(container = id, ?ignored, "cgroup version 2 has no such limits");
            }
            // A scope has them from its start.
            if self.held.is_none() {
                self.cgroup.apply(resources)?;
            }
        }
        match self.cgroup.set_devices(rules) {
            Err(error) if error.is_without_device_rules() && !asked => {
                tracing::warn!(container = id, %error, "the kernel cannot hold it to the default devices");
                Ok(())
            }
            other => other,
        }
    }

    /// The container's first process is in the cgroup, and nothing else needs to hold it.
    pub(super) async fn seated(&mut self) -> Result<(), CgroupError> {
        let Some(Held { placeholder, pids }) = self.held.take() else { return Ok(()) };
        drop(placeholder);
        let Some(pids) = pids else { return Ok(()) };
        let cgroup = self.cgroup.clone();
        blocking(move || cgroup.update(&pids)).await
    }

    /// Other limits, from now on. Either all of them hold or none.
    pub(super) async fn update(
        &self,
        resources: oci::LinuxResources,
        guest: &Guest,
    ) -> Result<(), CgroupError> {
        let rules = match resources.devices() {
            Some(devices) => Some(DeviceRules::of_lists(&self.nodes, devices)?),
            None => None,
        };
        if let Some(rules) = &rules {
            guest.pods.admit(self.cgroup.path(), rules)?;
        }
        let cgroup = self.cgroup.clone();
        // To lower a limit on memory takes as long as the kernel needs to free some.
        blocking(move || {
            cgroup.update(&resources)?;
            rules.map_or(Ok(()), |rules| cgroup.set_devices(&rules))
        })
        .await
    }

    /// Stops every process, or if that takes too long none.
    pub(super) async fn freeze(&self) -> Result<(), CgroupError> {
        let cgroup = self.cgroup.clone();
        blocking(move || cgroup.freeze(STANDSTILL)).await
    }

    /// Lets every process go on.
    pub(super) async fn thaw(&self) -> Result<(), CgroupError> {
        let cgroup = self.cgroup.clone();
        blocking(move || cgroup.thaw(STANDSTILL)).await
    }

    /// Tells `events` of every kill for lack of memory from now on, for as long as there is anybody to kill.
    pub(super) fn watch_oom(&mut self, id: &str, init: Init, events: &Arc<oom::Events>) {
        match Watch::begin(&self.cgroup, id, init, events.clone()) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => tracing::warn!(container = id, %error, "kills for lack of memory go unseen"),
        }
    }

    /// Kills everything in the cgroup and removes it.
    pub(super) async fn dispose(&mut self) {
        drop(self.held.take());
        let cgroup = self.cgroup.clone();
        if let Err(error) = blocking(move || cgroup.kill_all()).await {
            tracing::error!(%error, "a cgroup's processes were not killed");
        }
        // The count goes with the cgroup: the last look at it is now.
        drop(self.watch.take());
        let cgroup = self.cgroup.clone();
        if let Err(error) = blocking(move || cgroup.remove(REMOVAL)).await {
            tracing::error!(%error, "a cgroup was left behind");
        }
    }
}

/// Takes the limit on processes out of others.
fn take_pids(resources: &mut oci::LinuxResources) -> Option<oci::LinuxResources> {
    let pids = *resources.pids();
    resources.set_pids(None);
    let mut alone = oci::LinuxResources::default();
    alone.set_devices(None).set_pids(Some(pids?));
    Some(alone)
}

/// Does what may take the kernel a while where it holds up nobody.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CgroupError> + Send + 'static,
) -> Result<T, CgroupError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // The runtime ends no such work before its time, so it panicked; and so does whoever waited for it.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
