//! What can go wrong with a cgroup.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use super::{ROOT, systemd};

/// What went wrong with which file.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A path that leads out of the tree, or is the tree's root, or the agent's own.
    #[error("cgroup: path {0:?} is not below the cgroup tree")]
    Path(PathBuf),
    /// No cgroup tree is mounted.
    #[error("cgroup: nothing is mounted at {ROOT}")]
    NoTree,
    /// A file could not be read or written.
    #[error("cgroup: {action} {path:?}: {source}")]
    File {
        /// `read`, `write "50" to`, `create`, `remove`.
        action: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A limit that cannot be.
    #[error("cgroup: {what}: {value}")]
    Limit {
        /// Which.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// systemd did not do what it was asked for.
    #[error(transparent)]
    Systemd(systemd::Error),
    /// The kernel cannot hold processes off devices.
    #[error("cgroup: device rules of {path:?}: {step}: {source}")]
    Devices {
        /// The cgroup.
        path: PathBuf,
        /// `load the program`, `attach the program`.
        step: &'static str,
        /// Why.
        source: Errno,
    },
    /// The kernel did not do in time what it was asked for.
    #[error("cgroup: {path:?}: not {what} after {after:?}")]
    Deadline {
        /// The cgroup.
        path: PathBuf,
        /// `empty`, `frozen`, `removed`.
        what: &'static str,
        /// How long it was given.
        after: Duration,
    },
}

impl CgroupError {
    /// Whether a file, and with it its controller or the cgroup, is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, CgroupError::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the kernel was built without what device rules need.
    pub fn is_without_device_rules(&self) -> bool {
        const ABSENT: [Errno; 3] = [Errno::ENOSYS, Errno::EINVAL, Errno::EPERM];
        match self {
            CgroupError::Devices { source, .. } => ABSENT.contains(source),
            error => error.is_missing(),
        }
    }
}
