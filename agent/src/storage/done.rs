//! What was done for a storage, step by step, so that it can be undone backwards: after a failure half-way, and when
//! the last reference goes.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::huge_pages::Pool;
use super::point;
use super::watch::Watch;
use crate::dm;

/// The steps, in the order in which they were taken.
#[derive(Default)]
pub(super) struct Done(Vec<Step>);

/// One thing that was made.
pub(super) enum Step {
    /// A directory, which may have got others in it since; then it stays.
    Directory(PathBuf),
    /// An empty file.
    File(PathBuf),
    /// A file or a directory with all that is in it.
    Tree(PathBuf),
    /// A mount.
    Mount(PathBuf),
    /// Huge pages that were added to the kernel's pool.
    HugePages(Pool),
    /// A device mapper device.
    Device(dm::Device),
    /// A copy that is kept up to date.
    Watch(Watch),
}

impl Done {
    pub(super) fn note(&mut self, step: Step) {
        self.0.push(step);
    }

    /// Undoes everything, the last step first. What cannot be undone is said, and the rest is undone all the same.
    /// Returns the directories that had others in them.
    #[must_use]
    pub(super) fn undo(self) -> Vec<PathBuf> {
        self.0.into_iter().rev().filter_map(Step::undo).collect()
    }
}

impl Step {
    /// Returns a directory that is not empty.
    fn undo(self) -> Option<PathBuf> {
        let (what, result) = match self {
            Step::Directory(path) => return (!remove_directory(&path)).then_some(path),
            Step::File(path) => (path.clone(), remove(&path, UnlinkatFlags::NoRemoveDir)),
            Step::Tree(path) => (path.clone(), remove_tree(&path)),
            Step::Mount(path) => (path.clone(), unmount(&path)),
            Step::HugePages(pool) => (pool.path(), pool.give_back()),
            Step::Device(device) => (device.node(), device.remove()),
            Step::Watch(watch) => {
                watch.stop();
                return None;
            }
        };
        if let Err(error) = result {
            tracing::warn!(what = %what.display(), %error, "not undone");
        }
        None
    }
}

/// Takes the topmost mount at `path` away, and what is mounted below it. Who still has files open there keeps them.
pub(super) fn unmount(path: &Path) -> io::Result<()> {
    let (parent, name) = parent(path)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd())).join(name);
    match umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // It went with something else.
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes a directory. Returns false if it is not empty, and true if it is gone or stays for another reason: it may lie
/// in a share that takes no changes.
pub(super) fn remove_directory(path: &Path) -> bool {
    let removed = remove(path, UnlinkatFlags::RemoveDir);
    !removed.is_err_and(|error| error.kind() == io::ErrorKind::DirectoryNotEmpty)
}

fn remove(path: &Path, flags: UnlinkatFlags) -> io::Result<()> {
    let (parent, name) = parent(path)?;
    match unlinkat(&parent, name, flags) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes what is at `path`, with all that is in it. Only in the agent's own tmpfs; the standard library follows no link
/// on its way down.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The directory `path` lies in, reached without a link, and its last name.
fn parent(path: &Path) -> io::Result<(OwnedFd, &Path)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    Ok((point::open(parent)?, Path::new(name)))
}
