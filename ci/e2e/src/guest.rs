//! What a test holds of a VM: the agent, containers under names of the test's own, and the logs if it fails.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use husk::agent::Client;
use husk::vm::Vm;
use serde_json::Value;

use crate::ContainerBuilder;
use crate::machine::{self, Machine, ROOTFS};

/// A VM, as one test sees it.
pub struct Guest {
    machine: Arc<Machine>,
    /// Tells this test's containers from those of others on the same VM.
    test: u32,
    /// Containers that the test made and did not remove.
    containers: Mutex<Vec<String>>,
}

impl Guest {
    pub(crate) fn new(machine: Arc<Machine>) -> Guest {
        static TESTS: AtomicU32 = AtomicU32::new(0);
        let test = TESTS.fetch_add(1, Ordering::Relaxed);
        Guest { machine, test, containers: Mutex::default() }
    }

    /// The agent.
    pub fn agent(&self) -> Client {
        self.machine.vm.agent()
    }

    /// The agent, over a connection of its own.
    pub async fn connect(&self) -> Client {
        machine::connect(&self.machine.vm).await
    }

    /// The VM itself.
    pub fn vm(&self) -> &Vm {
        &self.machine.vm
    }

    /// Has QEMU execute a command of its control channel, and returns what it returned.
    pub async fn qmp(&self, command: &str, arguments: Value) -> Value {
        let executed = self.machine.vm.qmp(command, arguments.clone()).await;
        executed.unwrap_or_else(|error| panic!("{command} {arguments}: {error}"))
    }

    /// `CreateSandbox`, for a guest booted bare.
    pub async fn create_sandbox(&self) -> Result<(), husk::agent::Error> {
        self.machine.create_sandbox(|_| ()).await
    }

    /// The same, with anything changed about the request.
    pub async fn create_sandbox_with(
        &self,
        change: impl FnOnce(&mut agent_api::agent::CreateSandboxRequest),
    ) -> Result<(), husk::agent::Error> {
        self.machine.create_sandbox(change).await
    }

    /// A container to be made; `name` is unique within the test.
    pub fn container(&self, name: &str) -> ContainerBuilder<'_> {
        ContainerBuilder::new(self, format!("{name}-{}", self.test))
    }

    /// The host's side of the root file system that the containers have in common.
    pub fn rootfs(&self) -> PathBuf {
        self.machine.share().join(ROOTFS)
    }

    /// The host's side of the shared directory.
    pub fn share(&self) -> PathBuf {
        self.machine.share()
    }

    /// Leaves every container alone when the test ends: they went with their VM.
    pub fn abandon_all(&self) {
        self.containers.lock().unwrap().clear();
    }

    pub(crate) fn remember(&self, id: &str) {
        self.containers.lock().unwrap().push(id.into());
    }

    pub(crate) fn forget(&self, id: &str) {
        self.containers.lock().unwrap().retain(|other| other != id);
    }

    /// Removes what the test left. That this works is part of every test.
    pub(crate) async fn clean_up(&self) {
        let left = std::mem::take(&mut *self.containers.lock().unwrap());
        for id in left {
            self.agent().remove_container(&id).await.unwrap_or_else(|error| panic!("cleaning up: {error}"));
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.machine.print_logs();
            let (machine, left) = (self.machine.clone(), self.containers.get_mut().unwrap().split_off(0));
            machine::after_failure(async move {
                for id in left {
                    let _ = machine.vm.agent().remove_container(&id).await;
                }
            });
        }
    }
}
