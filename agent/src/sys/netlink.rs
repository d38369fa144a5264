//! Options of netlink sockets that nix does not name.

use std::os::fd::{AsFd, AsRawFd as _};

use nix::errno::Errno;
use nix::libc;

/// Asks for errors in words, without the request they are about (netlink(7)).
pub(crate) fn explain_errors(socket: impl AsFd) -> nix::Result<()> {
    let fd = socket.as_fd();
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        let on: libc::c_int = 1;
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the descriptor is open for the call, and the kernel reads one integer, which outlives the call.
        let result = unsafe {
            libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), size)
        };
        Errno::result(result)?;
    }
    Ok(())
}
