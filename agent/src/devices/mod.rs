//! The guest's devices: which node a device has that the host names, now or when it has come.
//!
//! What there is stands in sysfs, and only there: no list is kept that could differ from it. A lookup reads sysfs
//! first, which finds what was there before the agent, and again with each event of the kernel's until its time is up.
//! [`Devices::run`] owns the socket of those events; they wake who waits, and bring plugged memory into use.

mod address;
mod addresses;
mod ap;
pub(crate) mod pci;
mod resolve;
mod tree;
pub(crate) mod uevent;
mod vfio;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

pub(crate) use address::Address;
pub(crate) use addresses::GuestAddresses;
pub(crate) use pci::{BadPci, PciPath};
pub(crate) use resolve::{TYPES, expose};
pub(crate) use tree::Tree;
use tree::{Ambiguous, Node};
#[cfg(any(test, fuzzing))]
pub(crate) use uevent::parse as parse_uevent;

/// A device cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("devices[{at}]: {field}: {reason}")]
    Refused { at: usize, field: &'static str, reason: String },
    #[error("{device}: it did not come within {} s", .limit.as_secs_f32())]
    Late { device: String, limit: Duration },
    #[error("{device}: {source}")]
    Ambiguous { device: String, source: Ambiguous },
    #[error("{device}: {step}: {source}")]
    Failed { device: String, step: &'static str, source: std::io::Error },
}

/// Every device of the guest.
pub(crate) struct Devices {
    tree: Tree,
    /// How long a device may take to come.
    limit: Duration,
    /// Changes with each event.
    events: watch::Sender<()>,
}

impl Devices {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { tree: Tree::default(), limit, events: watch::Sender::new(()) }
    }

    /// The node of the block device at an address: `/dev/vda`.
    pub(crate) async fn block_node(&self, address: &Address) -> Result<PathBuf, Error> {
        Ok(self.block(address).await?.path)
    }

    /// The sysfs directory of the device at a PCI path.
    pub(crate) async fn pci_device(&self, path: &PciPath) -> Result<PathBuf, Error> {
        let device = format!("device at PCI path {path}");
        self.wait_for(device, || Ok(path.resolve(self.tree.sysfs()))).await
    }

    /// The name of the interface of the network card at a PCI path.
    pub(crate) async fn interface(&self, path: &PciPath) -> Result<String, Error> {
        let device = format!("network card at PCI path {path}");
        self.wait_for(device, || {
            Ok(path.resolve(self.tree.sysfs()).and_then(|card| self.tree.interface_of(&card)))
        })
        .await
    }

    async fn block(&self, address: &Address) -> Result<Node, Error> {
        let look = || {
            let device = || address.to_string();
            self.tree.block(address).map_err(|source| Error::Ambiguous { device: device(), source })
        };
        if let Address::Scsi { id, lun } = *address
            && look()?.is_none()
        {
            // A scan ends when every unit it found has answered, which is the host's to say.
            let tree = self.tree.clone();
            let scan = tokio::task::spawn_blocking(move || tree.scan_scsi(id, lun));
            let _ = tokio::time::timeout(self.limit, scan).await;
        }
        self.wait_for(address, look).await
    }

    /// What `look` finds, now or after one of the events that come before the time is up.
    async fn wait_for<T>(
        &self,
        device: impl fmt::Display,
        mut look: impl FnMut() -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        let mut events = self.events.subscribe();
        let deadline = Instant::now() + self.limit;
        loop {
            // What comes from here on wakes us, so nothing is missed between the look and the wait.
            events.mark_unchanged();
            if let Some(found) = look()? {
                return Ok(found);
            }
            if !matches!(timeout_at(deadline, events.changed()).await, Ok(Ok(()))) {
                return Err(Error::Late { device: device.to_string(), limit: self.limit });
            }
        }
    }

    /// Listens to the kernel for as long as the agent lives.
    pub(crate) async fn run(&self) {
        if let Err(error) = self.listen().await {
            tracing::error!(%error, "devices that come are not noticed");
        }
    }

    async fn listen(&self) -> std::io::Result<()> {
        let socket = uevent::Socket::open()?;
        loop {
            match socket.next().await? {
                Some(message) => self.heard(&message),
                None => tracing::warn!("uevents were lost: sysfs is read again"),
            }
            self.events.send_replace(());
        }
    }

    fn heard(&self, message: &[u8]) {
        match uevent::parse(message) {
            Ok(event) => {
                tracing::debug!(
                    action = event.action,
                    devpath = event.devpath,
                    subsystem = event.subsystem,
                    devname = event.devname,
                    "uevent"
                );
                if event.subsystem == "memory" && event.action == "add" {
                    self.online_memory(event.devpath.to_string());
                }
            }
            Err(error) => tracing::warn!(%error, "not understood"),
        }
    }

    /// Elsewhere, as the kernel may take its time to initialise a block.
    fn online_memory(&self, devpath: String) {
        let tree = self.tree.clone();
        tokio::task::spawn_blocking(move || match tree.online(&devpath) {
            Ok(()) => tracing::info!(devpath, "memory is online"),
            Err(error) => tracing::warn!(devpath, %error, "memory cannot be brought into use"),
        });
    }
}

#[cfg(test)]
mod tests;
