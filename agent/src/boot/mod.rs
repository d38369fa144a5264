//! What PID 1 does before it serves: the mounts, devices and settings of a Linux guest, as a list of named steps.
//!
//! The first few come before the settings can be read, the rest depends on them. Under another init system all of this
//! is that system's job and none of it runs, but for [`protect_binary`].
//!
//! What is left out on purpose: `hidepid` on `/proc`, because a container sees a mount of its own, in a pid namespace
//! of its own; and a controlling terminal for the agent, because all that it could bring is signals.

mod hardening;
mod mounts;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::{fs, io};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, umask};

use crate::config::Config;
use crate::sys;

/// A step of the boot that failed.
#[derive(Debug, thiserror::Error)]
#[error("boot: {step}: {source}")]
pub(crate) struct Error {
    step: &'static str,
    source: io::Error,
}

/// The steps before the settings are read. A guest with a failing step is of no use, so the first failure ends it.
pub(crate) fn begin() -> Result<(), Error> {
    step("reset umask", reset_umask)?;
    step("mount kernel file systems", mounts::kernel_file_systems)
}

/// The steps after that.
pub(crate) fn finish(config: &Config) -> Result<(), Error> {
    step("mount cgroups", || mounts::cgroups(config.wants_cgroup_v1()))?;
    step("link devices", link_devices)?;
    step("link /var/run", link_var_run)?;
    step("harden the kernel", || hardening::apply(Path::new("/proc/sys"), config.dev_mode))?;
    step("open a session", open_session)?;
    step("set hostname", set_hostname)?;
    step("bring loopback up", sys::loopback_up)
}

/// Any step: what is done, and doing it.
pub(crate) fn step(step: &'static str, action: impl FnOnce() -> io::Result<()>) -> Result<(), Error> {
    action().map_err(|source| Error { step, source })?;
    crate::timeline::stamp(step);
    Ok(())
}

fn reset_umask() -> io::Result<()> {
    umask(Mode::from_bits_truncate(0o022));
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

/// The kernel starts PID 1 in session 0, which is no session: whatever asks for its own would be told so.
fn open_session() -> io::Result<()> {
    match nix::unistd::setsid() {
        // It leads one already.
        Ok(_) | Err(nix::Error::EPERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn set_hostname() -> io::Result<()> {
    let name = fs::read_to_string("/etc/hostname").unwrap_or_default();
    let name = name.lines().next().map(str::trim).filter(|name| !name.is_empty()).unwrap_or("localhost");
    Ok(nix::unistd::sethostname(name)?)
}

/// Where the jail is started from: a read-only view of our own binary.
///
/// A process that joins a container can be reached through `/proc/PID/exe` before it execs the workload. Through a
/// read-only mount nobody gets a writable handle on the agent that way (the class of CVE-2019-5736).
pub(crate) const AGENT_BINARY: &str = "/run/husk/agent";

/// Makes that view, in the place of one that an earlier agent left. It needs the right to mount.
pub(crate) fn protect_binary() -> io::Result<()> {
    let target = Path::new(AGENT_BINARY);
    fs::create_dir_all("/run/husk")?;
    match umount2(target, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    fs::write(target, "")?;
    let none = None::<&str>;
    mount(Some("/proc/self/exe"), target, none, MsFlags::MS_BIND, none)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(none, target, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags, none)?;
    Ok(())
}

/// Takes it away again, for an agent that ends before its guest does.
pub(crate) fn unprotect_binary() {
    let _ = umount2(AGENT_BINARY, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(AGENT_BINARY);
}
