//! Driver `watchable-bind`: a copy of a directory of the share, in memory, that follows its source. Programs in a
//! container get events for it, which the share itself does not give.
//!
//! The copy follows by inotify where the source's file system tells of changes, and by looking every two seconds where
//! others can change it behind the kernel's back.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use agent_api::agent::Storage;
use agent_api::paths;
use nix::mount::MsFlags;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::statfs::statfs;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

use super::done::{self, Done, Step};
use super::mirror::{Mirror, TooLarge};
use super::plan::{self, Refusal, refuse};
use super::workplace::Workplace;
use super::{At as _, Fault, point};

/// How often a source is looked at that gives no events.
const PERIOD: Duration = Duration::from_secs(2);

/// Where copies may lie, below the share: one place for each of the known runtimes.
const ROOTS: [&str; 2] = ["watchable", "passthrough/watchable"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watchable {
    source: PathBuf,
}

impl Watchable {
    /// The directory all copies lie in, which is a file system of its own, and the copy.
    pub(super) fn plan(storage: &Storage, target: &Path) -> Result<(PathBuf, Self), Refusal> {
        let share = Path::new(paths::SHARE_ROOT);
        let Some(root) = ROOTS.iter().map(|root| share.join(root)).find(|root| is_below(target, root)) else {
            return refuse("mount_point", "it is not below a directory for watchable files");
        };
        let source = plan::absolute("source", &storage.source)?;
        if !is_below(&source, share) {
            return refuse("source", format!("{source:?} is not below the share"));
        }
        if source.starts_with(&root) {
            return refuse("source", "it is a copy itself");
        }
        Ok((root, Self { source }))
    }

    pub(super) fn make(&self, target: &Path, place: &Workplace, done: &mut Done) -> Result<(), Fault> {
        let what = || format!("copy {:?}", self.source);
        let parent = target.parent().unwrap_or(Path::new("/"));
        point::directory(parent, done)?;
        done.note(Step::Tree(target.to_path_buf()));
        // The way to the source is walked once without links; its files are the host's.
        point::open(&self.source).at(what)?;
        let mut mirror = Mirror::new(&self.source, target);
        match mirror.update().at(what)? {
            Ok(()) => {
                done.note(Step::Watch(Watch::start(mirror, &self.source, target, place)));
                Ok(())
            }
            Err(TooLarge) => point::bind(&self.source, target, true, MsFlags::empty(), done),
        }
    }
}

/// A copy that follows its source until it is stopped.
pub(super) struct Watch {
    copy: Arc<Mutex<Copy>>,
    task: AbortHandle,
}

struct Copy {
    mirror: Mirror,
    source: PathBuf,
    target: PathBuf,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Following,
    /// The source grew too large; it is shown itself.
    Bound,
    Stopped,
}

impl Watch {
    fn start(mirror: Mirror, source: &Path, target: &Path, place: &Workplace) -> Self {
        let copy = Arc::new(Mutex::new(Copy {
            mirror,
            source: source.to_path_buf(),
            target: target.to_path_buf(),
            state: State::Following,
        }));
        let following = follow(copy.clone(), source.to_path_buf());
        Self { copy, task: place.spawn(following) }
    }

    /// Ends it; returns when nothing is written any more.
    pub(super) fn stop(self) {
        self.task.abort();
        let mut copy = lock(&self.copy);
        if copy.state == State::Bound
            && let Err(error) = done::unmount(&copy.target)
        {
            tracing::warn!(target = %copy.target.display(), %error, "not unmounted");
        }
        copy.state = State::Stopped;
    }
}

async fn follow(copy: Arc<Mutex<Copy>>, source: PathBuf) {
    let of_source = source.clone();
    let events = tokio::task::spawn_blocking(move || Events::of(&of_source)).await;
    let mut events = events.ok().flatten();
    loop {
        let armed = match &mut events {
            Some(events) => events.arm(&copy),
            None => Armed::Not,
        };
        match (armed, &events) {
            (Armed::Yes, Some(events)) => events.next().await,
            // What has changed there before it was watched is still to be seen.
            (Armed::More, _) => {}
            _ => tokio::time::sleep(PERIOD).await,
        }
        let copy = copy.clone();
        let updated = tokio::task::spawn_blocking(move || lock(&copy).update()).await;
        match updated.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(State::Following) => {}
            Ok(State::Bound | State::Stopped) => return,
            // The host may be half-way through changing it.
            Err(error) => tracing::debug!(source = %source.display(), %error, "not copied this time"),
        }
    }
}

