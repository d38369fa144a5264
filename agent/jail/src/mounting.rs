//! One mount of the plan, put in its place inside the container's root.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::child::{At, Fault};
use crate::plan::{BINDABLE_IN_PROC, Mount, MountOptions, Source};
use crate::sys::{self, attr};
use crate::{copy_up, inside, rootfs};

/// Attributes that may be added everywhere, also to mounts a user namespace has locked.
const ALWAYS: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW;

/// Mounts one. `prepared` is what the agent has made of its source, where it had to.
pub(crate) fn mount_one(
    root: &OwnedFd,
    mount: &Mount,
    prepared: Option<OwnedFd>,
    in_user_namespace: bool,
) -> Result<(), Fault> {
    match &mount.source {
        Source::Bind { path, recursive } => {
            let tree = match prepared {
                Some(tree) => tree,
                None => open_source(mount, path, *recursive)?,
            };
            bind(root, mount, path, &tree, in_user_namespace)
        }
        Source::FileSystem { fstype, source } if mount.options.remount => {
            remount(root, mount, fstype, source)
        }
        Source::FileSystem { fstype, source } => match new(root, mount, fstype, source) {
            // Without a cgroup namespace of the user namespace's own making, what the agent sees has to do.
            Err(fault)
                if fstype == "cgroup2" && in_user_namespace && fault.is(&[Errno::EPERM, Errno::EBUSY]) =>
            {
                let path = Path::new(crate::cgroup::ROOT);
                bind(root, mount, path, &open_source(mount, path, true)?, true)
            }
            other => other,
        },
    }
}

fn open_source(mount: &Mount, source: &Path, recursive: bool) -> Result<OwnedFd, Fault> {
    sys::clone_mount(AT_FDCWD, source, recursive)
        .at(|| format!("mount {source:?} at {:?}", mount.destination))
}

fn bind(
    root: &OwnedFd,
    mount: &Mount,
    source: &Path,
    tree: &OwnedFd,
    in_user_namespace: bool,
) -> Result<(), Fault> {
    let Mount { destination, options, .. } = mount;
    let what = || format!("mount {source:?} at {destination:?}");
    let directory = file_type(tree).at(what)? == SFlag::S_IFDIR;
    let target = if directory {
        inside::make_directories(root, destination)
    } else {
        inside::make_file(root, destination)
    };
    let target = target.at(what)?;
    refuse_proc(&target, destination)?;
    set_attributes(tree, options, in_user_namespace).at(what)?;
    sys::attach_mount(tree, &target).at(what)?;
    propagate(tree, options).at(what)
}

fn set_attributes(tree: &OwnedFd, options: &MountOptions, in_user_namespace: bool) -> Result<(), Errno> {
    for (set, clear, below) in
        [(options.set_below, options.clear_below, true), (options.set, options.clear, false)]
    {
        if set | clear == 0 {
            continue;
        }
        match sys::mount_setattr(tree, set, clear, 0, below) {
            // What the source's mount has, a user namespace may not take away; what it asks for in addition, it gets.
            Err(Errno::EPERM) if in_user_namespace => {
                sys::mount_setattr(tree, set & ALWAYS, 0, 0, below)?;
            }
            other => other?,
        }
    }
    Ok(())
}

fn new(root: &OwnedFd, mount: &Mount, fstype: &str, source: &str) -> Result<(), Fault> {
    let Mount { destination, options, .. } = mount;
    let what = || format!("mount {source:?} at {destination:?}");
    let target = inside::make_directories(root, destination).at(what)?;
    refuse_proc(&target, destination)?;
    let covered = if options.copy_up && fstype == "tmpfs" {
        Some(inside::open(root, destination, OFlag::O_RDONLY | OFlag::O_DIRECTORY).at(what)?)
    } else {
        None
    };
    // There is nothing below a fresh file system: what shall hold for all of it holds for its top.
    let mut open = options.clone();
    open.set |= options.set_below;
    if rootfs::sealed_late(mount) {
        open.set &= !attr::RDONLY;
    }
    let (flags, data) = open.for_mount();
    let (flags, data) = (MsFlags::from_bits_retain(flags as _), (!data.is_empty()).then_some(data.as_str()));
    nix::mount::mount(Some(source), &rootfs::path_of(&target), Some(fstype), flags, data).at(what)?;
    if let Some(covered) = covered {
        let fresh = inside::open(root, destination, OFlag::O_RDONLY | OFlag::O_DIRECTORY).at(what)?;
        copy_up::copy(&covered, &fresh).at(|| format!("copy up into {destination:?}"))?;
    }
    if options.propagation.is_empty() {
        return Ok(());
    }
    let top = inside::open(root, destination, OFlag::O_PATH).at(what)?;
    propagate(&top, options).at(what)
}

fn remount(root: &OwnedFd, of: &Mount, fstype: &str, source: &str) -> Result<(), Fault> {
    let Mount { destination, options, .. } = of;
    let what = || format!("remount {destination:?}");
    let top = inside::open(root, destination, OFlag::O_PATH).at(what)?;
    refuse_proc(&top, destination)?;
    let (flags, data) = options.for_mount();
    let flags = MsFlags::from_bits_retain(flags as _) | MsFlags::MS_REMOUNT;
    mount(Some(source), &rootfs::path_of(&top), Some(fstype), flags, Some(data.as_str())).at(what)
}

/// The plan looked at the words of the destination; this looks at where they lead. A link in the image may turn
/// `/data` into `/proc/sys`.
fn refuse_proc(target: &OwnedFd, destination: &Path) -> Result<(), Fault> {
    let harmless = destination == Path::new("/proc")
        || destination
            .strip_prefix("/proc")
            .is_ok_and(|inside| BINDABLE_IN_PROC.iter().any(|name| inside == Path::new(name)));
    let in_proc =
        fstatfs(target).at(|| format!("statfs {destination:?}"))?.filesystem_type() == PROC_SUPER_MAGIC;
    if in_proc && !harmless {
        return Err(Fault::refused(format!("mount at {destination:?}: leads into /proc")));
    }
    Ok(())
}

fn propagate(mount: &OwnedFd, options: &MountOptions) -> Result<(), Errno> {
    options
        .propagation
        .iter()
        .try_for_each(|&(propagation, below)| sys::mount_setattr(mount, 0, 0, propagation, below))
}

fn file_type(fd: impl AsFd) -> Result<SFlag, Errno> {
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT)
}
