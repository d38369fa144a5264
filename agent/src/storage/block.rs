//! Drivers of block devices: `blk`, `mmioblk`, `blk-ccw`, `scsi` and `nvdimm`. They differ in how the device is found.

use std::path::{Path, PathBuf};

use agent_api::agent::Storage;
use nix::mount::MsFlags;

use super::done::{Done, Step};
use super::plan::{self, Refusal, refuse};
use super::point::{self, Mounting};
use super::workplace::Workplace;
use super::{At as _, Fault};
use crate::devices::Address;
use crate::dm;

/// Where a guest may have the program that makes an ext4.
const MKFS: &[&str] = &["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4", "/usr/bin/mkfs.ext4", "/bin/mkfs.ext4"];

/// A volume that is thrown away with its VM needs no journal and no reserve.
const MKFS_FLAGS: &[&str] = &["-q", "-F", "-O", "^has_journal", "-m", "0", "-i", "163840", "-I", "128"];

/// A block device and what is to be seen of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Volume {
    address: Address,
    /// Whether a file system is made on it first.
    format: bool,
    /// Whether what is written to it is encrypted, with a key that nobody will ever know.
    encrypt: bool,
    seen: Seen,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// The file system on it. The source of the mounting is empty: it is the device.
    FileSystem(Mounting),
    /// The device's node itself.
    Node(MsFlags),
}

impl Volume {
    pub(super) fn plan(storage: &Storage) -> Result<Self, Refusal> {
        let address = match Address::of(&storage.driver, &storage.source) {
            Ok(address) => address,
            Err(error) => return refuse("source", error.to_string()),
        };
        let (mut format, mut encrypt) = (false, false);
        for option in &storage.driver_options {
            match option.split_once('=').unwrap_or((option, "")) {
                ("create_filesystem", _) => format = true,
                ("encryption_key", "ephemeral") => encrypt = true,
                ("encryption_key", key) => {
                    return refuse("driver_options", format!("encryption_key: {key:?} is not \"ephemeral\""));
                }
                _ => tracing::debug!(option, "a driver option that means nothing here"),
            }
        }
        if encrypt && !format {
            return refuse(
                "driver_options",
                "encryption_key needs create_filesystem: the old content is unreadable",
            );
        }
        if format && storage.fstype != "ext4" {
            return refuse("fstype", format!("{:?} cannot be created, only ext4 can", storage.fstype));
        }
        let (flags, data) = plan::mount_options(&storage.options)?;
        let seen = match storage.fstype.as_str() {
            "" => return refuse("fstype", "it is empty"),
            "bind" => Seen::Node(flags),
            fstype => {
                Seen::FileSystem(Mounting { source: String::new(), fstype: fstype.to_string(), flags, data })
            }
        };
        Ok(Self { address, format, encrypt, seen })
    }

    /// The type of its file system, if that is what is seen of it.
    pub(super) fn fstype(&self) -> Option<&str> {
        match &self.seen {
            Seen::FileSystem(mounting) => Some(&mounting.fstype),
            Seen::Node(_) => None,
        }
    }

    pub(super) fn make(&self, target: &Path, place: &Workplace, done: &mut Done) -> Result<(), Fault> {
        let mut node = place.node(&self.address)?;
        if self.encrypt {
            node = encrypt(&node, done)?;
        }
        if self.format {
            let args = MKFS_FLAGS.iter().map(ToString::to_string);
            place.mkfs(MKFS, args.chain([node.display().to_string()]).collect())?;
        }
        match &self.seen {
            Seen::Node(flags) => point::bind(&node, target, false, *flags, done),
            Seen::FileSystem(mounting) => mount(&node, mounting, target, done),
        }
    }
}

/// Mounts the file system on a device.
pub(super) fn mount(node: &Path, mounting: &Mounting, target: &Path, done: &mut Done) -> Result<(), Fault> {
    Mounting { source: node.display().to_string(), ..mounting.clone() }.mount(target, done)
}

fn encrypt(node: &Path, done: &mut Done) -> Result<PathBuf, Fault> {
    let device = dm::encrypt(node).at(|| format!("encrypt {node:?}"))?;
    let encrypted = device.node();
    done.note(Step::Device(device));
    Ok(encrypted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(fstype: &str, options: &[&str], driver_options: &[&str]) -> Storage {
        let strings = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        Storage {
            driver: "mmioblk".into(),
            source: "/dev/vda".into(),
            fstype: fstype.into(),
            options: strings(options),
            driver_options: strings(driver_options),
            ..Default::default()
        }
    }

    #[test]
    fn a_volume_is_mounted_with_its_options() {
        let volume = Volume::plan(&storage("xfs", &["ro", "nouuid"], &[])).unwrap();
        assert_eq!(volume.fstype(), Some("xfs"));
        let Seen::FileSystem(mounting) = volume.seen else { panic!("{volume:?}") };
        assert_eq!((mounting.flags, mounting.data.as_str()), (MsFlags::MS_RDONLY, "nouuid"));
    }

    #[test]
    fn bind_means_the_device_itself() {
        let volume = Volume::plan(&storage("bind", &["bind", "ro"], &[])).unwrap();
        assert_eq!((volume.fstype(), &volume.seen), (None, &Seen::Node(MsFlags::MS_RDONLY)));
    }

    #[test]
    fn what_cannot_be_is_refused_by_the_name_of_its_field() {
        for (storage, field) in [
            (storage("ext4", &["loop"], &[]), "options"),
            (storage("", &[], &[]), "fstype"),
            (storage("xfs", &[], &["create_filesystem"]), "fstype"),
            (storage("ext4", &[], &["encryption_key=ephemeral"]), "driver_options"),
            (storage("ext4", &[], &["create_filesystem", "encryption_key=kbs:///x"]), "driver_options"),
            (Storage { source: "nowhere".into(), ..storage("ext4", &[], &[]) }, "source"),
        ] {
            assert_eq!(Volume::plan(&storage).unwrap_err().field, field, "{storage:?}");
        }
    }
}
