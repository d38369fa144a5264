//! Driver `ephemeral`: volumes in the guest's memory, and the sandbox's `/dev/shm`.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::{fs, io};

use agent_api::agent::Storage;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::done::Done;
use super::plan::{self, Refusal, refuse};
use super::point::{self, Mounting};
use super::{At as _, Error, Fault};

/// A tmpfs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Memory {
    pub(super) mounting: Mounting,
    /// The group that may write to it.
    group: Option<u32>,
}

impl Memory {
    /// The peer agent leaves every option but the group for a later remount, so that a shm has half of the memory until
    /// then. Here they count from the first mount on.
    pub(super) fn plan(storage: &Storage) -> Result<Self, Refusal> {
        if storage.fstype != "tmpfs" {
            return refuse("fstype", format!("{:?} is not one of an ephemeral storage", storage.fstype));
        }
        let (group, words) = take_group(&storage.options)?;
        let (flags, data) = plan::mount_options(&words)?;
        let source = if storage.source.is_empty() { "tmpfs" } else { &storage.source };
        let mounting = Mounting { source: source.to_string(), fstype: "tmpfs".to_string(), flags, data };
        Ok(Self { mounting, group })
    }

    /// Where copies of watched files lie.
    pub(super) fn for_copies() -> Self {
        let mounting = Mounting {
            source: "tmpfs".to_string(),
            fstype: "tmpfs".to_string(),
            flags: MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            data: "mode=755".to_string(),
        };
        Self { mounting, group: None }
    }

    pub(super) fn make(&self, target: &Path, done: &mut Done) -> Result<(), Fault> {
        self.mounting.mount(target, done)?;
        give_to(target, self.group)
    }
}

/// Lets a group write to a directory, and to what will be made in it.
pub(super) fn give_to(target: &Path, group: Option<u32>) -> Result<(), Fault> {
    let Some(group) = group else { return Ok(()) };
    let what = || format!("give {target:?} to the group {group}");
    let open = point::open(target).at(what)?;
    let path = point::path_of(&open);
    chown(&path, None, Some(group)).at(what)?;
    let mode = fs::metadata(&path).at(what)?.permissions().mode();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode | 0o2070)).at(what)
}

/// The group among a storage's options, and the rest of them.
pub(super) fn take_group(options: &[String]) -> Result<(Option<u32>, Vec<String>), Refusal> {
    let mut group = None;
    let mut words = Vec::new();
    for option in options {
        match option.strip_prefix("fsgid=") {
            Some(gid) => group = Some(plan::group_id(option, gid)?),
            None => words.push(option.clone()),
        }
    }
    Ok((group, words))
}

/// `UpdateEphemeralMounts`: gives mounted volumes another size, or another group. None to change is no error.
pub(crate) async fn update(storages: Vec<Storage>) -> Result<(), Error> {
    let updated = tokio::task::spawn_blocking(move || storages.iter().try_for_each(update_one));
    updated.await.unwrap_or(Err(Error::Abandoned))
}

fn update_one(storage: &Storage) -> Result<(), Error> {
    let refused = |Refusal { field, reason }| Error::Refused {
        mount_point: storage.mount_point.clone(),
        field,
        reason,
    };
    if storage.driver != "ephemeral" {
        let reason = format!("{:?} is not \"ephemeral\"", storage.driver);
        return Err(refused(Refusal { field: "driver", reason }));
    }
    let target = plan::mount_point(&storage.mount_point).map_err(refused)?;
    if storage.fstype == "hugetlbfs" {
        // Its pages were counted out when it was mounted, and the kernel has no way to change that.
        return Ok(());
    }
    let memory = Memory::plan(storage).map_err(refused)?;
    memory.remount(&target).map_err(|fault| Error::Failed { mount_point: target, fault })
}

impl Memory {
    fn remount(&self, target: &PathBuf) -> Result<(), Fault> {
        let what = || format!("remount {target:?} with {:?}", self.mounting.data);
        match crate::mountinfo::at(target).at(what)? {
            Some(mount) if mount.fstype == "tmpfs" => {}
            _ => return Err(io::Error::other("no tmpfs is mounted there")).at(what),
        }
        let open = point::open(target).at(what)?;
        let mounted = point::path_of(&open);
        // A remount takes away every flag it does not name, and callers name the size alone.
        let flags = self.mounting.flags | kept_flags(statvfs(&mounted).at(what)?.flags());
        let data = Some(self.mounting.data.as_str());
        mount(None::<&str>, &mounted, None::<&str>, flags | MsFlags::MS_REMOUNT, data).at(what)?;
        give_to(target, self.group)
    }
}

/// The flags of a mount, as a remount has to repeat them.
fn kept_flags(has: FsFlags) -> MsFlags {
    [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
    ]
    .into_iter()
    .filter(|(flag, _)| has.contains(*flag))
    .fold(MsFlags::empty(), |all, (_, flag)| all | flag)
}
