//! Storages for tests, and the calls about them and about files.

use agent_api::agent::{CopyFileRequest, GetDiagnosticDataRequest, ResizeVolumeRequest, Storage};
use agent_api::agent::{UpdateEphemeralMountsRequest, VolumeStatsRequest};
use agent_api::csi::VolumeStatsResponse;
use ttrpc::context::{self, Context};

use crate::Guest;
use crate::container::strings;

/// A storage as a runtime sends it.
pub fn storage(driver: &str, source: &str, fstype: &str, options: &[&str], mount_point: &str) -> Storage {
    Storage {
        driver: driver.into(),
        source: source.into(),
        fstype: fstype.into(),
        options: strings(options),
        mount_point: mount_point.into(),
        ..Default::default()
    }
}

impl Guest {
    /// What is mounted in the guest, as its agent sees it: the lines of its mount table whose mount point has `text`
    /// in it.
    pub async fn mounts(&self, text: &str) -> Vec<String> {
        let look = self.container("look-at-mounts").sees_guest().sh("cat /guest/proc/1/mountinfo");
        let table = look.run().await.ok();
        let has = |line: &&str| line.split(' ').nth(4).is_some_and(|point| point.contains(text));
        table.lines().filter(has).map(str::to_string).collect()
    }

    /// `CopyFile`.
    pub async fn copy_file(&self, request: &CopyFileRequest) -> ttrpc::Result<()> {
        self.agent().service().copy_file(limit(), request).await.map(drop)
    }

    /// `UpdateEphemeralMounts`.
    pub async fn update_ephemeral_mounts(&self, storages: &[Storage]) -> ttrpc::Result<()> {
        let request = UpdateEphemeralMountsRequest { storages: storages.into(), ..Default::default() };
        self.agent().service().update_ephemeral_mounts(limit(), &request).await.map(drop)
    }

    /// `GetVolumeStats`.
    pub async fn volume_stats(&self, path: &str) -> ttrpc::Result<VolumeStatsResponse> {
        let request = VolumeStatsRequest { volume_guest_path: path.into(), ..Default::default() };
        self.agent().service().get_volume_stats(limit(), &request).await
    }

    /// `ResizeVolume`.
    pub async fn resize_volume(&self, path: &str, size: u64) -> ttrpc::Result<()> {
        let request = ResizeVolumeRequest { volume_guest_path: path.into(), size, ..Default::default() };
        self.agent().service().resize_volume(limit(), &request).await.map(drop)
    }

    /// `GetDiagnosticData`.
    pub async fn diagnostic_data(&self, container: &str, log_type: &str) -> ttrpc::Result<String> {
        let request = GetDiagnosticDataRequest {
            container_id: container.into(),
            log_type: log_type.into(),
            ..Default::default()
        };
        Ok(self.agent().service().get_diagnostic_data(limit(), &request).await?.data)
    }
}

fn limit() -> Context {
    context::with_duration(crate::LIMIT)
}
