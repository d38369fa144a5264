//! Everything a handler may reach: the settings, the devices, the sandbox, its containers, the reaper and the power switch.

use std::sync::Arc;

use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::statfs::statfs;
use tokio::sync::Notify;

use crate::config::Config;
use crate::copy_file::Uploads;
use crate::devices::Devices;
use crate::metrics::Metrics;
use crate::network::Network;
use crate::oom;
use crate::pods::Pods;
use crate::policy::Policy;
use crate::reaper::Reaper;
use crate::registry::Registry;
use crate::sandbox::{self, Sandbox};
use crate::stale_mounts::StaleMounts;

/// The one guest this agent runs.
pub(crate) struct Guest {
    pub(crate) config: Config,
    pub(crate) devices: Arc<Devices>,
    pub(crate) network: Network,
    pub(crate) sandbox: Sandbox,
    pub(crate) containers: Registry,
    pub(crate) uploads: Uploads,
    pub(crate) stale_mounts: StaleMounts,
    pub(crate) pods: Arc<Pods>,
    pub(crate) oom: Arc<oom::Events>,
    pub(crate) reaper: Reaper,
    pub(crate) metrics: Metrics,
    pub(crate) policy: Policy,
    /// Told when the sandbox has ended.
    end: Notify,
    /// Whether the agent is PID 1, and the VM ends with it.
    pub(crate) is_init: bool,
    /// Whether `/` is the kernel's initramfs, which cannot be pivoted away from.
    pub(crate) root_is_ramfs: bool,
}

impl Guest {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            devices: Arc::new(Devices::new(config.hotplug_timeout)),
            policy: Policy::load(config.policy_file.as_deref()),
            config,
            network: Network::default(),
            sandbox: Sandbox::default(),
            containers: Registry::default(),
            uploads: Uploads::default(),
            stale_mounts: StaleMounts::default(),
            pods: Arc::default(),
            oom: Arc::default(),
            reaper: Reaper::default(),
            metrics: Metrics::default(),
            end: Notify::new(),
            is_init: std::process::id() == 1,
            root_is_ramfs: root_is_ramfs(),
        }
    }

    /// Ends the sandbox: every container first, then what they shared. The agent, and with it the VM, ends once the caller has its answer.
    pub(crate) async fn destroy_sandbox(&self) -> Result<(), sandbox::Error> {
        let removals = self.containers.all().into_iter().map(|container| async move {
            if let Err(error) = container.remove(None).await {
                tracing::warn!(container = container.id(), %error, "not removed");
            }
        });
        futures::future::join_all(removals).await;
        self.oom.close();
        // systemd may take a moment for its slices, and holds up nobody meanwhile.
        let pods = self.pods.clone();
        let _ = tokio::task::spawn_blocking(move || pods.remove()).await;
        self.sandbox.destroy().await?;
        self.end.notify_one();
        Ok(())
    }

    /// Waits until the sandbox has ended.
    pub(crate) async fn ended(&self) {
        self.end.notified().await;
    }
}

/// Ends the VM.
pub(crate) fn power_off() -> ! {
    nix::unistd::sync();
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        // Without the right to: ending PID 1 panics the kernel, which ends the VM too.
        Err(_) => std::process::exit(1),
    }
}

/// The initramfs is a ramfs, or a tmpfs where the kernel has one and no `root=` was given
/// (Documentation/filesystems/ramfs-rootfs-initramfs.rst).
fn root_is_ramfs() -> bool {
    const RAMFS_MAGIC: i64 = 0x8584_58f6;
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    statfs("/").is_ok_and(|root| {
        let magic = i64::from(root.filesystem_type().0 as u32);
        magic == RAMFS_MAGIC || magic == TMPFS_MAGIC
    })
}
