//! One process of a container: its identity, its streams and its end.
//!
//! A [`Process`] outlives the kernel's process: it stays in its container's [`Table`] with its streams readable until
//! one caller was told its exit status.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use jail::ChildIo;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

use crate::reaper::Exit;
use crate::stream::{Channel, Input, Output};

/// A process the agent started in a container.
pub(crate) struct Process {
    pid: i32,
    pidfd: OwnedFd,
    /// When it ends, and how.
    pub(crate) exit: Exit,
    /// Its standard streams.
    pub(crate) streams: Streams,
}

/// The agent's ends of a process's standard streams.
pub(crate) struct Streams {
    pub(crate) stdin: Input,
    pub(crate) stdout: Output,
    /// `None` with a terminal, which has one output.
    pub(crate) stderr: Option<Output>,
    /// The terminal's master.
    pub(crate) terminal: Option<Channel>,
}

impl Streams {
    /// Pipes for a process without a terminal, and the ends the process gets.
    pub(crate) fn pipes(size: Option<u32>) -> io::Result<(Self, ChildIo<'static>)> {
        let (stdin, our_stdin) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (our_stdout, stdout) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (our_stderr, stderr) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        if let Some(size) = size {
            for pipe in [&our_stdout, &our_stderr] {
                fcntl(pipe, FcntlArg::F_SETPIPE_SZ(size as i32))?;
            }
        }
        let streams = Self {
            stdin: Input::pipe(Channel::new(our_stdin)?),
            stdout: Output::new(Channel::new(our_stdout)?),
            stderr: Some(Output::new(Channel::new(our_stderr)?)),
            terminal: None,
        };
        let io =
            ChildIo { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr), ..ChildIo::default() };
        Ok((streams, io))
    }

    /// The streams of a process whose terminal has this master.
    pub(crate) fn terminal(master: OwnedFd) -> io::Result<Self> {
        let channel = Channel::new(master)?;
        Ok(Self {
            stdin: Input::terminal(channel.clone()),
            stdout: Output::new(channel.clone()),
            stderr: None,
            terminal: Some(channel),
        })
    }
}

impl Process {
    pub(crate) fn new(pid: i32, pidfd: OwnedFd, exit: Exit, streams: Streams) -> Self {
        Self { pid, pidfd, exit, streams }
    }

    /// The process's number in the guest.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// A handle on the process, for those that join it.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends a signal. A process that has ended is no error: what the caller wanted has happened.
    pub(crate) fn signal(&self, signal: i32) -> nix::Result<()> {
        match crate::sys::signal_process(self.pidfd(), signal) {
            Err(Errno::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// Sends a signal to the first process of a container.
    ///
    /// The kernel drops a signal to the first process of a pid namespace unless that process handles it, so SIGTERM
    /// would do nothing to most programs. Where it would do nothing, SIGKILL is what the caller meant.
    pub(crate) fn signal_init(&self, signal: i32) -> nix::Result<()> {
        let hopeless = signal == libc::SIGTERM
            && std::fs::read_to_string(format!("/proc/{}/status", self.pid))
                .is_ok_and(|status| !minds_signal(&status, signal));
        self.signal(if hopeless { libc::SIGKILL } else { signal })
    }
}

/// Whether a process blocks, ignores or catches a signal, by its `/proc/PID/status` (proc_pid_status(5)).
fn minds_signal(status: &str, signal: i32) -> bool {
    let bit = 1_u64 << (signal - 1);
    status.lines().any(|line| {
        ["SigBlk:", "SigIgn:", "SigCgt:"].iter().any(|key| {
            let mask = line.strip_prefix(key).and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            mask.is_some_and(|mask| mask & bit != 0)
        })
    })
}

/// The processes of one container, by the id their callers chose.
#[derive(Default)]
pub(crate) struct Table(Mutex<HashMap<String, Slot>>);

/// An id that is taken.
enum Slot {
    /// Its process is being started.
    Reserved,
    Process(Arc<Process>),
}

/// The id of a container's first process, whatever its callers call it.
pub(crate) const INIT: &str = "";

/// An id is in use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("process {0:?}: the id is in use")]
pub(crate) struct IdInUse(pub(crate) String);

impl Table {
    /// Takes an id for a process that is about to be started. A guard gives it back unless a process fills it.
    pub(crate) fn reserve(self: &Arc<Self>, id: &str) -> Result<Reservation, IdInUse> {
        let mut slots = self.slots();
        if slots.contains_key(id) {
            return Err(IdInUse(id.to_string()));
        }
        slots.insert(id.to_string(), Slot::Reserved);
        Ok(Reservation { table: self.clone(), id: id.to_string(), filled: false })
    }

    /// The process with an id.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Process>> {
        match self.slots().get(id)? {
            Slot::Process(process) => Some(process.clone()),
            Slot::Reserved => None,
        }
    }

    /// Every process.
    pub(crate) fn all(&self) -> Vec<Arc<Process>> {
        let slots = self.slots();
        let processes = slots.values().filter_map(|slot| match slot {
            Slot::Process(process) => Some(process.clone()),
            Slot::Reserved => None,
        });
        processes.collect()
    }

    /// Forgets an ended process, whose status somebody has been told.
    pub(crate) fn forget(&self, id: &str, process: &Arc<Process>) {
        let mut slots = self.slots();
        if matches!(slots.get(id), Some(Slot::Process(current)) if Arc::ptr_eq(current, process)) {
            slots.remove(id);
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// An id that waits for its process.
pub(crate) struct Reservation {
    table: Arc<Table>,
    id: String,
    filled: bool,
}

impl Reservation {
    /// The process with this id has started.
    pub(crate) fn fill(mut self, process: Arc<Process>) {
        self.table.slots().insert(self.id.clone(), Slot::Process(process));
        self.filled = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.filled {
            self.table.slots().remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_minded_when_blocked_ignored_or_caught() {
        let status = |blocked: u64, ignored: u64, caught: u64| {
            format!("Name:\tsh\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n")
        };
        let term = 1 << (libc::SIGTERM - 1);
        assert!(!minds_signal(&status(0, 0, 0), libc::SIGTERM));
        assert!(!minds_signal(&status(!term, !term, !term), libc::SIGTERM));
        assert!(minds_signal(&status(term, 0, 0), libc::SIGTERM));
        assert!(minds_signal(&status(0, term, 0), libc::SIGTERM));
        assert!(minds_signal(&status(0, 0, term), libc::SIGTERM));
    }

    #[test]
    fn an_id_is_taken_while_its_process_starts_and_free_when_that_fails() {
        let table = Arc::new(Table::default());
        let reserved = table.reserve("a").unwrap();
        assert_eq!(table.reserve("a").err(), Some(IdInUse("a".into())));
        assert!(table.get("a").is_none() && table.all().is_empty());
        drop(reserved);
        assert!(table.reserve("a").is_ok());
    }
}
