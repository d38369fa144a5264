//! The system calls that neither std nor nix wraps, each behind a safe function, and the only `unsafe` of the crate.
//!
//! Numbers above 423 are the same on every architecture; libc does not name all of them for every musl target, so
//! they are named here.
#![allow(unsafe_code)]

pub(crate) mod bpf;
mod clone;
mod id_map;
mod limits;

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

pub(crate) use clone::{FIRST_FREE_FD, Launch, clone_and_exec};
pub(crate) use id_map::user_namespace;
pub(crate) use limits::{
    set_io_priority, set_memory_policy, set_personality, set_processors, set_scheduler, set_seccomp,
};

type Result<T> = std::result::Result<T, Errno>;

const SYS_OPEN_TREE: libc::c_long = 428;
const SYS_MOVE_MOUNT: libc::c_long = 429;
const SYS_PIDFD_OPEN: libc::c_long = 434;
const SYS_CLOSE_RANGE: libc::c_long = 436;
const SYS_OPENAT2: libc::c_long = 437;
const SYS_MOUNT_SETATTR: libc::c_long = 442;

const OPEN_TREE_CLONE: libc::c_uint = 1;
const AT_RECURSIVE: libc::c_uint = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;

/// `mount_setattr(2)` attributes that have no `MS_` twin.
pub(crate) mod attr {
    pub(crate) const RDONLY: u64 = 0x1;
    pub(crate) const NOSUID: u64 = 0x2;
    pub(crate) const NODEV: u64 = 0x4;
    pub(crate) const NOEXEC: u64 = 0x8;
    pub(crate) const ATIME: u64 = 0x70;
    pub(crate) const RELATIME: u64 = 0x0;
    pub(crate) const NOATIME: u64 = 0x10;
    pub(crate) const STRICTATIME: u64 = 0x20;
    pub(crate) const NODIRATIME: u64 = 0x80;
    pub(crate) const NOSYMFOLLOW: u64 = 0x0020_0000;
    pub(super) const IDMAP: u64 = 0x0010_0000;
}

/// How far `openat2(2)` may walk.
pub(crate) mod resolve {
    pub(crate) const NO_MAGICLINKS: u64 = 0x02;
    pub(crate) const NO_SYMLINKS: u64 = 0x04;
    pub(crate) const BENEATH: u64 = 0x08;
    pub(crate) const IN_ROOT: u64 = 0x10;
}

/// Sets one resource limit of another process.
pub(crate) fn set_rlimit_of(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = [soft, hard];
    // SAFETY: the kernel reads two u64 (struct rlimit64) and is given no place to write the old limit.
    let done = unsafe {
        libc::syscall(libc::SYS_prlimit64, pid, resource, limit.as_ptr(), std::ptr::null_mut::<u64>())
    };
    Errno::result(done).map(drop)
}

