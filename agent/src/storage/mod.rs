//! File systems a request asks to be mounted before its containers start.
//!
//! A storage is known by its mount point. The first request makes it, later ones add a reference, and the last release
//! undoes what was made, unless the storage is shared, which means it stays until the sandbox ends.
//!
//! [`plan`] decides what is to be done, one file per family of drivers does it, and [`done`] remembers what was done
//! so that it can be undone. Any step may wait for the host, for ever if that never answers: so the work goes on in
//! tasks and threads of its own, whoever asked for it may give up, and what comes about later is undone when it does.

mod bind;
mod block;
mod done;
mod ephemeral;
mod group;
mod huge_pages;
mod layers;
mod local;
mod mirror;
mod overlay;
mod plan;
mod point;
mod verity;
mod watch;
mod workplace;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use agent_api::agent::Storage;
use tokio::sync::oneshot;

use crate::guest::Guest;
use done::Done;
pub(crate) use ephemeral::update as update_ephemeral;
pub(crate) use plan::DRIVERS;
use plan::Plan;
use workplace::Workplace;

/// How long a release waits for what it undoes; after that it goes on behind everybody's back.
const PATIENCE: Duration = Duration::from_secs(5);

/// A storage cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("storage {mount_point:?}: driver: {driver:?} is unknown")]
    Driver { mount_point: String, driver: String },
    #[error("storage {mount_point:?}: {field}: {reason}")]
    Refused { mount_point: String, field: &'static str, reason: String },
    #[error("storage {mount_point:?}: {fault}")]
    Failed { mount_point: PathBuf, fault: Fault },
    #[error("storages: the task that made them ended early")]
    Abandoned,
}

/// A step that failed, and what it was about.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub(crate) struct Fault {
    step: String,
    source: io::Error,
}

impl Fault {
    fn new(step: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { step: step.into(), source: source.into() }
    }
}

trait At<T> {
    /// Names the step that fails.
    fn at(self, step: impl FnOnce() -> String) -> Result<T, Fault>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: impl FnOnce() -> String) -> Result<T, Fault> {
        self.map_err(|source| Fault { step: step(), source: source.into() })
    }
}

/// Every storage of the sandbox. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Storages {
    entries: Arc<Mutex<HashMap<PathBuf, Entry>>>,
    kept: Kept,
}

/// Directories that were made on the way to a storage, and had another one in them when that went. The last to go takes
/// them along.
type Kept = Arc<Mutex<BTreeSet<PathBuf>>>;

struct Entry {
    references: usize,
    shared: bool,
    made: Made,
}

/// What was made for a storage. Whoever makes or undoes it holds the lock, each in a task of its own, so that what is
/// done to one mount point is done in turn and a mount that hangs is waited for by those alone who want the same one.
type Made = Arc<tokio::sync::Mutex<Option<Done>>>;

/// References to storages, to be released.
pub(crate) type Held = Vec<PathBuf>;

