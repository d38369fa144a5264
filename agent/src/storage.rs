//! File systems a request asks to be mounted before its containers start.
//!
//! A storage is known by its mount point. The first request mounts it, later ones add a reference, and the last
//! release unmounts it, unless the storage is shared, which means it stays until the sandbox ends.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::{fs, io};

use agent_api::agent::Storage;
use jail::plan::MountOptions;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tokio::sync::OnceCell;

/// The drivers this agent has, as `GetGuestDetails` lists them.
pub(crate) const DRIVERS: &[&str] = &["virtio-fs", "9p", "ephemeral", "local"];

/// A storage cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("storage {mount_point:?}: unknown driver {driver:?}")]
    Driver { mount_point: String, driver: String },
    #[error("storage {mount_point:?}: {reason}")]
    Refused { mount_point: String, reason: String },
    #[error("storage {mount_point:?}: {step}: {source}")]
    Failed { mount_point: String, step: &'static str, source: io::Error },
}

/// Every storage of the sandbox.
#[derive(Default)]
pub(crate) struct Storages(Mutex<HashMap<PathBuf, Entry>>);

struct Entry {
    references: usize,
    shared: bool,
    mounted: Arc<OnceCell<()>>,
}

impl Storages {
    /// Mounts what is not mounted yet, in order. After a failure none of them is held.
    pub(crate) async fn acquire(&self, storages: &[Storage]) -> Result<Vec<PathBuf>, Error> {
        let mut held = Vec::new();
        for storage in storages {
            match self.acquire_one(storage).await {
                Ok(mount_point) => held.push(mount_point),
                Err(error) => {
                    self.release(held).await;
                    return Err(error);
                }
            }
        }
        Ok(held)
    }

    /// Gives references back, in reverse order.
    pub(crate) async fn release(&self, mount_points: Vec<PathBuf>) {
        for mount_point in mount_points.into_iter().rev() {
            if self.drop_reference(&mount_point) {
                unmount(mount_point).await;
            }
        }
    }

    /// Unmounts everything, shared or not.
    pub(crate) async fn clear(&self) {
        let mut all: Vec<_> = self.entries().drain().map(|(mount_point, _)| mount_point).collect();
        // The deepest first, so that no mount hides another.
        all.sort_by_key(|mount_point| std::cmp::Reverse(mount_point.components().count()));
        for mount_point in all {
            unmount(mount_point).await;
        }
    }

    async fn acquire_one(&self, storage: &Storage) -> Result<PathBuf, Error> {
        let plan = Plan::of(storage)?;
        let target = plan.target.clone();
        let mounted = self.add_reference(&target, storage.shared);
        let result = mounted
            .get_or_try_init(|| async {
                // A mount may wait for its host for ever; that must not be everybody's wait.
                tokio::task::spawn_blocking(move || plan.carry_out())
                    .await
                    .unwrap_or_else(|panic| Err(("mount", io::Error::other(panic))))
            })
            .await;
        if let Err((step, source)) = result {
            self.drop_reference(&target);
            return Err(Error::Failed { mount_point: storage.mount_point.clone(), step, source });
        }
        Ok(target)
    }

    fn add_reference(&self, mount_point: &Path, shared: bool) -> Arc<OnceCell<()>> {
        let mut entries = self.entries();
        let entry = entries.entry(mount_point.to_path_buf()).or_insert_with(|| Entry {
            references: 0,
            shared,
            mounted: Arc::default(),
        });
        entry.references += 1;
        entry.mounted.clone()
    }

