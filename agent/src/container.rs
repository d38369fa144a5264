//! One container: a task that owns its life, and a cheap handle on it.
//!
//! ```text
//!             create                start              first process ends
//! (nothing) ─────────▶ Created ───────────────▶ Running ───────────────▶ Stopped
//!                       │  ▲ │                   │  ▲ │                     │
//!                 pause ▼  │ │             pause ▼  │ │                     │
//!                     Paused │ resume          Paused │ resume              │
//!                            └────────────────────────┴── remove ───────────┴──▶ (nothing)
//! ```
//!
//! Paused: every process stands still. What needs one of them, start and exec, is refused; kill, update and remove work as
//! ever. A container whose task panics is removed.
//!
//! The task does one thing after the other: create, start, exec, update, pause, resume, remove. What only reads or waits
//! (streams, exit status, signals, figures) goes past it through the handle, so that a container whose task waits for a
//! mount that never answers still has its other callers served.

mod bounds;
mod handle;
mod placeholder;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jail::cgroup::{CgroupError, Place, systemd};
use jail::{Context, PidNamespace, Plan, PlanError, oci};
use tokio::sync::{mpsc, oneshot};

use crate::bundle::{self, Bundle};
use crate::cdi;
use crate::devices::{self, GuestAddresses};
use crate::guest::Guest;
use crate::hooks;
use crate::launch::{self, Start};
use crate::oom::Init;
use crate::process::{INIT, IdInUse, Process};
use crate::sandbox;
use crate::shared_mounts;
use crate::storage;
use bounds::Bounds;
use handle::{Command, Reply};

pub(crate) use handle::Container;
pub(crate) use placeholder::{ARGUMENT as HOLD, hold};

/// How long the exits of a removed container's processes, all of them dead, may take to arrive.
const REMOVAL: Duration = Duration::from_secs(10);

