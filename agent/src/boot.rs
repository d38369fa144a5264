//! What PID 1 does before it serves: the mounts, devices and settings of a Linux guest, as one list of named steps.
//!
//! Under another init system all of this is that system's job and none of it runs.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::{fs, io};

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, umask};

use crate::sys;

/// A step of the boot that failed.
#[derive(Debug, thiserror::Error)]
#[error("boot: {step}: {source}")]
pub(crate) struct Error {
    step: &'static str,
    source: io::Error,
}

/// Boots the guest, step by step. A guest with a failing step is of no use, so the first failure ends it.
pub(crate) fn run() -> Result<(), Error> {
    for (step, action) in STEPS {
        action().map_err(|source| Error { step, source })?;
        crate::timeline::stamp(step);
    }
    Ok(())
}

type Step = (&'static str, fn() -> io::Result<()>);

const STEPS: &[Step] = &[
    ("reset umask", reset_umask),
    ("mount kernel file systems", mount_kernel_file_systems),
    ("link devices", link_devices),
    ("link /var/run", link_var_run),
    ("protect the agent's binary", protect_binary),
    ("set hostname", set_hostname),
    ("bring loopback up", sys::loopback_up),
];

fn reset_umask() -> io::Result<()> {
    umask(Mode::from_bits_truncate(0o022));
    Ok(())
}

/// One line of the mount table.
struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    data: &'static str,
}

const NOSUID: MsFlags = MsFlags::MS_NOSUID;
const NODEV: MsFlags = MsFlags::MS_NODEV;
const NOEXEC: MsFlags = MsFlags::MS_NOEXEC;
const RELATIME: MsFlags = MsFlags::MS_RELATIME;

/// In the order they are mounted.
const MOUNTS: &[Mount] = &[
    Mount { kind: "proc", target: "/proc", flags: NOSUID.union(NODEV).union(NOEXEC), data: "" },
    Mount { kind: "sysfs", target: "/sys", flags: NOSUID.union(NODEV).union(NOEXEC), data: "" },
    Mount { kind: "devtmpfs", target: "/dev", flags: NOSUID, data: "" },
    Mount { kind: "tmpfs", target: "/dev/shm", flags: NOSUID.union(NODEV), data: "" },
    Mount {
        kind: "devpts",
        target: "/dev/pts",
        flags: NOSUID.union(NOEXEC),
        data: "gid=5,mode=620,ptmxmode=666",
    },
    Mount { kind: "tmpfs", target: "/run", flags: NOSUID.union(NODEV), data: "mode=755" },
    Mount { kind: "tmpfs", target: "/tmp", flags: NOSUID.union(NODEV), data: "mode=1777" },
    Mount {
        kind: "cgroup2",
        target: "/sys/fs/cgroup",
        flags: NOSUID.union(NODEV).union(NOEXEC).union(RELATIME),
        data: "nsdelegate",
    },
];

fn mount_kernel_file_systems() -> io::Result<()> {
    for entry in MOUNTS {
        fs::create_dir_all(entry.target)?;
        let data = (!entry.data.is_empty()).then_some(entry.data);
        match mount(Some(entry.kind), entry.target, Some(entry.kind), entry.flags, data) {
            // The kernel mounts devtmpfs itself when it boots from a block device.
            Ok(()) | Err(nix::Error::EBUSY) => {}
            Err(error) => return Err(io::Error::other(format!("{}: {error}", entry.target))),
        }
    }
    Ok(())
}

fn link_devices() -> io::Result<()> {
    const LINKS: &[(&str, &str)] = &[
        ("pts/ptmx", "/dev/ptmx"),
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ];
    for (target, link) in LINKS {
        match fs::remove_file(link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => symlink(target, link)?,
        }
    }
    Ok(())
}

/// The same directory under its old name, which is the one that contracts spell: `/var/run/cdi`, `/var/run/sandbox-ns`.
/// An image that cannot be written to has its own.
fn link_var_run() -> io::Result<()> {
    fs::create_dir_all("/var").and_then(|()| symlink("/run", "/var/run")).or_else(|error| {
        match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::ReadOnlyFilesystem => Ok(()),
            _ => Err(error),
        }
    })
}

/// Where the jail is started from: a read-only view of our own binary.
///
/// A process that joins a container can be reached through `/proc/PID/exe` before it execs the workload. Through a
/// read-only mount nobody gets a writable handle on the agent that way (the class of CVE-2019-5736).
pub(crate) const AGENT_BINARY: &str = "/run/husk/agent";

fn protect_binary() -> io::Result<()> {
    let target = Path::new(AGENT_BINARY);
    fs::create_dir_all("/run/husk")?;
    fs::write(target, "")?;
    let none = None::<&str>;
    mount(Some("/proc/self/exe"), target, none, MsFlags::MS_BIND, none)?;
    mount(
        none,
        target,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | NOSUID | NODEV,
        none,
    )?;
    Ok(())
}

fn set_hostname() -> io::Result<()> {
    let name = fs::read_to_string("/etc/hostname").unwrap_or_default();
    let name = name.lines().next().map(str::trim).filter(|name| !name.is_empty()).unwrap_or("localhost");
    Ok(nix::unistd::sethostname(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_never_hides_an_earlier_one() {
        for (index, later) in MOUNTS.iter().enumerate() {
            for earlier in &MOUNTS[..index] {
                assert!(
                    !Path::new(earlier.target).starts_with(later.target),
                    "{} hides {}",
                    later.target,
                    earlier.target
                );
            }
        }
    }
}
