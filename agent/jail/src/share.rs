//! A mount of one container, shown in another one: copied out of the mount namespace of the first and attached in that of
//! the second. Paths are followed as each container sees them.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::{inside, sys};

/// A detached copy of what is mounted at `path` in the container of a process, with all below; `None` while nothing is.
///
/// Waits for the container's file systems to answer, so call it on a thread that may wait.
pub fn clone_mount_of(process: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>, Errno> {
    visit(process, |root| {
        let top = match inside::open(&root, path, OFlag::O_PATH) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            other => other?,
        };
        if !sys::is_mount_root(&top)? {
            return Ok(None);
        }
        sys::clone_mount(&top, Path::new(""), true).map(Some)
    })
}

/// Attaches a detached mount at `path` in the container of a process, where a place for it is made if there is none.
pub fn attach_mount_in(process: BorrowedFd<'_>, tree: &OwnedFd, path: &Path) -> Result<(), Errno> {
    visit(process, |root| {
        let kind = SFlag::from_bits_truncate(fstat(tree)?.st_mode) & SFlag::S_IFMT;
        let target = match kind {
            SFlag::S_IFDIR => inside::make_directories(&root, path)?,
            _ => inside::make_file(&root, path)?,
        };
        sys::attach_mount(tree, &target)
    })
}

/// On a thread of its own: the mount namespace it enters, and the root directory that comes with it, are its own too.
fn visit<T: Send>(
    process: BorrowedFd<'_>,
    work: impl FnOnce(OwnedFd) -> Result<T, Errno> + Send,
) -> Result<T, Errno> {
    let process = File::from(process.try_clone_to_owned().map_err(|_| Errno::EMFILE)?);
    std::thread::scope(|scope| {
        let visitor = scope.spawn(move || {
            unshare(CloneFlags::CLONE_FS)?;
            setns(process.as_fd(), CloneFlags::CLONE_NEWNS)?;
            work(open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
        });
        visitor.join().unwrap_or(Err(Errno::EIO))
    })
}
