//! Starting one process in a container: from a plan to a [`Process`] that is ready or running.
//!
//! The clone happens on the agent's thread and takes its exit under watch before anything else can run. Everything
//! after it, the child's own steps in its namespaces, is waited for without holding anybody up.

use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;
use std::{io, os::fd::AsFd as _};

use jail::{Control, Message, Plan};
use nix::libc;
use tokio::io::unix::AsyncFd;

use crate::boot::AGENT_BINARY;
use crate::hooks;
use crate::process::{Process, Streams};
use crate::reaper::{Exit, Reaper};

/// How long a process may take to set itself up. Its mounts may have to wait for the host.
const SETUP: Duration = Duration::from_secs(60);

/// A process did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("standard streams: {0}")]
    Streams(#[source] io::Error),
    #[error(transparent)]
    Spawn(#[from] jail::SpawnError),
    #[error(transparent)]
    Control(#[from] jail::ControlError),
    #[error("control: {0}")]
    Wait(#[source] io::Error),
    /// A step of the jail failed. Its message says which, on what and why.
    #[error(transparent)]
    Jail(#[from] jail::Failure),
    /// A hook beside the agent failed.
    #[error(transparent)]
    Hook(#[from] hooks::Error),
    #[error("set-up: not finished after {} s", .0.as_secs())]
    Slow(Duration),
    #[error("set-up: the process said something out of turn")]
    Protocol,
}

/// A process whose jail is on its way. Dropped before it is ready, it is killed.
pub(crate) struct Launching {
    pid: i32,
    pidfd: Option<OwnedFd>,
    exit: Exit,
    control: AsyncFd<Control>,
    streams: Option<Streams>,
    /// How long it may be silent.
    patience: Duration,
}

/// The mounts of a plan that the agent prepares, for [`start`].
pub(crate) async fn mapped_mounts(plan: &Plan) -> Result<Vec<OwnedFd>, Error> {
    if plan.container.iter().flat_map(|container| &container.mounts).all(|mount| mount.owners.is_none()) {
        return Ok(Vec::new());
    }
    let plan = plan.clone();
    let made = tokio::task::spawn_blocking(move || jail::mapped_mounts(&plan));
    let made = tokio::time::timeout(SETUP, made).await.map_err(|_| Error::Slow(SETUP))?;
    Ok(made.map_err(|panic| Error::Wait(io::Error::other(panic)))??)
}

/// Clones the process of a plan. `container` is the first process of the container that an exec joins.
pub(crate) fn start(
    plan: &Plan,
    container: Option<BorrowedFd<'_>>,
    mounts: Vec<OwnedFd>,
    pipe_size: Option<u32>,
    reaper: &Reaper,
) -> Result<Launching, Error> {
    let (streams, io) = if plan.process.terminal {
        (None, jail::ChildIo { container, mounts, ..Default::default() })
    } else {
        let (streams, io) = Streams::pipes(pipe_size).map_err(Error::Streams)?;
        (Some(streams), jail::ChildIo { container, mounts, ..io })
    };
    let binary = CString::new(AGENT_BINARY).map_err(|error| Error::Wait(error.into()))?;
    let spawned = jail::spawn(plan, io, &binary)?;
    let exit = reaper.watch(spawned.pid);
    let control = crate::sys::watch(spawned.control).map_err(Error::Wait)?;
    let inside = plan.hooks().map(|hooks| hooks.time_inside()).unwrap_or_default();
    let patience = SETUP + inside;
    Ok(Launching { pid: spawned.pid, pidfd: Some(spawned.pidfd), exit, control, streams, patience })
}

impl Launching {
    /// Waits for the moment of the hooks that run beside the agent, if there are any, runs them, and lets the process
    /// go on.
    pub(crate) async fn run_hooks(&self, plan: &Plan, reaper: &Reaper) -> Result<(), Error> {
        let Some(hooks) = plan.hooks().filter(|hooks| hooks.before_root()) else { return Ok(()) };
        match self.message().await? {
            Message::Mounted => {}
            Message::Failed(failure) => return Err(failure.into()),
            _ => return Err(Error::Protocol),
        }
        hooks::before_root(hooks, self.pid, reaper).await?;
        Ok(self.control.get_ref().go_on()?)
    }

    /// Waits until everything is in place. A container's first process then waits for [`Start::start`]; an exec goes
    /// on by itself, and [`Start::executed`] tells how that went.
    pub(crate) async fn ready(mut self) -> Result<(Process, Start), Error> {
        let pty = match self.message().await? {
            Message::Ready { pty } => pty,
            Message::Failed(failure) => return Err(failure.into()),
            _ => return Err(Error::Protocol),
        };
        let streams = match (self.streams.take(), pty) {
            (Some(streams), None) => streams,
            (None, Some(master)) => Streams::terminal(master).map_err(Error::Streams)?,
            _ => return Err(Error::Protocol),
        };
        let pidfd = self.pidfd.as_ref().map(|pidfd| pidfd.try_clone()).transpose().map_err(Error::Wait)?;
        let process = Process::new(self.pid, pidfd.ok_or(Error::Protocol)?, self.exit.clone(), streams);
        Ok((process, Start { launching: self }))
    }

    async fn message(&self) -> Result<Message, Error> {
        let message = tokio::time::timeout(self.patience, next(&self.control));
        message.await.map_err(|_| Error::Slow(self.patience))?
    }
}

impl Drop for Launching {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd {
            // ESRCH: it is gone already, which is what is wanted.
            let _ = crate::sys::signal_process(pidfd.as_fd(), libc::SIGKILL);
        }
    }
}

/// The last step of a process that is ready. Dropped, it kills the process.
pub(crate) struct Start {
    launching: Launching,
}

impl Start {
    /// Lets a container's first process go on to its program.
    pub(crate) async fn start(self) -> Result<(), Error> {
        self.launching.control.get_ref().go_on()?;
        self.executed().await
    }

    /// Waits until the program runs.
    pub(crate) async fn executed(mut self) -> Result<(), Error> {
        match self.launching.message().await? {
            Message::Executed => {
                self.launching.pidfd = None;
                Ok(())
            }
            Message::Failed(failure) => Err(failure.into()),
            _ => Err(Error::Protocol),
        }
    }
}

async fn next(control: &AsyncFd<Control>) -> Result<Message, Error> {
    loop {
        let mut ready = control.readable().await.map_err(Error::Wait)?;
        match control.get_ref().recv()? {
            Some(message) => return Ok(message),
            None => ready.clear_ready(),
        }
    }
}
