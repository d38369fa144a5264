//! Devices as sysfs and `/dev` show them at this moment: lookups that wait for nothing.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::address::Address;

/// Where both are mounted; elsewhere in a test.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    sysfs: PathBuf,
    dev: PathBuf,
}

/// A device's node, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) path: PathBuf,
    pub(crate) is_block: bool,
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// More than one device is at an address.
#[derive(Debug, thiserror::Error)]
#[error("more than one SCSI host has it: {}", .0.join(", "))]
pub(crate) struct Ambiguous(Vec<String>);

impl Default for Tree {
    fn default() -> Self {
        Self { sysfs: PathBuf::from("/sys"), dev: PathBuf::from("/dev") }
    }
}

impl Tree {
    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { sysfs: root.join("sys"), dev: root.join("dev") }
    }

    pub(crate) fn sysfs(&self) -> &Path {
        &self.sysfs
    }

    pub(crate) fn dev(&self) -> &Path {
        &self.dev
    }

    /// The node of the block device at an address, if both are there. Whole disks only: a partition's directory is
    /// below that of its disk, and is not looked at.
    pub(crate) fn block(&self, address: &Address) -> Result<Option<Node>, Ambiguous> {
        let dir = match address {
            Address::Node(path) | Address::Pmem(path) => return Ok(self.node(path)),
            Address::Pci(path) => path.resolve(&self.sysfs).and_then(|device| disk_of_virtio(&device)),
            Address::Ccw(device) => disk_of_virtio(&self.sysfs.join("bus/ccw/devices").join(device)),
            Address::Scsi { id, lun } => self.scsi_disk(*id, *lun)?,
        };
        Ok(dir.and_then(|dir| self.node_of(&dir)))
    }

    /// The node of the device with this directory. The kernel makes the directory first, and the node a moment later.
    pub(crate) fn node_of(&self, dir: &Path) -> Option<Node> {
        let uevent = fs::read_to_string(dir.join("uevent")).ok()?;
        let value = |key: &str| {
            uevent
                .lines()
                .find_map(|line| line.split_once('=').filter(|(name, _)| *name == key))
                .map(|(_, v)| v)
        };
        let number = |key| value(key)?.parse::<u32>().ok();
        let node = self.node(&Path::new("/dev").join(value("DEVNAME")?))?;
        // A node that is left of another device is not this one's.
        (Some(node.major) == number("MAJOR") && Some(node.minor) == number("MINOR")).then_some(node)
    }

    /// The node at a path below `/dev`, if it is a device's.
    pub(crate) fn node(&self, path: &Path) -> Option<Node> {
        let metadata = fs::metadata(self.dev.join(path.strip_prefix("/dev").ok()?)).ok()?;
        let kind = metadata.file_type();
        (kind.is_block_device() || kind.is_char_device()).then(|| Node {
            path: path.to_path_buf(),
            is_block: kind.is_block_device(),
            major: major(metadata.rdev()) as u32,
            minor: minor(metadata.rdev()) as u32,
        })
    }

    /// The node of the disk with this serial number. The kernel reads one of 20 bytes and no more.
    pub(crate) fn disk_with_serial(&self, serial: &str) -> Option<PathBuf> {
        let disks = self.sysfs.join("block");
        let has_it = |disk: &String| {
            let found = fs::read_to_string(disks.join(disk).join("serial"));
            found.is_ok_and(|found| found.trim_end() == serial)
        };
        names(&disks).into_iter().find(has_it).map(|disk| Path::new("/dev").join(disk))
    }

    /// The node of a disk's partition. The kernel has read the table by the time it announces the disk.
    pub(crate) fn partition(&self, disk: &Path, number: u32) -> Option<PathBuf> {
        let dir = self.sysfs.join("block").join(disk.file_name()?);
        let is_it = |name: &String| {
            let found = fs::read_to_string(dir.join(name).join("partition"));
            found.is_ok_and(|found| found.trim().parse() == Ok(number))
        };
        names(&dir).into_iter().find(is_it).map(|name| Path::new("/dev").join(name))
    }

    /// Has every SCSI host look for a unit, as some only look when they are told to.
    pub(crate) fn scan_scsi(&self, id: u32, lun: u32) {
        let hosts = self.sysfs.join("class/scsi_host");
        for host in names(&hosts) {
            // A host may have no such channel, target or unit. If none has, the wait for the disk will tell.
            if let Err(error) = fs::write(hosts.join(&host).join("scan"), format!("0 {id} {lun}")) {
                tracing::debug!(host, id, lun, %error, "a SCSI host does not scan");
            }
        }
    }

    /// The interfaces of the network card with this directory.
    pub(crate) fn interface_of(&self, device: &Path) -> Option<String> {
        let virtio = names(device).into_iter().filter(|name| name.starts_with("virtio"));
        let mut places = virtio.map(|name| device.join(name)).chain([device.to_path_buf()]);
        places.find_map(|place| names(&place.join("net")).into_iter().next())
    }

    /// Brings a block of memory into use.
    pub(crate) fn online(&self, devpath: &str) -> io::Result<()> {
        fs::write(self.sysfs.join(devpath.trim_start_matches('/')).join("online"), "1")
    }

    /// Channel 0 is the only one that virtual hosts have. Which host it is the address does not say.
    fn scsi_disk(&self, id: u32, lun: u32) -> Result<Option<PathBuf>, Ambiguous> {
        let units = self.sysfs.join("bus/scsi/devices");
        let place = format!(":0:{id}:{lun}");
        let mut found: Vec<(String, PathBuf)> = names(&units)
            .into_iter()
            .filter(|name| name.strip_suffix(&place).is_some_and(|host| host.parse::<u32>().is_ok()))
            .filter_map(|name| {
                let disk = disk_in(&units.join(&name))?;
                Some((name, disk))
            })
            .collect();
        if found.len() > 1 {
            return Err(Ambiguous(found.into_iter().map(|(name, _)| name).collect()));
        }
        Ok(found.pop().map(|(_, disk)| disk))
    }
}

/// `<device>/virtioN/block/<disk>`.
fn disk_of_virtio(device: &Path) -> Option<PathBuf> {
    let mut parts = names(device).into_iter().filter(|name| name.starts_with("virtio"));
    parts.find_map(|part| disk_in(&device.join(part)))
}

/// `<device>/block/<disk>`.
fn disk_in(device: &Path) -> Option<PathBuf> {
    let block = device.join("block");
    names(&block).first().map(|disk| block.join(disk))
}

/// Names in a directory, sorted; none if it cannot be read.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}
