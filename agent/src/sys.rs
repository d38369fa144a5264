//! The agent's only unsafe code: ioctls for which nix has no safe call.
#![allow(unsafe_code)]

pub(crate) mod dm;
mod identity;
pub(crate) mod netlink;
mod readable;
pub(crate) mod resize;
mod session;
pub(crate) mod swap;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::libc;
use nix::pty::Winsize;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(crate) use identity::{add_entropy, set_hardware_address};
pub(crate) use readable::readable_bytes;
pub(crate) use session::own_terminal;

nix::ioctl_write_ptr_bad!(
    /// Sets a terminal's window size (tty_ioctl(4), TIOCSWINSZ).
    tiocswinsz,
    libc::TIOCSWINSZ,
    Winsize
);
nix::ioctl_read_bad!(
    /// Reads an interface's flags by its name (netdevice(7), SIOCGIFFLAGS).
    siocgifflags,
    libc::SIOCGIFFLAGS,
    libc::ifreq
);
nix::ioctl_write_ptr_bad!(
    /// Sets an interface's flags by its name (netdevice(7), SIOCSIFFLAGS).
    siocsifflags,
    libc::SIOCSIFFLAGS,
    libc::ifreq
);

/// A descriptor whose readiness the event loop watches: a [`File`], an [`OwnedFd`], a [`jail::Control`] and so on.
pub(crate) fn watch<T: Watchable>(fd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: each Watchable type owns one descriptor, which it neither closes nor replaces before it is dropped.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

/// The same, for one kind of readiness only.
pub(crate) fn watch_for<T: Watchable>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: as above.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

/// Types that own one descriptor for as long as they live, and always the same.
pub(crate) trait Watchable: AsRawFd {}
impl Watchable for File {}
impl Watchable for OwnedFd {}
impl Watchable for jail::Control {}
impl Watchable for jail::cgroup::OomWatch {}

/// Sets the window size of the terminal behind `master`.
pub(crate) fn set_window_size(master: BorrowedFd<'_>, rows: u16, columns: u16) -> nix::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open for the call, and `size` is the structure TIOCSWINSZ reads.
    unsafe { tiocswinsz(master.as_raw_fd(), &raw const size) }?;
    Ok(())
}

/// Brings the loopback interface up.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: ifreq is a plain C structure for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the socket is open, and `request` names an interface and has room for the flags that come back.
    unsafe { siocgifflags(fd, &raw mut request) }?;
    // SAFETY: SIOCGIFFLAGS has just filled the `ifru_flags` member of the union.
    unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
    // SAFETY: the socket is open, and `request` names an interface and holds its new flags.
    unsafe { siocsifflags(fd, &raw const request) }?;
    Ok(())
}

/// Sends a signal to the process behind a pidfd, and to no other that might have got its number since
/// (pidfd_send_signal(2)).
pub(crate) fn signal_process(pidfd: BorrowedFd<'_>, signal: i32) -> nix::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open for the call, and a null siginfo asks the kernel to fill in its own.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0_u32) };
    nix::errno::Errno::result(result).map(drop)
}
