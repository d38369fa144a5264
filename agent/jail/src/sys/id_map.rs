//! A user namespace that nobody is in: the form in which the kernel takes the id maps of a mount.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::libc;

/// Makes one with these maps, in the form of `/proc/PID/uid_map`.
pub(crate) fn user_namespace(uids: &str, gids: &str) -> io::Result<OwnedFd> {
    let (wait, release) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    // Without a signal at its end it is nobody's business but ours: only who asks for such children collects it.
    // SAFETY: the child makes three system calls on descriptors it has a copy of, the last of which ends it.
    let pid = unsafe { super::clone::fork(libc::CLONE_NEWUSER as u64, 0)? };
    if pid == 0 {
        // SAFETY: as said.
        unsafe {
            let mut byte = 0_u8;
            libc::close(release.as_raw_fd());
            libc::read(wait.as_raw_fd(), (&raw mut byte).cast(), 1);
            libc::_exit(0)
        }
    }
    let write = |file: &str, text: &str| {
        File::options().write(true).open(format!("/proc/{pid}/{file}"))?.write_all(text.as_bytes())
    };
    let made = write("uid_map", uids)
        .and_then(|()| write("gid_map", gids))
        .and_then(|()| File::open(format!("/proc/{pid}/ns/user")));
    drop(release);
    // SAFETY: `__WALL` finds children without a signal too; no status is asked for.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) };
    made.map(OwnedFd::from)
}
