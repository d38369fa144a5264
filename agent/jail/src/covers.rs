//! Paths that a container shall not see, and paths it shall not write to.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{SFlag, fstat};

use crate::child::{At, Child, Fault};
use crate::inside;
use crate::rootfs::{container, path_of, root};
use crate::sys::{self, attr};

/// A directory is covered by an empty read-only one, anything else by the agent's `/dev/null`. What is not there needs
/// no cover.
pub(crate) fn mask(child: &mut Child) -> Result<(), Fault> {
    for path in &container(child)?.masked_paths {
        mask_one(root(child)?, path).at(|| format!("mask {path:?}"))?;
    }
    Ok(())
}

pub(crate) fn protect(child: &mut Child) -> Result<(), Fault> {
    for path in &container(child)?.readonly_paths {
        protect_one(root(child)?, path).at(|| format!("make {path:?} read-only"))?;
    }
    Ok(())
}

fn mask_one(root: &OwnedFd, path: &Path) -> Result<(), Errno> {
    let Some(target) = find(root, path)? else { return Ok(()) };
    if SFlag::from_bits_truncate(fstat(&target)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        return mount(
            Some("tmpfs"),
            &path_of(&target),
            Some("tmpfs"),
            flags,
            Some("size=0,nr_inodes=1,mode=755"),
        );
    }
    let null = sys::clone_mount(AT_FDCWD, Path::new("/dev/null"), false)?;
    sys::attach_mount(&null, &target)
}

fn protect_one(root: &OwnedFd, path: &Path) -> Result<(), Errno> {
    let Some(target) = find(root, path)? else { return Ok(()) };
    let tree = sys::clone_mount(&target, Path::new(""), true)?;
    sys::mount_setattr(&tree, attr::RDONLY, 0, 0, true)?;
    sys::attach_mount(&tree, &target)
}

fn find(root: &OwnedFd, path: &Path) -> Result<Option<OwnedFd>, Errno> {
    match inside::open(root, path, OFlag::O_PATH) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        other => other.map(Some),
    }
}
