//! How a host names a block device of its guest.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use super::pci::{BadPci, PciPath};

/// Where a block device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// virtio-blk behind PCI.
    Pci(PciPath),
    /// A node of a known name, as on machines whose few devices are found in a fixed order.
    Node(PathBuf),
    /// virtio-blk behind a channel subsystem: `0.0.0005`.
    Ccw(String),
    /// Target and unit on whichever SCSI host has them.
    Scsi { id: u32, lun: u32 },
    /// Persistent memory: `/dev/pmem0`.
    Pmem(PathBuf),
}

/// A text that is no address, or a driver that has none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadAddress {
    #[error("{0:?} is not a driver of block devices")]
    Driver(String),
    #[error(transparent)]
    Pci(#[from] BadPci),
    #[error("{driver} address {text:.64?}: {reason}")]
    Text { driver: &'static str, text: String, reason: &'static str },
}

impl Address {
    /// The address that a driver, of a device or of a storage, means by a source.
    pub(crate) fn of(driver: &str, source: &str) -> Result<Self, BadAddress> {
        match driver {
            "blk" if source.starts_with('/') => node("blk", source).map(Self::Node),
            "blk" => Ok(Self::Pci(source.parse()?)),
            "mmioblk" => node("mmioblk", source).map(Self::Node),
            "nvdimm" => {
                let path = node("nvdimm", source)?;
                let number = source.strip_prefix("/dev/pmem").unwrap_or_default();
                let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
                plain.then_some(Self::Pmem(path)).ok_or_else(|| bad("nvdimm", source, "it is not /dev/pmemN"))
            }
            "blk-ccw" => ccw(source),
            "scsi" => scsi(source),
            other => Err(BadAddress::Driver(other.chars().take(64).collect())),
        }
    }
}

/// A plain path below `/dev`.
fn node(driver: &'static str, source: &str) -> Result<PathBuf, BadAddress> {
    let below = Path::new(source).strip_prefix("/dev");
    let plain = below.is_ok_and(|below| {
        below.components().count() > 0 && below.components().all(|part| matches!(part, Component::Normal(_)))
    });
    if plain && !source.contains('\0') {
        Ok(PathBuf::from(source))
    } else {
        Err(bad(driver, source, "it is not a path below /dev"))
    }
}

/// `0.d.xxxx`: the channel subsystem that Linux has, the subchannel set, the device number.
fn ccw(source: &str) -> Result<Address, BadAddress> {
    let parts: Vec<&str> = source.split('.').take(4).collect();
    let hex = |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match parts[..] {
        ["0", set @ ("0" | "1" | "2" | "3"), device] if hex(device, 4) => {
            Ok(Address::Ccw(format!("0.{set}.{}", device.to_ascii_lowercase())))
        }
        _ => Err(bad("blk-ccw", source, "it is not of the form 0.d.xxxx")),
    }
}

/// `<id>:<lun>`, in decimal.
fn scsi(source: &str) -> Result<Address, BadAddress> {
    let number = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse().ok()).flatten()
    };
    let read = || {
        let (id, lun) = source.split_once(':')?;
        Some(Address::Scsi { id: number(id)?, lun: number(lun)? })
    };
    read().ok_or_else(|| bad("scsi", source, "it is not of the form <id>:<lun>, in decimal"))
}

fn bad(driver: &'static str, text: &str, reason: &'static str) -> BadAddress {
    BadAddress::Text { driver, text: text.chars().take(64).collect(), reason }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(path) => write!(f, "disk at PCI path {path}"),
            Self::Node(path) | Self::Pmem(path) => write!(f, "disk {}", path.display()),
            Self::Ccw(device) => write!(f, "disk at CCW address {device}"),
            Self::Scsi { id, lun } => write!(f, "disk at SCSI address {id}:{lun}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_driver_has_its_form() {
        let of = |driver, source| Address::of(driver, source).unwrap();
        assert_eq!(of("blk", "02/01"), Address::Pci("02/01".parse().unwrap()));
        assert_eq!(of("blk", "/dev/vda"), Address::Node("/dev/vda".into()));
        assert_eq!(of("mmioblk", "/dev/vdb"), Address::Node("/dev/vdb".into()));
        assert_eq!(of("blk-ccw", "0.0.00AF"), Address::Ccw("0.0.00af".into()));
        assert_eq!(of("scsi", "0:12"), Address::Scsi { id: 0, lun: 12 });
        assert_eq!(of("nvdimm", "/dev/pmem1"), Address::Pmem("/dev/pmem1".into()));
    }

    #[test]
    fn other_forms_are_refused_by_name() {
        for (driver, source) in [
            ("blk", ""),
            ("blk", "/etc/passwd"),
            ("blk", "/dev/../etc/passwd"),
            ("blk", "/dev"),
            ("mmioblk", "vda"),
            ("mmioblk", ""),
            ("mmioblk", "/dev/vda\0"),
            ("nvdimm", "/dev/pmem"),
            ("nvdimm", "/dev/pmem0p1"),
            ("nvdimm", "/dev/vda"),
            ("blk-ccw", "1.0.0001"),
            ("blk-ccw", "0.4.0001"),
            ("blk-ccw", "0.0.1"),
            ("blk-ccw", "0.0.0001.0"),
            ("scsi", "0"),
            ("scsi", "0:-1"),
            ("scsi", "+0:1"),
            ("scsi", "0:1:2"),
            ("scsi", ":"),
            ("scsi", "0:4294967296"),
        ] {
            assert!(Address::of(driver, source).is_err(), "{driver} {source:?}");
        }
        let error = Address::of("floppy", "0").unwrap_err().to_string();
        assert!(error.contains("floppy"), "{error}");
    }
}
