//! Swap.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _};

use nix::errno::Errno;
use nix::libc;

/// Swaps to the disk or file that is open (swapon(2)).
pub(crate) fn swap_on(target: impl AsFd) -> nix::Result<()> {
    let path =
        CString::new(format!("/proc/self/fd/{}", target.as_fd().as_raw_fd())).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the path is a string that ends in a zero byte and outlives the call.
    Errno::result(unsafe { libc::swapon(path.as_ptr(), 0) }).map(drop)
}
