//! The user's terminal: its size, and raw mode that is always undone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::sys;

/// The terminal on stdin in raw mode, until dropped.
#[derive(Debug)]
pub(crate) struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Raw mode for the terminal on stdin; `None` if stdin is something else.
    pub(crate) fn enter() -> io::Result<Option<RawMode>> {
        let terminal = io::stdin().as_fd().try_clone_to_owned()?;
        let Ok(before) = tcgetattr(&terminal) else { return Ok(None) };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSADRAIN, &raw)?;
        Ok(Some(RawMode { terminal, before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}

/// Rows and columns of whichever of stdin and stdout is a terminal.
pub(crate) fn size() -> Option<(u16, u16)> {
    let of = |fd: std::os::fd::BorrowedFd<'_>| {
        sys::window_size(fd).ok().filter(|(rows, columns)| *rows > 0 && *columns > 0)
    };
    of(io::stdin().as_fd()).or_else(|| of(io::stdout().as_fd()))
}