/// Opens `path` below `root` as if `root` were the root directory: neither symbolic links nor `..` lead out of it.
pub(crate) fn openat2(root: impl AsFd, path: &Path, flags: i32, mode: u32, resolve: u64) -> Result<OwnedFd> {
    let how = [u64::from((flags | libc::O_CLOEXEC) as u32), u64::from(mode), resolve];
    let path = c_path(path)?;
    // SAFETY: `how` is the kernel's struct open_how (three u64) and `path` is NUL-terminated; both outlive the call.
    let fd = unsafe {
        libc::syscall(SYS_OPENAT2, root.as_fd().as_raw_fd(), path.as_ptr(), how.as_ptr(), size_of_val(&how))
    };
    // SAFETY: on success the call returns a new descriptor that nobody else owns.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A detached copy of the mount (with everything below it if `recursive`) that `path` lies on, rooted at `path`.
pub(crate) fn clone_mount(dir: impl AsFd, path: &Path, recursive: bool) -> Result<OwnedFd> {
    let path = c_path(path)?;
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | libc::AT_EMPTY_PATH as libc::c_uint;
    if recursive {
        flags |= AT_RECURSIVE;
    }
    // SAFETY: `path` is NUL-terminated and outlives the call.
    let fd = unsafe { libc::syscall(SYS_OPEN_TREE, dir.as_fd().as_raw_fd(), path.as_ptr(), flags) };
    // SAFETY: on success the call returns a new descriptor that nobody else owns.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Whether something is mounted at the very place `fd` refers to.
pub(crate) fn is_mount_root(fd: impl AsFd) -> Result<bool> {
    const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;
    // struct statx is 256 bytes, of which the second eight are the attributes.
    let mut statx = [0_u64; 32];
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the path is an empty C string, and the buffer is as long as the structure.
    let done = unsafe {
        libc::syscall(libc::SYS_statx, fd, c"".as_ptr(), libc::AT_EMPTY_PATH, 0, statx.as_mut_ptr())
    };
    Errno::result(done)?;
    Ok(statx[1] & STATX_ATTR_MOUNT_ROOT != 0)
}

/// Attaches the detached mount `tree` on what `target` refers to.
pub(crate) fn attach_mount(tree: impl AsFd, target: impl AsFd) -> Result<()> {
    // SAFETY: both paths are empty C strings; the flags say that the descriptors themselves are meant.
    let done = unsafe {
        libc::syscall(
            SYS_MOVE_MOUNT,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            target.as_fd().as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    Errno::result(done).map(drop)
}

/// Changes attributes and propagation of the mount whose root `fd` refers to.
pub(crate) fn mount_setattr(
    fd: impl AsFd,
    set: u64,
    clear: u64,
    propagation: u64,
    recursive: bool,
) -> Result<()> {
    set_mount_attributes(fd, [set, clear, propagation, 0], recursive)
}

/// Shows the files of a detached mount as owned by whom the id maps of a user namespace say.
pub(crate) fn map_owners(mount: impl AsFd, namespace: impl AsFd, recursive: bool) -> Result<()> {
    let namespace = namespace.as_fd().as_raw_fd() as u64;
    set_mount_attributes(mount, [attr::IDMAP, 0, 0, namespace], recursive)
}

fn set_mount_attributes(fd: impl AsFd, attributes: [u64; 4], recursive: bool) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH as libc::c_uint | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `attributes` is the kernel's struct mount_attr (four u64) of the size passed.
    let done = unsafe {
        libc::syscall(
            SYS_MOUNT_SETATTR,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    Errno::result(done).map(drop)
}

/// A descriptor that becomes readable when a child ends.
pub(crate) fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: takes integers only.
    let fd = unsafe { libc::syscall(SYS_PIDFD_OPEN, pid, 0) };
    // SAFETY: on success the call returns a new descriptor that nobody else owns.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Marks every descriptor from `first` up as close-on-exec.
pub(crate) fn cloexec_from(first: RawFd) -> Result<()> {
    // SAFETY: changes descriptor flags only; closes nothing.
    let done = unsafe {
        libc::syscall(SYS_CLOSE_RANGE, first as libc::c_uint, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC)
    };
    Errno::result(done).map(drop)
}

/// Takes over a descriptor that the clone laid out for us.
///
/// Must be called once per number, early in the process that [`clone_and_exec`] started.
pub(crate) fn inherited(fd: RawFd) -> Result<OwnedFd> {
    nix::fcntl::fcntl(
        // SAFETY: only borrowed for the call; a closed number gives EBADF, which is returned.
        unsafe { BorrowedFd::borrow_raw(fd) },
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
    )?;
    // SAFETY: it is open (just checked) and, by the contract above, nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens the other side of the terminal `master`, without any path.
pub(crate) fn terminal_slave(master: &OwnedFd) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes the open flags by value and returns a new descriptor.
    let fd = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags) };
    // SAFETY: on success the call returns a new descriptor that nobody else owns.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets the other side of the terminal `master` be opened.
pub(crate) fn unlock_terminal(master: &OwnedFd) -> Result<()> {
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const unlocked) })
        .map(drop)
}

/// Makes the terminal on `fd` the controlling terminal of this session.
pub(crate) fn take_terminal(fd: impl AsFd) -> Result<()> {
    // SAFETY: TIOCSCTTY takes one integer by value.
    Errno::result(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCSCTTY as _, 0) }).map(drop)
}

/// Sets the size of a terminal.
pub(crate) fn set_terminal_size(fd: impl AsFd, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one struct winsize.
    Errno::result(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) })
        .map(drop)
}

/// Puts every signal back to its default disposition and unblocks all of them.
pub(crate) fn default_signals() -> Result<()> {
    // Not by way of the libc, which keeps two of them for itself and leaves those ignored if they were.
    let default = [0_u64; 8];
    for signal in 1..=64 {
        // SAFETY: all zeroes is SIG_DFL without flags in every architecture's struct sigaction, none of which is
        // longer than this; the kernel is given no place to write the old one. SIGKILL and SIGSTOP are refused.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null_mut::<u64>(), 8);
        }
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()
}

/// Puts `fd` in the place of standard stream `number`.
pub(crate) fn set_stdio(fd: impl AsFd, number: RawFd) -> Result<()> {
    // SAFETY: replaces 0, 1 or 2, which no OwnedFd of this crate owns.
    Errno::result(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) }).map(drop)
}

/// Forbids this process core dumps and `ptrace`, so that the container cannot reach into it before it is a program
/// of the container.
pub(crate) fn set_undumpable() -> Result<()> {
    // SAFETY: PR_SET_DUMPABLE takes integers only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }).map(drop)
}

/// Sets the NIS domain name of the current uts namespace.
pub(crate) fn set_domainname(name: &str) -> Result<()> {
    // SAFETY: pointer and length describe one live string.
    Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Takes over the descriptors of one received message; the first one is kept, a sender has no business with more.
pub(crate) fn received(fds: Vec<RawFd>) -> Option<OwnedFd> {
    // SAFETY: recvmsg just created these descriptors for us, and each is wrapped exactly once.
    let mut owned =
        fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect::<Vec<_>>().into_iter();
    owned.next()
}

/// Owns the descriptor that F_DUPFD_CLOEXEC just returned.
pub(crate) fn fresh(fd: RawFd) -> OwnedFd {
    // SAFETY: called with the result of F_DUPFD_CLOEXEC only, which nobody else owns yet.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn c_path(path: &Path) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}
