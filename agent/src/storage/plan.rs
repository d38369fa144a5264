//! What will be done for each storage, decided before anything is.

use std::path::{Component, Path, PathBuf};

use agent_api::agent::Storage;
use jail::plan::MountOptions;
use nix::mount::MsFlags;

use super::bind::Bind;
use super::block::Volume;
use super::done::Done;
use super::ephemeral::Memory;
use super::group::Group;
use super::huge_pages::HugePages;
use super::layers::{self, Layers};
use super::local::Local;
use super::overlay::Overlay;
use super::point::Mounting;
use super::watch::Watchable;
use super::workplace::Workplace;
use super::{Error, Fault};

/// The drivers this agent has, as `GetGuestDetails` lists them.
pub(crate) const DRIVERS: &[&str] = &[
    "9p",
    "bind",
    "blk",
    "blk-ccw",
    "ephemeral",
    "erofs.multi-layer",
    "local",
    "mmioblk",
    "nvdimm",
    "overlayfs",
    "scsi",
    "virtio-fs",
    "watchable-bind",
];

/// One storage.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) target: PathBuf,
    pub(super) shared: bool,
    pub(super) work: Work,
    /// Whom its files shall belong to.
    pub(super) group: Option<Group>,
}

/// What its driver does.
#[derive(Debug, PartialEq)]
pub(super) enum Work {
    /// A file system that needs nothing but to be mounted: virtio-fs, 9p.
    Share(Mounting),
    Memory(Memory),
    HugePages(HugePages),
    Local(Local),
    Volume(Volume),
    Bind(Bind),
    Overlay(Overlay),
    Watchable(Watchable),
    Layers(Layers),
}

/// A field of a storage that cannot be what it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) field: &'static str,
    pub(super) reason: String,
}

/// Refuses a field of a storage.
pub(super) fn refuse<T>(field: &'static str, reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { field, reason: reason.into() })
}

/// Decides for all storages of a request. Those that are layers of one root file system are one.
pub(super) fn all(storages: &[Storage], owner: &str) -> Result<Vec<Plan>, Error> {
    let mut plans: Vec<Plan> = Vec::new();
    for storage in storages {
        let of_storage = |refusal: Refusal| Error::Refused {
            mount_point: storage.mount_point.clone(),
            field: refusal.field,
            reason: refusal.reason,
        };
        let target = mount_point(&storage.mount_point).map_err(of_storage)?;
        let group = Group::of(storage);
        let mut plan = |target: PathBuf, shared, work| plans.push(Plan { target, shared, work, group });
        if layers::is_layer(storage) {
            let is_planned = plans.iter().any(|plan| plan.target == target && plan.is_layers());
            if !is_planned {
                let layers: Vec<_> = storages
                    .iter()
                    .filter(|other| layers::is_layer(other) && other.mount_point == storage.mount_point)
                    .collect();
                let work = Work::Layers(Layers::plan(&layers, owner).map_err(of_storage)?);
                plans.push(Plan { target, shared: storage.shared, work, group });
            }
            continue;
        }
        let shared = storage.shared;
        match storage.driver.as_str() {
            "virtio-fs" => plan(target, shared, Work::Share(share(storage, "virtiofs").map_err(of_storage)?)),
            "9p" => plan(target, shared, Work::Share(share(storage, "9p").map_err(of_storage)?)),
            "ephemeral" if storage.fstype == "hugetlbfs" => {
                plan(target, shared, Work::HugePages(HugePages::plan(storage).map_err(of_storage)?));
            }
            "ephemeral" => plan(target, shared, Work::Memory(Memory::plan(storage).map_err(of_storage)?)),
            "local" => plan(target, shared, Work::Local(Local::plan(storage).map_err(of_storage)?)),
            "blk" | "mmioblk" | "blk-ccw" | "scsi" | "nvdimm" => {
                plan(target, shared, Work::Volume(Volume::plan(storage).map_err(of_storage)?));
            }
            "bind" => plan(target, shared, Work::Bind(Bind::plan(storage).map_err(of_storage)?)),
            "overlayfs" => {
                plan(target, shared, Work::Overlay(Overlay::plan(storage, owner).map_err(of_storage)?));
            }
            "watchable-bind" => {
                let (root, watchable) = Watchable::plan(storage, &target).map_err(of_storage)?;
                // What all copies lie in, until the sandbox ends.
                let copies = Work::Memory(Memory::for_copies());
                plans.push(Plan { target: root, shared: true, work: copies, group: None });
                plans.push(Plan { target, shared, work: Work::Watchable(watchable), group });
            }
            "image_guest_pull" => {
                let reason = "this guest does not pull images (UNIMPLEMENTED)";
                return Err(of_storage(Refusal { field: "driver", reason: reason.into() }));
            }
            driver => {
                return Err(Error::Driver {
                    mount_point: storage.mount_point.clone(),
                    driver: driver.to_string(),
                });
            }
        }
    }
    Ok(plans)
}

