//! Device nodes of a container: the six that every container has, then those of the spec.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{PlanError, inner_path};
use crate::oci::{Linux, LinuxDeviceType};

/// The kind of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where, inside the container.
    pub path: PathBuf,
    /// What.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

pub(super) fn of_spec(linux: Option<&Linux>) -> Result<Vec<Device>, PlanError> {
    let mut out: Vec<Device> = DEFAULTS
        .iter()
        .map(|&(path, major, minor)| Device {
            path: PathBuf::from(path),
            kind: DeviceKind::Char,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .collect();
    for device in linux.and_then(|linux| linux.devices().as_ref()).into_iter().flatten() {
        let path = inner_path("device", device.path())?;
        // The agent makes the terminal's own: `/dev/ptmx` is a link into the container's devpts, `/dev/console` the
        // container's terminal.
        if path == Path::new("/dev/ptmx") || path == Path::new("/dev/console") {
            continue;
        }
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Char,
            LinuxDeviceType::B => DeviceKind::Block,
            LinuxDeviceType::P => DeviceKind::Fifo,
            LinuxDeviceType::A => {
                return Err(PlanError::Unsupported { what: "device of type", value: "a".to_owned() });
            }
        };
        let number = |value: i64| {
            u32::try_from(value)
                .map_err(|_| PlanError::Unsupported { what: "device number", value: value.to_string() })
        };
        let device = Device {
            path,
            kind,
            major: number(device.major())?,
            minor: number(device.minor())?,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        };
        out.retain(|known| known.path != device.path);
        out.push(device);
    }
    Ok(out)
}