    /// Returns whether that was the last reference to a mount that must go.
    fn drop_reference(&self, mount_point: &Path) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(mount_point) else { return false };
        entry.references -= 1;
        if entry.references > 0 || (entry.shared && entry.mounted.initialized()) {
            return false;
        }
        entries.remove(mount_point).is_some_and(|entry| entry.mounted.initialized())
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<PathBuf, Entry>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

async fn unmount(mount_point: PathBuf) {
    let result = tokio::task::spawn_blocking(move || {
        match umount2(&mount_point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // A directory that was only made, by the driver `local`.
            Ok(()) | Err(nix::Error::EINVAL) => {}
            Err(error) => tracing::warn!(mount_point = %mount_point.display(), %error, "unmounting failed"),
        }
        // What still holds files is not ours to empty.
        let _ = fs::remove_dir(&mount_point);
    });
    if let Err(error) = result.await {
        tracing::error!(%error, "unmounting panicked");
    }
}

/// What will be done for a storage, decided before anything is.
#[derive(Debug, PartialEq)]
struct Plan {
    target: PathBuf,
    directory_mode: u32,
    group: Option<u32>,
    /// Source, type, flags and data; `None`: a directory and no mount.
    mount: Option<(String, String, MsFlags, String)>,
}

impl Plan {
    fn of(storage: &Storage) -> Result<Self, Error> {
        let refused = |reason: String| Error::Refused { mount_point: storage.mount_point.clone(), reason };
        let target = PathBuf::from(&storage.mount_point);
        let plain = target.components().all(|part| !matches!(part, std::path::Component::ParentDir));
        if !target.is_absolute() || !plain || target == Path::new("/") {
            return Err(refused("the mount point is not an absolute path without '..'".to_string()));
        }
        let mut plan = Self { target, directory_mode: 0o755, group: None, mount: None };
        let mut options = Vec::new();
        for option in &storage.options {
            match option.split_once('=') {
                Some(("fsgid", gid)) => {
                    plan.group = Some(gid.parse().map_err(|_| refused(format!("bad option {option:?}")))?);
                }
                Some(("mode", mode)) if storage.driver == "local" => {
                    plan.directory_mode = u32::from_str_radix(mode, 8)
                        .map_err(|_| refused(format!("bad option {option:?}")))?;
                }
                _ => options.push(option.clone()),
            }
        }
        let options = MountOptions::read(&options).map_err(|error| refused(error.to_string()))?;
        let (flags, data) = options.for_mount();
        let flags = MsFlags::from_bits_truncate(flags as _);
        let (source, fstype) = match storage.driver.as_str() {
            "local" => return Ok(plan),
            "virtio-fs" => (storage.source.as_str(), "virtiofs"),
            "9p" => (storage.source.as_str(), "9p"),
            "ephemeral" if storage.fstype == "tmpfs" => (storage.source.as_str(), "tmpfs"),
            "ephemeral" => {
                return Err(refused(format!("unknown type {:?} of an ephemeral storage", storage.fstype)));
            }
            driver => {
                return Err(Error::Driver {
                    mount_point: storage.mount_point.clone(),
                    driver: driver.to_string(),
                });
            }
        };
        plan.mount = Some((source.to_string(), fstype.to_string(), flags, data));
        Ok(plan)
    }

    fn carry_out(&self) -> Result<(), (&'static str, io::Error)> {
        use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
        let made = !self.target.exists();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.target)
            .map_err(|error| ("create the mount point", error))?;
        if let Some((source, fstype, flags, data)) = &self.mount {
            let data = (!data.is_empty()).then_some(data.as_str());
            mount(Some(source.as_str()), &self.target, Some(fstype.as_str()), *flags, data)
                .map_err(|error| ("mount", error.into()))?;
        } else if made {
            fs::set_permissions(&self.target, fs::Permissions::from_mode(self.directory_mode))
                .map_err(|error| ("set the mode", error))?;
        }
        if let Some(group) = self.group {
            chown(&self.target, None, Some(group)).map_err(|error| ("set the group", error))?;
            let mode =
                fs::metadata(&self.target).map_err(|error| ("read the mode", error))?.permissions().mode();
            fs::set_permissions(&self.target, fs::Permissions::from_mode(mode | 0o2070))
                .map_err(|error| ("set the mode", error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(driver: &str, options: &[&str]) -> Storage {
        Storage {
            driver: driver.into(),
            source: "src".into(),
            fstype: "tmpfs".into(),
            options: options.iter().map(|option| option.to_string()).collect(),
            mount_point: "/run/x".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_shm_storage_is_mounted_with_its_size() {
        let plan =
            Plan::of(&storage("ephemeral", &["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"]))
                .unwrap();
        let (source, fstype, flags, data) = plan.mount.unwrap();
        assert_eq!((source.as_str(), fstype.as_str()), ("src", "tmpfs"));
        assert_eq!(flags, MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
        assert_eq!(data, "mode=1777,size=67108864");
    }

    #[test]
    fn a_group_is_not_a_mount_option() {
        let plan = Plan::of(&storage("ephemeral", &["fsgid=1000"])).unwrap();
        assert_eq!(plan.group, Some(1000));
        assert_eq!(plan.mount.unwrap().3, "");
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_reason() {
        let error = Plan::of(&storage("floppy", &[])).unwrap_err().to_string();
        assert_eq!(error, "storage \"/run/x\": unknown driver \"floppy\"");
        assert!(Plan::of(&storage("9p", &["loop"])).is_err());
        assert!(Plan::of(&storage("local", &["mode=rwx"])).is_err());
        assert!(Plan::of(&storage("local", &["fsgid=staff"])).is_err());
        for mount_point in ["", "/", "run/x", "/run/../etc"] {
            let storage = Storage { mount_point: mount_point.into(), ..storage("local", &[]) };
            assert!(Plan::of(&storage).is_err(), "{mount_point:?}");
        }
    }

    #[tokio::test]
    async fn a_failing_storage_leaves_nothing_behind() {
        let storages = Storages::default();
        let dir = std::env::temp_dir().join(format!("husk-storage-{}", std::process::id()));
        let local = Storage { mount_point: dir.to_str().unwrap().into(), ..storage("local", &["mode=0700"]) };
        let bad = Storage { driver: "floppy".into(), ..local.clone() };
        storages.acquire(&[local.clone(), bad]).await.unwrap_err();
        assert!(!dir.exists() && storages.entries().is_empty());

        let held = storages.acquire(&[local.clone(), local]).await.unwrap();
        assert!(dir.is_dir());
        storages.release(held).await;
        assert!(!dir.exists() && storages.entries().is_empty());
    }
}
