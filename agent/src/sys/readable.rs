//! How much can be read of a pipe or a terminal.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

nix::ioctl_read_bad!(
    /// Reads how many bytes wait to be read (ioctl_tty(2), FIONREAD; pipe(7)).
    fionread,
    libc::FIONREAD,
    libc::c_int
);

/// How many bytes wait to be read, as far as the kernel knows.
pub(crate) fn readable_bytes(fd: BorrowedFd<'_>) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: the descriptor is open for the call, and `count` has room for the integer that FIONREAD writes.
    let known = unsafe { fionread(fd.as_raw_fd(), &raw mut count) };
    known.ok().and_then(|_| usize::try_from(count).ok()).unwrap_or(0)
}
