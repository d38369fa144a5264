//! A process that does nothing, to hold a cgroup until there is somebody to live in it.
//!
//! It is the agent's own binary, which waits for the end of its standard input: also that of the agent itself.

use std::io::{self, Read as _};
use std::process::{ChildStdin, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::boot::AGENT_BINARY;
use crate::reaper::{Exit, Reaper};

/// The first argument with which the agent's binary must call [`hold`].
pub(crate) const ARGUMENT: &str = "hold";

/// A placeholder. Dropped, it goes.
pub(super) struct Placeholder {
    pid: i32,
    exit: Exit,
    _stdin: Option<ChildStdin>,
}

impl Placeholder {
    pub(super) fn start(reaper: &Reaper) -> io::Result<Self> {
        let mut command = Command::new(AGENT_BINARY);
        command.arg(ARGUMENT).env_clear().current_dir("/");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // Nothing is awaited between these two, so that the end cannot be collected before it is watched for.
        let pid = child.id() as i32;
        Ok(Self { pid, exit: reaper.watch(pid), _stdin: child.stdin.take() })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        // As long as nobody has collected it, its number is its own.
        if self.exit.status().is_none() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

/// What the placeholder does.
pub(crate) fn hold() -> io::Result<()> {
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}
