//! The system calls that have no safe wrapper: descriptors for a child, its death with us, pidfds, the KVM probe.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The first number a passed descriptor gets in a child.
pub(crate) const FIRST_PASSED_FD: RawFd = 10;

/// Prepares `command` so that its child dies with us and finds `fds` at [`FIRST_PASSED_FD`] and up.
///
/// The death signal is tied to the thread that forks, so that thread must live as long as the process:
/// see [`crate::process`].
pub(crate) fn bind_child(command: &mut Command, fds: Vec<OwnedFd>) {
    let parent = std::process::id() as libc::pid_t;
    let hook = move || {
        // SAFETY: prctl with PR_SET_PDEATHSIG reads plain integers and touches no memory.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // A parent that died before the call above sends nothing any more.
        // SAFETY: getppid takes no argument and cannot fail.
        if unsafe { libc::getppid() } != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // Two passes: a source may itself have one of the target numbers.
        let above = FIRST_PASSED_FD + fds.len() as RawFd;
        let mut parked: [RawFd; MAX_PASSED] = [-1; MAX_PASSED];
        for (slot, fd) in parked.iter_mut().zip(&fds) {
            // SAFETY: fcntl with F_DUPFD_CLOEXEC copies a descriptor we own; no memory is touched.
            *slot = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, above) };
            if *slot < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for (at, slot) in parked.iter().take(fds.len()).enumerate() {
            // SAFETY: dup2 works on numbers; the target range holds nothing the child still needs.
            if unsafe { libc::dup2(*slot, FIRST_PASSED_FD + at as RawFd) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the hook runs between fork and exec; it makes system calls only, allocates nothing and takes no lock
    // (an io::Error made of an errno allocates nothing either).
    unsafe { command.pre_exec(hook) };
}

/// The most descriptors [`bind_child`] passes.
pub(crate) const MAX_PASSED: usize = 8;

/// A descriptor that becomes readable when the child `pid` exits.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

// Not plain numbers: POWER marks a request without an argument by a bit of its own.
const KVM_GET_API_VERSION: libc::c_ulong = nix::request_code_none!(0xae, 0x00);
const KVM_CREATE_VM: libc::c_ulong = nix::request_code_none!(0xae, 0x01);

/// Whether `/dev/kvm` speaks the one stable version of its interface and gives us a VM.
pub(crate) fn kvm_creates_a_vm(kvm: &File) -> bool {
    // SAFETY: this ioctl takes no argument and returns an integer.
    if unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_GET_API_VERSION, 0) } != 12 {
        return false;
    }
    // SAFETY: the argument is the machine type, an integer; the result is a new descriptor or -1.
    let vm = unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_CREATE_VM, 0) };
    if vm < 0 {
        return false;
    }
    // SAFETY: the kernel just gave us this descriptor; owning it closes it.
    drop(unsafe { OwnedFd::from_raw_fd(vm) });
    true
}

/// Rows and columns of the terminal behind `fd`.
pub(crate) fn window_size(fd: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize, for which the pointer has room.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((size.ws_row, size.ws_col))
}

/// Registers a descriptor with tokio, to be awaited for reading.
pub(crate) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, keeps its number and description until it is dropped, and the AsyncFd owns it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