impl Plan {
    fn is_layers(&self) -> bool {
        matches!(self.work, Work::Layers(_))
    }

    /// Does what was decided, and notes each step.
    pub(super) fn make(&self, place: &Workplace, done: &mut Done) -> Result<(), Fault> {
        let target = &self.target;
        // Who made an existing mount is the one to undo it.
        if let Some(fstype) = self.fstype()
            && let Some(mount) =
                crate::mountinfo::at(target).map_err(|error| Fault::new("read the mount table", error))?
            && mount.fstype == fstype
        {
            tracing::info!(mount_point = %target.display(), fstype, "it is mounted already");
            return Ok(());
        }
        match &self.work {
            Work::Share(mounting) => mounting.mount(target, done)?,
            Work::Memory(memory) => memory.make(target, done)?,
            Work::HugePages(pages) => pages.make(target, done)?,
            Work::Local(local) => local.make(target, done)?,
            Work::Volume(volume) => volume.make(target, place, done)?,
            Work::Bind(bind) => bind.make(target, done)?,
            Work::Overlay(overlay) => overlay.make(target, done)?,
            Work::Watchable(watchable) => watchable.make(target, place, done)?,
            Work::Layers(layers) => layers.make(target, place, done)?,
        }
        match self.group {
            Some(group) => group.apply(target),
            None => Ok(()),
        }
    }

    /// The type of the file system that ends up at the target, if its driver is about one.
    fn fstype(&self) -> Option<&str> {
        match &self.work {
            Work::Share(mounting) => Some(&mounting.fstype),
            Work::Memory(memory) => Some(&memory.mounting.fstype),
            Work::HugePages(pages) => Some(&pages.mounting.fstype),
            Work::Volume(volume) => volume.fstype(),
            Work::Overlay(_) | Work::Layers(_) => Some("overlay"),
            Work::Local(_) | Work::Bind(_) | Work::Watchable(_) => None,
        }
    }
}

/// A mount point as it is looked up: absolute, without `..`, and not the root itself.
pub(super) fn mount_point(path: &str) -> Result<PathBuf, Refusal> {
    absolute("mount_point", path)
}

/// The same for any other path of a storage.
pub(super) fn absolute(field: &'static str, path: &str) -> Result<PathBuf, Refusal> {
    let clean: PathBuf = Path::new(path).components().collect();
    let goes_up = clean.components().any(|part| part == Component::ParentDir);
    if !clean.is_absolute() || goes_up || clean == Path::new("/") || path.contains('\0') {
        return refuse(field, format!("{path:?} is not an absolute path without '..'"));
    }
    Ok(clean)
}

/// Options as mount(2) takes them: flags and data.
pub(super) fn mount_options(words: &[String]) -> Result<(MsFlags, String), Refusal> {
    let options = match MountOptions::read(words) {
        Ok(options) => options,
        Err(error) => return refuse("options", error.to_string()),
    };
    let (flags, data) = options.for_mount();
    Ok((MsFlags::from_bits_truncate(flags as _), data))
}

/// A group's number, as an option gives it.
pub(super) fn group_id(option: &str, text: &str) -> Result<u32, Refusal> {
    match text.parse() {
        // All ones means "leave it" to chown(2).
        Ok(gid) if gid != u32::MAX => Ok(gid),
        _ => refuse("options", format!("bad option {option:?}")),
    }
}

fn share(storage: &Storage, fstype: &str) -> Result<Mounting, Refusal> {
    if storage.source.is_empty() {
        return refuse("source", "it is empty");
    }
    let (flags, data) = mount_options(&storage.options)?;
    Ok(Mounting { source: storage.source.clone(), fstype: fstype.to_string(), flags, data })
}
