//! The container's root: made out of the agent's view of the file system, filled with mounts, then entered for good.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chroot, fchdir, getcwd, pivot_root};

use crate::child::{At, Child, Fault};
use crate::inside;
use crate::mounting;
use crate::plan::{Container, Source};
use crate::sys::{self, attr};

const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// From here on nothing mounted here is seen outside. What the agent mounts later may still be seen here, until the
/// old root is left.
pub(crate) fn stop_propagation(_: &mut Child) -> Result<(), Fault> {
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).at(|| "make mounts slaves")
}

/// Makes a root that `pivot_root` can leave.
///
/// An initramfs is the one mount that lies on nothing, and `pivot_root` refuses it. So a copy of the whole tree is laid
/// over it and entered, and what was mounted on the original is let go; then the container is left with its own
/// mounts and nothing else, the same as on any other root. (Moving the container's root over the initramfs instead
/// would keep every mount of the agent alive in the container's namespace.)
pub(crate) fn stack_root(child: &mut Child) -> Result<(), Fault> {
    if !container(child)?.stack_root {
        return Ok(());
    }
    let bottom = current()?;
    let copy = sys::clone_mount(&bottom, Path::new(""), true).at(|| "copy the mount tree")?;
    let points = std::fs::read_to_string("/proc/self/mountinfo").at(|| "read \"/proc/self/mountinfo\"")?;
    let points: Vec<PathBuf> = points.lines().filter_map(mount_point).collect();
    for point in points.iter().rev().filter(|point| *point != Path::new("/")) {
        // In a user namespace the original mounts are locked in place; then they stay, out of reach.
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
    sys::attach_mount(&copy, &bottom).at(|| "lay the copy over the root")?;
    fchdir(&copy).at(|| "enter the copy")?;
    chroot(".").at(|| "chroot into the copy")
}

/// Makes the root a mount of its own and opens it.
pub(crate) fn bind_root(child: &mut Child) -> Result<(), Fault> {
    let path = container(child)?.root.clone();
    let what = || format!("root {path:?}");
    let below = open(&path, DIRECTORY, Mode::empty()).at(what)?;
    let tree = sys::clone_mount(&below, Path::new(""), true).at(what)?;
    sys::attach_mount(&tree, &below).at(what)?;
    child.root = Some(tree);
    Ok(())
}

pub(crate) fn mount_all(child: &mut Child) -> Result<(), Fault> {
    let in_user_namespace = child.plan.namespaces.contains(crate::plan::NamespaceKind::User);
    let mut mapped = std::mem::take(&mut child.mapped);
    let root = root(child)?;
    for mount in &container(child)?.mounts {
        let prepared = if mount.owners.is_some() { mapped.pop_front() } else { None };
        mounting::mount_one(root, mount, prepared, in_user_namespace)?;
    }
    Ok(())
}

/// Makes the container's root the root, and lets go of everything else.
pub(crate) fn pivot(child: &mut Child) -> Result<(), Fault> {
    let root = root(child)?;
    fchdir(root).at(|| "enter the root")?;
    // The old root ends up on top of the new one, at the same place; so "." is what has to go.
    pivot_root(".", ".").at(|| "pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).at(|| "let go of the old root")?;
    nix::unistd::chdir("/").at(|| "enter the new root")?;
    if let Some((propagation, below)) = container(child)?.propagation {
        sys::mount_setattr(root, 0, 0, propagation, below).at(|| "root propagation")?;
    }
    Ok(())
}

/// Makes read-only what had to be written to until now.
pub(crate) fn seal(child: &mut Child) -> Result<(), Fault> {
    let container = container(child)?;
    let root = root(child)?;
    for mount in container.mounts.iter().filter(|mount| sealed_late(mount)) {
        let what = || format!("make {:?} read-only", mount.destination);
        let fd = inside::open(root, &mount.destination, OFlag::O_PATH).at(what)?;
        sys::mount_setattr(&fd, attr::RDONLY, 0, 0, false).at(what)?;
    }
    if container.readonly_root {
        sys::mount_setattr(root, attr::RDONLY, 0, 0, false).at(|| "make the root read-only")?;
    }
    Ok(())
}

/// Whether a mount only becomes read-only at the end: mount points are still made in it.
pub(crate) fn sealed_late(mount: &crate::plan::Mount) -> bool {
    let fresh = matches!(&mount.source, Source::FileSystem { fstype, .. } if fstype == "tmpfs");
    let all = mount.options.set | mount.options.set_below;
    fresh && !mount.options.remount && all & attr::RDONLY != 0
}

pub(crate) fn make_and_enter_cwd(child: &mut Child) -> Result<(), Fault> {
    let cwd = &child.plan.process.cwd;
    inside::make_directories(root(child)?, cwd).at(|| format!("cwd {cwd:?}"))?;
    enter_cwd(child)
}

pub(crate) fn enter_cwd(child: &mut Child) -> Result<(), Fault> {
    let cwd = &child.plan.process.cwd;
    let what = || format!("cwd {cwd:?}");
    let fd = inside::open(root(child)?, cwd, OFlag::O_PATH | OFlag::O_DIRECTORY).at(what)?;
    fchdir(&fd).at(what)?;
    // The kernel says "(unreachable)" of a directory outside the root.
    match getcwd() {
        Ok(at) if at.is_absolute() => Ok(()),
        Ok(_) | Err(Errno::ENOENT) => Err(Fault::refused(format!("cwd {cwd:?}: outside the container"))),
        Err(errno) => Err(Fault::new(what(), errno)),
    }
}

/// The root directory of this process.
pub(crate) fn current() -> Result<OwnedFd, Fault> {
    open("/", DIRECTORY, Mode::empty()).at(|| "open \"/\"")
}

/// The path by which `mount(2)` reaches what a descriptor refers to. Only while the agent's `/proc` is in sight.
pub(crate) fn path_of(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

pub(crate) fn root(child: &Child) -> Result<&OwnedFd, Fault> {
    child.root.as_ref().ok_or_else(|| Fault::refused("the root is not open"))
}

pub(crate) fn container(child: &Child) -> Result<&Container, Fault> {
    child.plan.container.as_ref().ok_or_else(|| Fault::refused("not the plan of a container"))
}

/// The fifth word of a mountinfo line, in which blanks and their like are octal numbers.
fn mount_point(line: &str) -> Option<PathBuf> {
    let word = line.split(' ').nth(4)?.as_bytes();
    let mut out = Vec::with_capacity(word.len());
    let mut at = 0;
    while at < word.len() {
        let octal = word.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if word[at] == b'\\' => {
                out.push(byte);
                at += 4;
            }
            _ => {
                out.push(word[at]);
                at += 1;
            }
        }
    }
    Some(PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(out)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_with_a_blank() {
        let line = r"36 35 98:0 /mnt1 /mnt\040two\134x rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some("/mnt two\\x".into()));
        assert_eq!(mount_point("too short"), None);
    }
}