impl Copy {
    fn update(&mut self) -> io::Result<State> {
        if self.state == State::Following
            && let Err(TooLarge) = self.mirror.update()?
        {
            let mut done = Done::default();
            let bound = point::bind(&self.source, &self.target, true, MsFlags::empty(), &mut done);
            bound.map_err(io::Error::other)?;
            self.state = State::Bound;
        }
        Ok(self.state)
    }
}

/// Whether the kernel will tell of every change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Armed {
    Yes,
    /// From now on: some directories were not watched before.
    More,
    /// Some of it cannot be watched, or is gone.
    Not,
}

/// Changes of a source, as the kernel tells them.
struct Events {
    inotify: Inotify,
    readiness: AsyncFd<OwnedFd>,
    watched: HashSet<WatchDescriptor>,
}

impl Events {
    /// `None` where the source's file system does not tell, or the kernel cannot.
    fn of(source: &Path) -> Option<Self> {
        let magic = statfs(source).ok()?.filesystem_type().0 as u32;
        // FUSE (virtio-fs is one), 9p, NFS, SMB 1 to 3: others change their files too (linux/magic.h).
        if [0x6573_5546, 0x0102_1997, 0x6969, 0xff53_4d42, 0xfe53_4d42].contains(&magic) {
            return None;
        }
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?;
        let readiness = crate::sys::watch(inotify.as_fd().try_clone_to_owned().ok()?).ok()?;
        Some(Self { inotify, readiness, watched: HashSet::new() })
    }

    /// Watches everything that is there.
    fn arm(&mut self, copy: &Mutex<Copy>) -> Armed {
        let wanted: Vec<PathBuf> = lock(copy).mirror.watched().collect();
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_DONT_FOLLOW;
        let before = std::mem::take(&mut self.watched);
        let mut armed = if wanted.is_empty() { Armed::Not } else { Armed::Yes };
        for path in wanted {
            match self.inotify.add_watch(&path, flags) {
                Ok(watch) => {
                    if !before.contains(&watch) && armed == Armed::Yes {
                        armed = Armed::More;
                    }
                    self.watched.insert(watch);
                }
                Err(_) => armed = Armed::Not,
            }
        }
        for gone in before.difference(&self.watched) {
            let _ = self.inotify.rm_watch(*gone);
        }
        armed
    }

    /// Waits for a change, and takes with it what else has happened by then.
    async fn next(&self) {
        let Ok(mut ready) = self.readiness.readable().await else { return tokio::time::sleep(PERIOD).await };
        while self.inotify.read_events().is_ok() {}
        ready.clear_ready();
    }
}

fn is_below(path: &Path, root: &Path) -> bool {
    path.starts_with(root) && path != root
}

fn lock(copy: &Mutex<Copy>) -> MutexGuard<'_, Copy> {
    copy.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_places_take_copies() {
        let share = paths::SHARE_ROOT;
        let storage = |source: &str| Storage { source: source.into(), ..Default::default() };
        let plan = |source: &str, target: &str| Watchable::plan(&storage(source), Path::new(target));
        let (root, _) = plan(&format!("{share}/c-config"), &format!("{share}/watchable/config")).unwrap();
        assert_eq!(root, Path::new(share).join("watchable"));
        assert!(plan(&format!("{share}/passthrough/c"), &format!("{share}/passthrough/watchable/c")).is_ok());
        for (source, target, field) in [
            (format!("{share}/c"), "/run/elsewhere".to_string(), "mount_point"),
            (format!("{share}/c"), format!("{share}/watchable"), "mount_point"),
            ("/etc".to_string(), format!("{share}/watchable/c"), "source"),
            (share.to_string(), format!("{share}/watchable/c"), "source"),
            (format!("{share}/watchable/a"), format!("{share}/watchable/c"), "source"),
            (format!("{share}/../x"), format!("{share}/watchable/c"), "source"),
        ] {
            assert_eq!(plan(&source, &target).unwrap_err().field, field, "{source} {target}");
        }
    }
}
