//! The one place that calls waitpid.
//!
//! PID 1 inherits every orphan of the guest, and all children of the agent are its own: container processes and
//! helpers alike. [`Reaper::run`] collects them on SIGCHLD. Whoever starts a process asks [`Reaper::watch`] for its
//! [`Exit`], a value that any number of callers can await.
//!
//! Start and watch must happen without an await in between: both run on the agent's only thread, so no exit can slip
//! through before somebody watches for it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The processes somebody waits for.
#[derive(Default)]
pub(crate) struct Reaper {
    watched: Mutex<HashMap<i32, watch::Sender<Option<i32>>>>,
}

/// The exit of one process, now or later. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Exit(watch::Receiver<Option<i32>>);

impl Exit {
    /// The status if the process has ended: its exit code, or 128 plus the signal that killed it.
    pub(crate) fn status(&self) -> Option<i32> {
        *self.0.borrow()
    }

    /// Waits for the end of the process.
    pub(crate) async fn wait(&self) -> i32 {
        let mut receiver = self.0.clone();
        loop {
            if let Some(status) = *receiver.borrow_and_update() {
                return status;
            }
            if receiver.changed().await.is_err() {
                // The reaper went away, which only happens when the agent itself ends.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Reaper {
    /// Watches for the end of `pid`, a child that was started without an await since.
    pub(crate) fn watch(&self, pid: i32) -> Exit {
        let (sender, receiver) = watch::channel(None);
        self.watched().insert(pid, sender);
        Exit(receiver)
    }

    /// Collects children for as long as the agent lives.
    pub(crate) async fn run(&self) -> std::io::Result<()> {
        let mut child_ended = signal(SignalKind::child())?;
        loop {
            self.collect();
            if child_ended.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    fn collect(&self) {
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "waitpid failed");
                    return;
                }
            };
            self.ended(pid, status);
        }
    }

    /// Collects only what is watched here: tests share a process, and must not take each other's children.
    #[cfg(test)]
    pub(crate) async fn run_for_tests(&self) {
        loop {
            let watched: Vec<i32> = self.watched().keys().copied().collect();
            for pid in watched {
                match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::Exited(pid, code)) => self.ended(pid, code),
                    Ok(WaitStatus::Signaled(pid, signal, _)) => self.ended(pid, 128 + signal as i32),
                    _ => {}
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    pub(crate) fn ended(&self, pid: Pid, status: i32) {
        match self.watched().remove(&pid.as_raw()) {
            Some(sender) => drop(sender.send_replace(Some(status))),
            None => tracing::debug!(%pid, status, "reaped an orphan"),
        }
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<i32, watch::Sender<Option<i32>>>> {
        self.watched.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn every_waiter_gets_the_status() {
        let reaper = Reaper::default();
        let exit = reaper.watch(41);
        let other = exit.clone();
        assert_eq!(exit.status(), None);
        reaper.ended(Pid::from_raw(41), 137);
        assert_eq!((exit.wait().await, other.wait().await, exit.status()), (137, 137, Some(137)));
        assert!(reaper.watched().is_empty());
    }
}
