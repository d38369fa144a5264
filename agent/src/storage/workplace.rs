//! What the threads that make storages need of the rest of the agent: devices to be found, programs to be run.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::Fault;
use crate::devices::Address;
use crate::guest::Guest;
use crate::helper;

/// How long making a file system may take: it writes little, but the host's disk may be slow.
const MKFS: Duration = Duration::from_secs(55);

#[derive(Clone)]
pub(super) struct Workplace {
    guest: Arc<Guest>,
    runtime: Handle,
}

impl Workplace {
    /// For work that is asked for on the agent's own thread.
    pub(super) fn new(guest: Arc<Guest>) -> Self {
        Self { guest, runtime: Handle::current() }
    }

    /// The node of a block device, which may still have to be plugged in.
    pub(super) fn node(&self, address: &Address) -> Result<PathBuf, Fault> {
        let (guest, wanted) = (self.guest.clone(), address.clone());
        self.wait(async move { guest.devices.block_node(&wanted).await })
            .and_then(|found| found.map_err(io::Error::other))
            .map_err(|error| Fault::new(format!("find the {address}"), error))
    }

    /// Makes a file system with the first of these programs that the guest has.
    pub(super) fn mkfs(&self, programs: &'static [&'static str], args: Vec<String>) -> Result<(), Fault> {
        let guest = self.guest.clone();
        let made = self.wait(async move {
            let command = helper::Command::new(helper::find(programs)?).args(args).deadline(MKFS);
            helper::run(&guest.reaper, command).await.map(drop)
        });
        made.and_then(|ended| ended.map_err(io::Error::other))
            .map_err(|error| Fault::new("make the file system", error))
    }

    /// Starts what goes on after the storage is there.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.runtime.spawn(work).abort_handle()
    }

    /// Waits here for what only the agent's own thread can do, such as watching a child from its first moment on.
    fn wait<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
        self.runtime.block_on(self.runtime.spawn(work)).map_err(io::Error::other)
    }
}
