//! What a container finds in `/dev`: its device nodes and the links every program expects.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat, makedev, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};

use crate::child::{At, Child, Fault};
use crate::inside;
use crate::plan::{Device, DeviceKind};
use crate::rootfs::{container, root};
use crate::sys;

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

pub(crate) fn make_devices(child: &mut Child) -> Result<(), Fault> {
    let container = container(child)?;
    for device in &container.devices {
        let made = if container.bind_devices && device.kind != DeviceKind::Fifo {
            bind(root(child)?, device)
        } else {
            make(root(child)?, device)
        };
        made.at(|| format!("device {:?} {}:{}", device.path, device.major, device.minor))?;
    }
    Ok(())
}

pub(crate) fn make_links(child: &mut Child) -> Result<(), Fault> {
    if !container(child)?.device_links {
        return Ok(());
    }
    let dev = inside::make_directories(root(child)?, Path::new("/dev")).at(|| "directory \"/dev\"")?;
    for (target, name) in LINKS {
        link(&dev, target, name).at(|| format!("link \"/dev/{name}\""))?;
    }
    if Path::new("/proc/kcore").exists() {
        link(&dev, "/proc/kcore", "core").at(|| "link \"/dev/core\"")?;
    }
    Ok(())
}

fn make(root: &OwnedFd, device: &Device) -> Result<(), Errno> {
    let (directory, name) = inside::make_parent(root, &device.path)?;
    let kind = match device.kind {
        DeviceKind::Char => SFlag::S_IFCHR,
        DeviceKind::Block => SFlag::S_IFBLK,
        DeviceKind::Fifo => SFlag::S_IFIFO,
    };
    let number = match device.kind {
        DeviceKind::Fifo => 0,
        _ => makedev(u64::from(device.major) as _, u64::from(device.minor) as _),
    };
    let mode = Mode::from_bits_truncate(device.mode);
    match mknodat(&directory, name, kind, mode, number) {
        Err(Errno::EEXIST) => {
            let there = fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            let same = SFlag::from_bits_truncate(there.st_mode) & SFlag::S_IFMT == kind
                && (there.st_rdev == number || device.kind == DeviceKind::Fifo);
            if !same {
                // An image may ship a stale node, or a plain file that a program once wrote to.
                unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir)?;
                mknodat(&directory, name, kind, mode, number)?;
            }
        }
        other => other?,
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    fchownat(&directory, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    // The node is no link: it was just made or just looked at, and nobody else is in here yet.
    fchmodat(&directory, name, mode, FchmodatFlags::FollowSymlink)
}

/// In a user namespace nodes cannot be made, and would not open if they could; the agent's own are shown instead.
fn bind(root: &OwnedFd, device: &Device) -> Result<(), Errno> {
    let tree = sys::clone_mount(AT_FDCWD, &device.path, false)?;
    let target = inside::make_file(root, &device.path)?;
    sys::attach_mount(&tree, &target)
}

fn link(dev: impl AsFd, target: &str, name: &str) -> Result<(), Errno> {
    match symlinkat(target, dev.as_fd(), name) {
        Err(Errno::EEXIST) => {
            let there = nix::fcntl::readlinkat(dev.as_fd(), name);
            if there.is_ok_and(|there| there == target) {
                return Ok(());
            }
            unlinkat(dev.as_fd(), name, UnlinkatFlags::NoRemoveDir)?;
            symlinkat(target, dev, name)
        }
        other => other,
    }
}
