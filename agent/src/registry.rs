//! The containers of the VM, by id: a map that gets, adds and removes, and nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::container::Container;

/// The containers.
#[derive(Default)]
pub(crate) struct Registry(Mutex<HashMap<String, Arc<Container>>>);

impl Registry {
    /// Adds a container unless its id is taken.
    pub(crate) fn add(&self, container: Arc<Container>) -> bool {
        let mut containers = self.containers();
        if containers.contains_key(container.id()) {
            return false;
        }
        containers.insert(container.id().to_string(), container);
        true
    }

    /// The container with an id.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Container>> {
        self.containers().get(id).cloned()
    }

    /// Removes a container; its task has ended or is about to.
    pub(crate) fn remove(&self, id: &str) {
        self.containers().remove(id);
    }

    /// Every container.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.containers().values().cloned().collect()
    }

    /// Gives every container the processors and memory nodes it asked for, where there are more of them than before.
    pub(crate) async fn refresh_cpusets(&self) {
        for container in self.all() {
            if let Err(error) = container.refresh_cpuset().await {
                tracing::warn!(container = container.id(), %error, "its processors stay as they were");
            }
        }
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<String, Arc<Container>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
