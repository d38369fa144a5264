//! The clone: one new process, born into its namespaces and its cgroup, that executes a program.
//!
//! A user namespace that exists already cannot be entered by a thread of a threaded program. Then a process in between
//! enters it and clones the new one as its own sibling, so that this too is a direct child of the caller.

use std::ffi::CStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;

use super::{Result, SYS_CLOSE_RANGE};

const SYS_CLONE3: libc::c_long = 435;

const CLONE_FILES: u64 = 0x400;
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_NEWUSER: libc::c_int = 0x1000_0000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// What the cloned child needs; prepared before the clone, because it may not allocate.
pub(crate) struct Launch<'a> {
    /// `CLONE_NEW*` flags.
    pub(crate) namespaces: u64,
    /// An existing user namespace to be born into.
    pub(crate) user_namespace: Option<BorrowedFd<'a>>,
    /// The cgroup directory to start in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// The descriptors the child keeps, as 0, 1, 2 and so on. None of them may have one of these numbers already, nor
    /// one below [`FIRST_FREE_FD`].
    pub(crate) fds: &'a [BorrowedFd<'a>],
    /// The read end of the pipe on which one byte releases the child.
    pub(crate) release: BorrowedFd<'a>,
    /// Whether to become root of the new user namespace before executing.
    pub(crate) become_root: bool,
    /// What to execute, with what.
    pub(crate) exe: &'a CStr,
    pub(crate) argv: &'a [&'a CStr],
}

/// Descriptors below this number belong to the child's fixed layout.
pub(crate) const FIRST_FREE_FD: RawFd = 16;

/// Clones a child that waits to be released and then executes `launch.exe` with an empty environment.
pub(crate) fn clone_and_exec(launch: &Launch<'_>) -> Result<(i32, OwnedFd)> {
    // No handler of ours may run in the child: block everything around the clone. The child executes with all
    // signals blocked and the new program unblocks them.
    let blocked = nix::sys::signal::SigSet::all();
    let before = blocked.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
    let outcome = match launch.user_namespace {
        // SAFETY: the caller of `born` must be prepared to be copied with its memory as it is; we are.
        None => unsafe { born(launch, libc::SIGCHLD as u64, 0) },
        Some(namespace) => born_through(launch, namespace),
    };
    before.thread_set_mask()?;
    let (pid, pidfd) = outcome?;
    // SAFETY: the kernel made it for us when the clone succeeded, and nobody else owns it.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// The clone itself: the number and the pidfd of the child, which never returns from here.
///
/// # Safety
///
/// The child is a copy of a possibly threaded process: between here and its exec it makes system calls only, allocates
/// nothing and takes no lock. The caller makes no other demand on it.
unsafe fn born(launch: &Launch<'_>, exit_signal: u64, more: u64) -> Result<(i32, RawFd)> {
    let mut argv = [std::ptr::null::<libc::c_char>(); 8];
    for (slot, arg) in argv.iter_mut().zip(launch.argv.iter().take(7)) {
        *slot = arg.as_ptr();
    }
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: launch.namespaces | CLONE_PIDFD | CLONE_CLEAR_SIGHAND | more,
        pidfd: &raw mut pidfd as u64,
        exit_signal,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = launch.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: args is a valid clone_args of the size passed, with no stack: the child continues on a copy of this
    // stack, like fork. `pidfd` outlives the call.
    let pid = unsafe { libc::syscall(SYS_CLONE3, &raw mut args, size_of::<CloneArgs>()) };
    if pid == 0 {
        // SAFETY: we are the child, and `child` keeps what was promised of it.
        unsafe { child(launch, &argv) }
    }
    Errno::result(pid).map(|pid| (pid as i32, pidfd))
}

/// By way of a process that enters `namespace` first. It shares our table of descriptors, so that the pidfd it gets is
/// ours, and tells us its number through a pipe.
fn born_through(launch: &Launch<'_>, namespace: BorrowedFd<'_>) -> Result<(i32, RawFd)> {
    let (answer, teller) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: the child makes system calls on prepared memory only, and does not come back.
    let between = unsafe { fork(CLONE_FILES, libc::SIGCHLD)? };
    if between == 0 {
        // SAFETY: as said; `born` makes the same promise.
        unsafe {
            let entered = Errno::result(libc::setns(namespace.as_raw_fd(), CLONE_NEWUSER));
            // A sibling has the signal of this process, which is SIGCHLD; to name one again is an error.
            let words = match entered.and_then(|_| born(launch, 0, CLONE_PARENT)) {
                Ok((_, pidfd)) => [0, pidfd],
                Err(errno) => [errno as i32, -1],
            };
            libc::write(teller.as_raw_fd(), words.as_ptr().cast(), size_of_val(&words));
            libc::_exit(0)
        }
    }
    // Nobody else can have collected it: this thread is the one that collects. And not before it has ended is the pipe
    // closed, which is its own end too.
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(between), None);
    drop(teller);
    let mut bytes = [0_u8; 8];
    let read = File::from(answer).read_exact(&mut bytes);
    let [errno, pidfd] =
        [0, 4].map(|at| i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
    match (read, errno) {
        (Err(_), _) => Err(Errno::ECHILD),
        (Ok(()), 0) => Ok((number_of(pidfd)?, pidfd)),
        (Ok(()), errno) => Err(Errno::from_raw(errno)),
    }
}

/// A child that goes on from here on a copy of this stack; 0 in the child.
///
/// # Safety
///
/// The child is a copy of a possibly threaded process: it may make system calls only, and must end by `_exit`.
pub(super) unsafe fn fork(flags: u64, exit_signal: libc::c_int) -> Result<i32> {
    let mut args = CloneArgs { flags, exit_signal: exit_signal as u64, ..CloneArgs::default() };
    // SAFETY: args is a valid clone_args of the size passed, with no stack; the rest is the caller's promise.
    let pid = unsafe { libc::syscall(SYS_CLONE3, &raw mut args, size_of::<CloneArgs>()) };
    Errno::result(pid).map(|pid| pid as i32)
}

/// The number of a process in our pid namespace, by its pidfd. The process in between may have been in another one.
fn number_of(pidfd: RawFd) -> Result<i32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{pidfd}"))
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    number.filter(|number| *number > 0).ok_or(Errno::ESRCH)
}

/// The child between clone and exec. Exit code 125 means that this part failed; nobody else exits with it before
/// the first report.
unsafe fn child(launch: &Launch<'_>, argv: &[*const libc::c_char; 8]) -> ! {
    // SAFETY: plain system calls on descriptors and memory that were prepared by the parent and copied by clone.
    unsafe {
        let mut byte = 0_u8;
        if libc::read(launch.release.as_raw_fd(), (&raw mut byte).cast(), 1) != 1 {
            libc::_exit(125);
        }
        let mut next: libc::c_int = 0;
        for fd in launch.fds {
            if libc::dup3(fd.as_raw_fd(), next, 0) < 0 {
                libc::_exit(125);
            }
            next += 1;
        }
        libc::syscall(SYS_CLOSE_RANGE, next as libc::c_uint, libc::c_uint::MAX, 0);
        if launch.become_root
            && (libc::syscall(libc::SYS_setresgid, 0, 0, 0) != 0
                || libc::syscall(libc::SYS_setresuid, 0, 0, 0) != 0)
        {
            libc::_exit(125);
        }
        let envp: [*const libc::c_char; 1] = [std::ptr::null()];
        libc::execve(launch.exe.as_ptr(), argv.as_ptr(), envp.as_ptr());
        libc::_exit(125)
    }
}
