//! `husk delete`: a container's files, and with force its VM too.

use std::time::Duration;

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use super::Error;
use crate::name::Name;
use crate::state::{self, Status, Store};

/// How long a workload that was killed may take to leave in order.
const ORDERLY: Duration = Duration::from_secs(10);
/// How long the kernel may take to clear away a killed process.
const CLEARED: Duration = Duration::from_secs(5);

/// Removes `name`. One that runs is killed first if `force` says so, and one that is not there is no error then.
pub async fn delete(store: &Store, name: &Name, force: bool) -> Result<(), Error> {
    if !force {
        return Ok(store.remove(name)?);
    }
    let killed = tokio::time::timeout(ORDERLY, super::kill(store, name, Signal::SIGKILL as u32)).await;
    if matches!(killed, Ok(Ok(()))) && gone_within(store, name, ORDERLY).await {
        return settle(store, name);
    }
    // The pid is that of the process which holds the lock, and its VM dies with it.
    if let Ok(record) = store.load(name)
        && matches!(record.status, Status::Running | Status::Creating)
    {
        let _ = send(Pid::from_raw(record.pid as i32), Signal::SIGKILL);
        gone_within(store, name, CLEARED).await;
    }
    settle(store, name)
}

fn settle(store: &Store, name: &Name) -> Result<(), Error> {
    match store.remove(name) {
        Ok(()) | Err(state::Error::Unknown(_)) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Whether the owner of `name` has let go of it.
async fn gone_within(store: &Store, name: &Name, limit: Duration) -> bool {
    let looks = limit.as_millis() / 20;
    for _ in 0..looks {
        match store.load(name).map(|record| record.status) {
            Ok(Status::Running | Status::Creating) => tokio::time::sleep(Duration::from_millis(20)).await,
            _ => return true,
        }
    }
    false
}
