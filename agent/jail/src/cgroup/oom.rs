//! Hearing of the kernel's kills for lack of memory.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Cgroup, CgroupError, Result, stats};

/// A descriptor that becomes ready when the kernel may have killed in a cgroup, and the count of kills to look at then.
///
/// With version 2 the descriptor is `memory.events`, which has an exceptional condition (`POLLPRI`) after a change until
/// it is read. With version 1 it is an eventfd, readable from the moment the kernel ran out of memory: the count may
/// be right a moment later.
#[derive(Debug)]
pub struct OomWatch {
    source: Source,
    cgroup: Cgroup,
}

#[derive(Debug)]
enum Source {
    Events(File),
    Notifier(EventFd),
}

impl OomWatch {
    pub(super) fn new(cgroup: &Cgroup) -> Result<OomWatch> {
        let file = if cgroup.is_v2() { "memory.events" } else { "memory.oom_control" };
        let path = cgroup.tree.file(&cgroup.path, file)?;
        let fail = |source: std::io::Error| CgroupError::File {
            action: "watch".to_owned(),
            path: path.clone(),
            source,
        };
        let control = File::open(&path).map_err(fail)?;
        let source = if cgroup.is_v2() {
            Source::Events(control)
        } else {
            let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
            let notifier = EventFd::from_flags(flags).map_err(|errno| fail(errno.into()))?;
            let line = format!("{} {}", notifier.as_fd().as_raw_fd(), control.as_raw_fd());
            // The kernel keeps what it needs of both.
            let registrar = cgroup.tree.file(&cgroup.path, "memory.oom_control")?;
            super::write_file(&registrar.with_file_name("cgroup.event_control"), &line)?;
            Source::Notifier(notifier)
        };
        Ok(OomWatch { source, cgroup: cgroup.clone() })
    }

    /// Whether to wait for an exceptional condition, and not for something to read.
    pub fn is_exceptional(&self) -> bool {
        matches!(self.source, Source::Events(_))
    }

    /// How often the kernel has killed so far. Makes the descriptor unready until the next time.
    pub fn kills(&self) -> Result<u64> {
        match &self.source {
            Source::Events(file) => {
                let mut text = String::new();
                let mut file: &File = file;
                file.rewind().and_then(|()| file.read_to_string(&mut text)).map_err(|source| {
                    CgroupError::File {
                        action: "read".to_owned(),
                        path: self.cgroup.path.join("memory.events"),
                        source,
                    }
                })?;
                Ok(stats::field(&text, "oom_kill").unwrap_or(0))
            }
            Source::Notifier(notifier) => {
                // EAGAIN: nothing had happened.
                let _ = notifier.read();
                self.cgroup.oom_kills()
            }
        }
    }

    /// Whether any process is left that could be killed.
    pub fn populated(&self) -> bool {
        self.cgroup.populated().unwrap_or(false)
    }
}

impl AsRawFd for OomWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::Events(file) => file.as_fd(),
            Source::Notifier(notifier) => notifier.as_fd(),
        }
    }
}
