//! What a child does between its fork and its exec to have a terminal.

use std::io;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;

/// Has a command start in a session of its own, with what is its stdin as the controlling terminal, whoever had that
/// before.
pub(crate) fn own_terminal(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    let session = || -> io::Result<()> {
        nix::unistd::setsid()?;
        // SAFETY: TIOCSCTTY takes one integer by value, and descriptor 0 is open by now.
        Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY as _, 1) })?;
        Ok(())
    };
    // SAFETY: both are system calls that may be made between fork and exec; nothing is allocated and no lock taken.
    unsafe { command.pre_exec(session) };
}
