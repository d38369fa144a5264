//! `RemoveStaleVirtiofsShareMounts`: a look at every mount point below the share, so that the host's daemon notices
//! which of them are gone and closes their files.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_api::paths;

/// How long a caller waits. The looking goes on, and is no failure whatever it finds.
const PATIENCE: Duration = Duration::from_secs(2);

/// The looker. There is one at a time: a host that does not answer one will not answer a second.
#[derive(Default)]
pub(crate) struct StaleMounts {
    at_work: Arc<AtomicBool>,
}

impl StaleMounts {
    /// Looks, or leaves it to whoever looks already.
    pub(crate) async fn look(&self) {
        if self.at_work.swap(true, Ordering::AcqRel) {
            return;
        }
        let at_work = self.at_work.clone();
        let looking = tokio::task::spawn_blocking(move || {
            for mount in crate::mountinfo::read().unwrap_or_default() {
                if mount.point.starts_with(paths::SHARE_ROOT) && mount.point != Path::new(paths::SHARE_ROOT) {
                    let _ = mount.point.symlink_metadata();
                }
            }
            at_work.store(false, Ordering::Release);
        });
        if tokio::time::timeout(PATIENCE, looking).await.is_err() {
            tracing::info!("a mount below the share does not answer; nobody waits for it");
        }
    }
}