/// Something a container could not do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("container {0:?}: not a valid id")]
    BadId(String),
    #[error("container {0:?}: it exists already")]
    Exists(String),
    #[error("container {0:?}: no such container")]
    Unknown(String),
    #[error("container {container:?}: no such process {process:?}")]
    UnknownProcess { container: String, process: String },
    #[error("container {container:?}: cgroup {path:?} is that of container {other:?}, or above or below it")]
    CgroupInUse { container: String, path: PathBuf, other: String },
    #[error("container {container:?}: cannot {action}: it is {state}")]
    State { container: String, action: &'static str, state: &'static str },
    #[error(transparent)]
    Id(#[from] IdInUse),
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    #[error(transparent)]
    Device(#[from] devices::Error),
    #[error(transparent)]
    Cdi(#[from] cdi::Error),
    #[error(transparent)]
    Storage(#[from] storage::Error),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Launch(#[from] launch::Error),
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    #[error(transparent)]
    SharedMount(#[from] shared_mounts::Error),
    #[error("container {container:?}: signal {signal}: {source}")]
    Signal { container: String, signal: i32, source: nix::Error },
    #[error("container {0:?}: not removed in time (ETIME: Timer expired)")]
    Deadline(String),
    #[error("container {0:?}: it was removed while it was created")]
    GivenUp(String),
    /// A mistake of the agent's. What the container had made was undone.
    #[error("container {0:?}: the agent failed; its log says how")]
    Panicked(String),
}

/// What a container is made from.
pub(crate) struct Request {
    pub(crate) id: String,
    pub(crate) spec: oci::Spec,
    pub(crate) devices: Vec<agent_api::agent::Device>,
    pub(crate) storages: Vec<agent_api::agent::Storage>,
    /// Whether it joins the sandbox's shared pid namespace.
    pub(crate) shared_pids: bool,
    /// Mounts of other containers that it sees.
    pub(crate) shared_mounts: Vec<agent_api::agent::SharedMount>,
}

/// Creates a container; returns when its first process is ready to start, or with nothing left of it.
pub(crate) async fn create(request: Request, guest: &Arc<Guest>) -> Result<(), Error> {
    if !is_valid_id(&request.id) {
        return Err(Error::BadId(request.id));
    }
    let linux = request.spec.linux().as_ref();
    let cgroups_path = linux.and_then(|linux| linux.cgroups_path().clone()).unwrap_or_default();
    let with_systemd = !guest.is_init && systemd::is_running();
    let place = Place::of(&cgroups_path.to_string_lossy(), &request.id, with_systemd)?;
    let cgroup = place.path();
    // The duplicates are noticed before anything is made, so that undoing this request cannot touch the other's.
    if guest.containers.get(&request.id).is_some() {
        return Err(Error::Exists(request.id));
    }
    let mut others = guest.containers.all().into_iter();
    if let Some(other) =
        others.find(|other| other.cgroup().starts_with(&cgroup) || cgroup.starts_with(other.cgroup()))
    {
        return Err(Error::CgroupInUse {
            container: request.id,
            path: cgroup,
            other: other.id().to_string(),
        });
    }
    let (container, inbox) = Container::new(request.id.clone(), cgroup, &request.spec);
    let container = Arc::new(container);
    if !guest.containers.add(container.clone()) {
        return Err(Error::Exists(request.id));
    }
    let (reply, created) = oneshot::channel();
    tokio::spawn(live(request, place, guest.clone(), container, inbox, reply));
    answer(created).await
}

/// The whole life of a container, in its own task.
async fn live(
    request: Request,
    place: Place,
    guest: Arc<Guest>,
    container: Arc<Container>,
    mut inbox: mpsc::Receiver<Command>,
    created: Reply,
) {
    let id = container.id().to_string();
    match caught(&id, Life::create(request, place, guest.clone(), container)).await {
        Ok(mut life) => {
            tracing::info!(container = %id, "created");
            // The caller may have given up; the container is there all the same.
            let _ = created.send(Ok(()));
            let served = async {
                life.serve(&mut inbox).await;
                Ok(())
            };
            if caught(&id, served).await.is_err() {
                // Nobody knows how far it came: it goes, and its callers hear that it is not there.
                let removed = async {
                    life.remove().await;
                    Ok(())
                };
                let _ = caught(&id, removed).await;
                guest.containers.remove(&id);
            }
        }
        Err(error) => {
            tracing::warn!(container = %id, %error, "not created");
            guest.containers.remove(&id);
            let _ = created.send(Err(error));
            inbox.close();
            while let Ok(command) = inbox.try_recv() {
                if let Command::Remove(reply) = command {
                    let _ = reply.send(Ok(()));
                }
            }
        }
    }
}

/// Makes an error of a panic, so that what was begun is undone like after any other.
async fn caught<T>(id: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    // What the work shares with others is behind locks, none of which minds.
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let reason = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            tracing::error!(container = id, reason, "the task of a container panicked");
            Err(Error::Panicked(id.to_string()))
        }
    }
}

/// What the task of a container owns.
struct Life {
    guest: Arc<Guest>,
    container: Arc<Container>,
    plan: Plan,
    init: Arc<Process>,
    /// Present until the container is started.
    start: Option<Start>,
    bounds: Bounds,
    storages: Vec<PathBuf>,
    /// Where its hooks are run, if it has any.
    bundle: Option<Bundle>,
    /// For the environment of processes to come.
    addresses: GuestAddresses,
}

impl Life {
    async fn create(
        mut request: Request,
        place: Place,
        guest: Arc<Guest>,
        container: Arc<Container>,
    ) -> Result<Self, Error> {
        let shared = guest.sandbox.shared()?;
        let found = async {
            let addresses = guest.devices.resolve(&request.devices, &mut request.spec).await?;
            cdi::inject(&mut request.spec, &guest.config).await?;
            Ok::<_, Error>(addresses)
        };
        let addresses = tokio::select! {
            addresses = found => addresses?,
            () = container.given_up() => return Err(Error::GivenUp(request.id)),
        };
        let pid = match shared.pid {
            Some(path) if request.shared_pids => PidNamespace::Join(path),
            _ => PidNamespace::New,
        };
        let context = Context {
            id: request.id.clone(),
            bundle: PathBuf::from(agent_api::paths::RUN).join(&request.id),
            ipc: Some(shared.ipc),
            uts: Some(shared.uts),
            pid,
            root_is_ramfs: guest.root_is_ramfs,
            cgroup: Some(container.cgroup().to_owned()),
            cgroup_v1: jail::cgroup::v1_hierarchies(),
            mqueue: Some(shared.mqueue),
        };
        shared.guest_hooks.add_to(&mut request.spec);
        let plan = jail::plan::container(&request.spec, &context)?;
        let bundle = Bundle::of(&plan, &context.bundle, &request.spec)?;
        let storages = tokio::select! {
            storages = guest.sandbox.storages.acquire(&guest, &request.id, &request.storages) => storages?,
            () = container.given_up() => return Err(Error::GivenUp(request.id)),
        };
        let launched = Self::launch(&request, &place, &guest, &container, &plan);
        match caught(&request.id, launched).await {
            Ok((bounds, init, start)) => {
                let start = Some(start);
                Ok(Self { guest, container, plan, init, start, bounds, storages, bundle, addresses })
            }
            Err(error) => {
                hooks::poststop(&plan, &guest.reaper).await;
                guest.sandbox.storages.release(storages).await;
                Err(error)
            }
        }
    }

    async fn launch(
        request: &Request,
        place: &Place,
        guest: &Guest,
        container: &Container,
        plan: &Plan,
    ) -> Result<(Bounds, Arc<Process>, Start), Error> {
        let mut bounds = Bounds::make(&request.id, place, &request.spec, guest).await?;
        if let Some(limits) = request.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()) {
            container.remember_cpuset(limits);
        }
        let launched = async {
            let reservation = container.processes.reserve(INIT)?;
            let mounts = launch::mapped_mounts(plan).await?;
            let launching = launch::start(plan, None, mounts, guest.config.pipe_size, &guest.reaper)?;
            bounds.seated().await?;
            launching.run_hooks(plan, &guest.reaper).await?;
            let (process, start) = launching.ready().await?;
            guest.sandbox.offer_pid_namespace(process.pid());
            let process = Arc::new(process);
            let shared = request.shared_mounts.clone();
            shared_mounts::attach(shared, container.name(), &process, &guest.containers).await?;
            reservation.fill(process.clone());
            Ok((process, start))
        };
        match caught(&request.id, launched).await {
            Ok((process, start)) => Ok((bounds, process, start)),
            Err(error) => {
                bounds.dispose().await;
                Err(error)
            }
        }
    }

    /// Does what is asked, one after the other, until the container is removed.
    async fn serve(&mut self, inbox: &mut mpsc::Receiver<Command>) {
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Start(reply) => drop(reply.send(self.start().await)),
                Command::Exec { id, mut process, reply } => {
                    self.addresses.rewrite(process.env_mut().as_deref_mut().unwrap_or_default());
                    self.exec(id, &process, reply);
                }
                Command::Update { resources, reply } => drop(reply.send(self.update(*resources).await)),
                Command::Pause(reply) => drop(reply.send(self.pause().await)),
                Command::Resume(reply) => drop(reply.send(self.resume().await)),
                Command::Remove(reply) => {
                    self.remove().await;
                    // Out of the map first: whoever hears of the removal may use the id again at once.
                    self.guest.containers.remove(self.container.id());
                    return drop(reply.send(Ok(())));
                }
            }
        }
    }

    async fn start(&mut self) -> Result<(), Error> {
        if self.init.exit.status().is_some() || self.container.is_paused() {
            return Err(self.wrong_state("start"));
        }
        let start = self.start.take().ok_or_else(|| self.wrong_state("start"))?;
        // Before the first instruction, which may be the one that takes too much. The pod's own container is the
        // runtime's, and its end is told in another way.
        let id = self.container.id();
        if self.guest.sandbox.shared().is_ok_and(|shared| shared.id != id) {
            let init = Init { exit: self.init.exit.clone(), killed: self.container.killed.clone() };
            self.bounds.watch_oom(id, init, &self.guest.oom);
        }
        start.start().await?;
        hooks::poststart(&self.plan, self.init.pid(), &self.guest.reaper).await;
        tracing::info!(container = %self.container.id(), pid = self.init.pid(), "started");
        Ok(())
    }

    /// Clones the new process here and waits for it elsewhere, so that one that is slow to set up holds up nobody.
    fn exec(&self, id: String, process: &oci::Process, reply: Reply) {
        let begun = (|| {
            let paused = self.container.is_paused();
            if paused || self.start.is_some() || self.init.exit.status().is_some() {
                return Err(self.wrong_state("exec"));
            }
            if id == INIT || id == self.container.id() {
                return Err(IdInUse(id.clone()).into());
            }
            let reservation = self.container.processes.reserve(&id)?;
            let plan = jail::plan::exec(process, &self.plan)?;
            let (pipe_size, reaper) = (self.guest.config.pipe_size, &self.guest.reaper);
            Ok((reservation, launch::start(&plan, Some(self.init.pidfd()), Vec::new(), pipe_size, reaper)?))
        })();
        match begun {
            Err(error) => drop(reply.send(Err(error))),
            Ok((reservation, launching)) => {
                tokio::spawn(async move {
                    let executed = async {
                        let (process, start) = launching.ready().await?;
                        start.executed().await?;
                        reservation.fill(Arc::new(process));
                        Ok(())
                    };
                    drop(reply.send(executed.await.map_err(|error: launch::Error| error.into())));
                });
            }
        }
    }

    async fn update(&mut self, resources: oci::LinuxResources) -> Result<(), Error> {
        self.bounds.update(resources.clone(), &self.guest).await?;
        self.container.remember_cpuset(&resources);
        Ok(())
    }

    async fn pause(&mut self) -> Result<(), Error> {
        if self.container.is_paused() || self.init.exit.status().is_some() {
            return Err(self.wrong_state("pause"));
        }
        self.bounds.freeze().await?;
        self.container.set_paused(true);
        Ok(())
    }

    async fn resume(&mut self) -> Result<(), Error> {
        if !self.container.is_paused() {
            return Err(self.wrong_state("resume"));
        }
        self.bounds.thaw().await?;
        self.container.set_paused(false);
        Ok(())
    }

    /// Ends every process and undoes what was made, in reverse order.
    async fn remove(&mut self) {
        self.start = None;
        self.bounds.dispose().await;
        for process in self.container.processes.all() {
            // Those whose cgroup is gone are dead; their exits arrive with the next signal of the kernel's.
            let _ = tokio::time::timeout(REMOVAL, process.exit.wait()).await;
        }
        hooks::poststop(&self.plan, &self.guest.reaper).await;
        self.bundle = None;
        self.guest.sandbox.storages.release(std::mem::take(&mut self.storages)).await;
        tracing::info!(container = %self.container.id(), "removed");
    }

    fn wrong_state(&self, action: &'static str) -> Error {
        let state = match (&self.start, self.init.exit.status()) {
            (_, Some(_)) => "stopped",
            _ if self.container.is_paused() => "paused",
            (Some(_), None) => "created",
            (None, None) => "running",
        };
        Error::State { container: self.container.id().to_string(), action, state }
    }
}

async fn answer(reply: oneshot::Receiver<Result<(), Error>>) -> Result<(), Error> {
    reply.await.unwrap_or_else(|_| Err(Error::Unknown("its task ended early".to_string())))
}

/// Ids become file names: a letter or digit, then letters, digits, `_`, `.` or `-`; two characters at least.
fn is_valid_id(id: &str) -> bool {
    let mut bytes = id.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && id.len() > 1
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_panic_is_an_error_like_any_other() {
        let work = async { panic!("at the worst moment") };
        let caught: Result<(), Error> = caught("c1", work).await;
        assert!(matches!(caught, Err(Error::Panicked(id)) if id == "c1"));
    }

    #[test]
    fn ids_are_what_peers_send_and_nothing_that_leads_elsewhere() {
        for id in ["ab", "0f", "a-b_c.d", &"f".repeat(64)] {
            assert!(is_valid_id(id), "{id:?}");
        }
        for id in ["", "a", "-a", ".a", "a/b", "..", "a b", "a\0", "ä1"] {
            assert!(!is_valid_id(id), "{id:?}");
        }
    }
}