impl Storages {
    /// Makes what is not there yet, in order, for `owner`: a container, or the sandbox itself. After a failure, or
    /// when the caller goes away, none of them is held.
    pub(crate) async fn acquire(
        &self,
        guest: &Arc<Guest>,
        owner: &str,
        storages: &[Storage],
    ) -> Result<Held, Error> {
        if storages.is_empty() {
            return Ok(Held::new());
        }
        let plans = plan::all(storages, owner)?;
        let place = Workplace::new(guest.clone());
        let all = self.clone();
        let (answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            let acquired = all.acquire_all(&place, plans).await;
            if let Err(Ok(unwanted)) = answer.send(acquired) {
                tracing::info!("storages are there whose request was given up");
                all.release_all(unwanted).await;
            }
        });
        answered.await.unwrap_or(Err(Error::Abandoned))
    }

    /// Gives references back, in reverse order. Waits for a while for what goes with them to be undone.
    pub(crate) async fn release(&self, held: Held) {
        if held.is_empty() {
            return;
        }
        let all = self.clone();
        let task = tokio::spawn(async move { all.release_all(held).await });
        if tokio::time::timeout(PATIENCE, task).await.is_err() {
            tracing::warn!("undoing storages takes long; nobody waits for it any more");
        }
    }

    /// Undoes everything, shared or not, whoever may still hold it: the sandbox ends.
    pub(crate) async fn clear(&self) {
        let all = self.clone();
        let mut entries: Vec<_> = self.entries().drain().collect();
        // The deepest first, so that no mount hides another.
        entries.sort_by_key(|(mount_point, _)| std::cmp::Reverse(mount_point.components().count()));
        let task = tokio::spawn(async move {
            for (_, entry) in entries {
                all.undo(entry.made.lock().await.take()).await;
            }
        });
        if tokio::time::timeout(PATIENCE, task).await.is_err() {
            tracing::warn!("undoing the sandbox's storages takes long; nobody waits for it any more");
        }
    }

    async fn acquire_all(&self, place: &Workplace, plans: Vec<Plan>) -> Result<Held, Error> {
        let mut held = Held::new();
        for plan in plans {
            let target = plan.target.clone();
            match self.acquire_one(place, plan).await {
                Ok(()) => held.push(target),
                Err(fault) => {
                    self.release_all(held).await;
                    return Err(Error::Failed { mount_point: target, fault });
                }
            }
        }
        Ok(held)
    }

    async fn acquire_one(&self, place: &Workplace, plan: Plan) -> Result<(), Fault> {
        let target = plan.target.clone();
        let made = self.add_reference(&target, plan.shared);
        let mut turn = made.lock().await;
        if turn.is_some() {
            return Ok(());
        }
        let (place, kept) = (place.clone(), self.kept.clone());
        let result = tokio::task::spawn_blocking(move || {
            let mut done = Done::default();
            match plan.make(&place, &mut done) {
                Ok(()) => Ok(done),
                Err(fault) => {
                    sweep(&kept, done.undo());
                    Err(fault)
                }
            }
        })
        .await
        .unwrap_or_else(|panic| Err(Fault::new("make it", io::Error::other(panic))));
        match result {
            Ok(done) => {
                *turn = Some(done);
                Ok(())
            }
            Err(fault) => {
                drop(turn);
                self.drop_reference(&target);
                self.forget(&target, &made);
                Err(fault)
            }
        }
    }

    async fn release_all(&self, held: Held) {
        for mount_point in held.into_iter().rev() {
            let Some(made) = self.drop_reference(&mount_point) else { continue };
            let mut turn = made.lock().await;
            // Somebody may have asked for it again while its turn was waited for.
            if self.is_unused(&mount_point, &made) {
                self.undo(turn.take()).await;
                self.forget(&mount_point, &made);
            }
        }
    }

    async fn undo(&self, done: Option<Done>) {
        let Some(done) = done else { return };
        let kept = self.kept.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || sweep(&kept, done.undo())).await {
            tracing::error!(%error, "undoing a storage panicked");
        }
    }

    fn add_reference(&self, mount_point: &Path, shared: bool) -> Made {
        // What it finds there is its own to use, empty or not.
        self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(mount_point);
        let mut entries = self.entries();
        let entry = entries.entry(mount_point.to_path_buf()).or_insert_with(|| Entry {
            references: 0,
            shared,
            made: Made::default(),
        });
        entry.references += 1;
        entry.shared |= shared;
        entry.made.clone()
    }

    /// What must be undone if that was the last reference.
    fn drop_reference(&self, mount_point: &Path) -> Option<Made> {
        let mut entries = self.entries();
        let entry = entries.get_mut(mount_point)?;
        entry.references -= 1;
        (entry.references == 0 && !entry.shared).then(|| entry.made.clone())
    }

    fn is_unused(&self, mount_point: &Path, made: &Made) -> bool {
        let entries = self.entries();
        entries.get(mount_point).is_some_and(|entry| entry.references == 0 && Arc::ptr_eq(&entry.made, made))
    }

    /// Removes an entry nobody refers to and behind which there is nothing.
    fn forget(&self, mount_point: &Path, made: &Made) {
        let mut entries = self.entries();
        let entry = entries.get(mount_point);
        if entry.is_some_and(|entry| entry.references == 0 && Arc::ptr_eq(&entry.made, made)) {
            entries.remove(mount_point);
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<PathBuf, Entry>> {
        self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Removes what was kept and is empty by now, the deepest first.
fn sweep(kept: &Kept, more: Vec<PathBuf>) {
    let lock = || kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    lock().extend(more);
    let all: Vec<_> = lock().iter().rev().cloned().collect();
    for path in all {
        if done::remove_directory(&path) {
            lock().remove(&path);
        }
    }
}

#[cfg(test)]
mod tests;
