//! Watching one container's cgroup for kills.
//!
//! The count of kills goes with its cgroup, and systemd takes a scope away at the death of the last process in it: mostly
//! before the kernel, which tells of changes at most every 10 ms, has told of the kill. What is left then is that the
//! first process was killed, that nobody had asked for it, and that the whole guest counts a kill which is in nobody's
//! count. That is told as a kill of this container's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jail::cgroup::{Cgroup, CgroupError, OomWatch};
use nix::libc::SIGKILL;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use super::Events;
use crate::reaper::Exit;

/// When to look at the count once more after the kernel ran out of memory: with version 1 of cgroups it says so first
/// and kills then.
const AFTERWARDS: [Duration; 3] =
    [Duration::from_millis(5), Duration::from_millis(50), Duration::from_millis(500)];

/// How often to look whether anybody is left, when a container's first process is not.
const LINGERING: Duration = Duration::from_secs(1);

/// A watch. Ends when the cgroup empties, or when it is dropped: with a last look at the count.
pub(crate) struct Watch {
    count: Arc<Count>,
    task: JoinHandle<()>,
}

/// A container's first process.
pub(crate) struct Init {
    pub(crate) exit: Exit,
    /// Whether somebody asked for its end.
    pub(crate) killed: Arc<AtomicBool>,
}

struct Count {
    container: String,
    events: Arc<Events>,
    notifier: AsyncFd<OomWatch>,
    /// How many kills were told of.
    told: Mutex<u64>,
    /// The kills in the whole guest and those told of, when the watch began.
    before: (u64, u64),
}

impl Watch {
    /// Begins to tell of kills in a cgroup. Those so far are not told of.
    pub(crate) fn begin(
        cgroup: &Cgroup,
        container: &str,
        init: Init,
        events: Arc<Events>,
    ) -> Result<Self, CgroupError> {
        let notifier = cgroup.watch_oom()?;
        let told = Mutex::new(notifier.kills()?);
        let interest = if notifier.is_exceptional() { Interest::PRIORITY } else { Interest::READABLE };
        let notifier = crate::sys::watch_for(notifier, interest).map_err(|source| CgroupError::File {
            action: "watch".to_string(),
            path: cgroup.path().to_owned(),
            source,
        })?;
        let count = {
            let before = (kills(), events.told());
            Arc::new(Count { container: container.to_string(), events, notifier, told, before })
        };
        let task = tokio::spawn(watch(count.clone(), init, interest));
        Ok(Self { count, task })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
        // The cgroup may be gone: then it was empty, and the task has looked.
        let _ = self.count.look();
    }
}

impl Count {
    /// Tells of the kills since the last look.
    fn look(&self) -> Result<(), CgroupError> {
        let mut told = self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let kills = self.notifier.get_ref().kills()?;
        if let Some(times) = kills.checked_sub(*told).filter(|&times| times > 0) {
            tracing::warn!(container = self.container, times, "killed for lack of memory");
            self.events.push(&self.container, times);
            *told = kills;
        }
        Ok(())
    }

    /// Concludes what the count would have said, had it not gone with the first process.
    fn conclude(&self, status: i32, asked: bool) {
        let (kills_before, told_before) = self.before;
        let untold = kills().saturating_sub(kills_before) > self.events.told() - told_before;
        if status == 128 + SIGKILL && !asked && untold {
            tracing::warn!(container = self.container, "killed for lack of memory, and its cgroup is gone");
            self.events.push(&self.container, 1);
        }
    }
}

/// The kernel's kills for lack of memory since the boot, in whatever cgroup.
fn kills() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0)
}

async fn watch(count: Arc<Count>, init: Init, interest: Interest) {
    let gone = async |exit: &Exit| {
        let status = exit.wait().await;
        count.conclude(status, init.killed.load(Ordering::Relaxed));
    };
    let mut init_lives = true;
    loop {
        tokio::select! {
            ready = count.notifier.ready(interest) => {
                let Ok(mut ready) = ready else { return };
                ready.clear_ready();
                let afterwards = if interest.is_priority() { &[][..] } else { &AFTERWARDS };
                for pause in [Duration::ZERO].iter().chain(afterwards) {
                    if !pause.is_zero() {
                        tokio::time::sleep(*pause).await;
                    }
                    if count.look().is_err() {
                        return gone(&init.exit).await;
                    }
                }
            }
            _ = init.exit.wait(), if init_lives => init_lives = false,
            () = tokio::time::sleep(LINGERING), if !init_lives => {}
        }
        if !init_lives && !count.notifier.get_ref().populated() {
            // In this order: what was killed last is counted before it is gone.
            if count.look().is_err() {
                gone(&init.exit).await;
            }
            return;
        }
    }
}
