//! One container: a task that owns its life, and a cheap handle on it.
//!
//! ```text
//!             create                start              first process ends
//! (nothing) ─────────▶ Created ───────────────▶ Running ───────────────▶ Stopped
//!                         │                        │                        │
//!                         └────────────────────────┴──── remove ────────────┴──▶ (nothing)
//! ```
//!
//! The task does one thing after the other: create, start, exec, remove. What only reads or waits (streams, exit
//! status, signals, figures) goes past it through the handle, so that a container whose task waits for a mount that
//! never answers still has its other callers served.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jail::cgroup::{Cgroup, CgroupError, Stats};
use jail::{Context, PidNamespace, Plan, PlanError, oci};
use nix::libc;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::cdi;
use crate::devices::{self, GuestAddresses};
use crate::diagnostics::TerminationLog;
use crate::guest::Guest;
use crate::launch::{self, Start};
use crate::process::{INIT, IdInUse, Process, Table};
use crate::sandbox;
use crate::storage;

/// How long the processes of a removed container may take to die, and its cgroup to go.
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
    #[error("container {container:?}: signal {signal}: {source}")]
    Signal { container: String, signal: i32, source: nix::Error },
    #[error("container {0:?}: not removed in time (ETIME: Timer expired)")]
    Deadline(String),
    #[error("container {0:?}: it was removed while it was created")]
    GivenUp(String),
}

/// What a container is made from.
pub(crate) struct Request {
    pub(crate) id: String,
    pub(crate) spec: oci::Spec,
    pub(crate) devices: Vec<agent_api::agent::Device>,
    pub(crate) storages: Vec<agent_api::agent::Storage>,
    /// Whether it joins the sandbox's shared pid namespace.
    pub(crate) shared_pids: bool,
}

/// A handle on a container.
pub(crate) struct Container {
    id: String,
    cgroup: PathBuf,
    processes: Arc<Table>,
    commands: mpsc::Sender<Command>,
    /// Somebody wants it gone, while it may still wait for a storage that never comes.
    unwanted: Notify,
    pub(crate) termination_log: TerminationLog,
}

type Reply = oneshot::Sender<Result<(), Error>>;

enum Command {
    Start(Reply),
    Exec { id: String, process: Box<oci::Process>, reply: Reply },
    Remove(Reply),
}

/// Creates a container; returns when its first process is ready to start, or with nothing left of it.
pub(crate) async fn create(request: Request, guest: &Arc<Guest>) -> Result<(), Error> {
    if !is_valid_id(&request.id) {
        return Err(Error::BadId(request.id));
    }
    let linux = request.spec.linux().as_ref();
    let cgroups_path = linux.and_then(|linux| linux.cgroups_path().clone()).unwrap_or_default();
    let cgroup = jail::cgroup::path_of(&cgroups_path.to_string_lossy(), &request.id)?;

    let (commands, inbox) = mpsc::channel(16);
    let container = Arc::new(Container {
        id: request.id.clone(),
        cgroup,
        processes: Arc::default(),
        commands,
        unwanted: Notify::new(),
        termination_log: TerminationLog::of(&request.spec),
    });
    // The duplicate is noticed before anything is made, so that undoing this request cannot touch the other's.
    if !guest.containers.add(container.clone()) {
        return Err(Error::Exists(request.id));
    }
    let (reply, created) = oneshot::channel();
    tokio::spawn(live(request, guest.clone(), container, inbox, reply));
    answer(created).await
}

/// The whole life of a container, in its own task.
async fn live(
    request: Request,
    guest: Arc<Guest>,
    container: Arc<Container>,
    mut inbox: mpsc::Receiver<Command>,
    created: Reply,
) {
    let id = container.id.clone();
    match Life::create(request, guest.clone(), container).await {
        Ok(mut life) => {
            tracing::info!(container = %id, "created");
            // The caller may have given up; the container is there all the same.
            let _ = created.send(Ok(()));
            life.serve(&mut inbox).await;
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

/// What the task of a container owns.
struct Life {
    guest: Arc<Guest>,
    container: Arc<Container>,
    plan: Plan,
    init: Arc<Process>,
    /// Present until the container is started.
    start: Option<Start>,
    cgroup: Cgroup,
    storages: Vec<PathBuf>,
    /// For the environment of processes to come.
    addresses: GuestAddresses,
}

impl Life {
    async fn create(
        mut request: Request,
        guest: Arc<Guest>,
        container: Arc<Container>,
    ) -> Result<Self, Error> {
        let shared = guest.sandbox.shared()?;
        let addresses = guest.devices.resolve(&request.devices, &mut request.spec).await?;
        cdi::inject(&mut request.spec, &guest.config).await?;
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
            cgroup: Some(container.cgroup.clone()),
            mqueue: Some(shared.mqueue),
        };
        let plan = jail::plan::container(&request.spec, &context)?;
        let storages = tokio::select! {
            storages = guest.sandbox.storages.acquire(&guest, &request.id, &request.storages) => storages?,
            () = container.unwanted.notified() => return Err(Error::GivenUp(request.id)),
        };
        match Self::launch(&request, &guest, &container, &plan).await {
            Ok((cgroup, init, start)) => {
                Ok(Self { guest, container, plan, init, start: Some(start), cgroup, storages, addresses })
            }
            Err(error) => {
                guest.sandbox.storages.release(storages).await;
                Err(error)
            }
        }
    }

    async fn launch(
        request: &Request,
        guest: &Guest,
        container: &Container,
        plan: &Plan,
    ) -> Result<(Cgroup, Arc<Process>, Start), Error> {
        let cgroup = Cgroup::create(&container.cgroup)?;
        let launched = async {
            let limits = request.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
            if let Some(limits) = limits {
                cgroup.apply(limits)?;
            }
            let reservation = container.processes.reserve(INIT)?;
            let launching = launch::start(plan, None, guest.config.pipe_size, &guest.reaper)?;
            let (process, start) = launching.ready().await?;
            guest.sandbox.offer_pid_namespace(process.pid());
            let process = Arc::new(process);
            reservation.fill(process.clone());
            Ok((process, start))
        };
        match launched.await {
            Ok((process, start)) => Ok((cgroup, process, start)),
            Err(error) => {
                dispose(cgroup).await;
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
                Command::Remove(reply) => {
                    self.remove().await;
                    // Out of the map first: whoever hears of the removal may use the id again at once.
                    self.guest.containers.remove(&self.container.id);
                    return drop(reply.send(Ok(())));
                }
            }
        }
    }

    async fn start(&mut self) -> Result<(), Error> {
        if self.init.exit.status().is_some() {
            return Err(self.wrong_state("start"));
        }
        let start = self.start.take().ok_or_else(|| self.wrong_state("start"))?;
        start.start().await?;
        tracing::info!(container = %self.container.id, pid = self.init.pid(), "started");
        Ok(())
    }

    /// Clones the new process here and waits for it elsewhere, so that one that is slow to set up holds up nobody.
    fn exec(&self, id: String, process: &oci::Process, reply: Reply) {
        let begun = (|| {
            if self.start.is_some() || self.init.exit.status().is_some() {
                return Err(self.wrong_state("exec"));
            }
            if id == INIT || id == self.container.id {
                return Err(IdInUse(id.clone()).into());
            }
            let reservation = self.container.processes.reserve(&id)?;
            let plan = jail::plan::exec(process, &self.plan)?;
            let (pipe_size, reaper) = (self.guest.config.pipe_size, &self.guest.reaper);
            Ok((reservation, launch::start(&plan, Some(self.init.pidfd()), pipe_size, reaper)?))
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

    /// Ends every process and undoes what was made, in reverse order.
    async fn remove(&mut self) {
        self.start = None;
        dispose(self.cgroup.clone()).await;
        for process in self.container.processes.all() {
            // Those whose cgroup is gone are dead; their exits arrive with the next signal of the kernel's.
            let _ = tokio::time::timeout(REMOVAL, process.exit.wait()).await;
        }
        self.guest.sandbox.storages.release(std::mem::take(&mut self.storages)).await;
        tracing::info!(container = %self.container.id, "removed");
    }

    fn wrong_state(&self, action: &'static str) -> Error {
        let state = match (&self.start, self.init.exit.status()) {
            (_, Some(_)) => "stopped",
            (Some(_), None) => "created",
            (None, None) => "running",
        };
        Error::State { container: self.container.id.clone(), action, state }
    }
}

/// Kills everything in a cgroup and removes it.
async fn dispose(cgroup: Cgroup) {
    let disposed = tokio::task::spawn_blocking(move || {
        cgroup.kill_all()?;
        cgroup.remove(REMOVAL)
    });
    match disposed.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "a cgroup was left behind"),
        Err(error) => tracing::error!(%error, "removing a cgroup panicked"),
    }
}

impl Container {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Starts the first process's program.
    pub(crate) async fn start(&self) -> Result<(), Error> {
        self.ask(Command::Start).await
    }

    /// Starts one more process under an id of its own.
    pub(crate) async fn exec(&self, id: String, process: oci::Process) -> Result<(), Error> {
        self.ask(|reply| Command::Exec { id, process: Box::new(process), reply }).await
    }

    /// Removes the container, whatever it is doing. The removal goes on past the deadline.
    pub(crate) async fn remove(&self, deadline: Option<Duration>) -> Result<(), Error> {
        self.unwanted.notify_one();
        let removed = self.ask(Command::Remove);
        match deadline {
            None => removed.await,
            Some(deadline) => tokio::time::timeout(deadline, removed)
                .await
                .unwrap_or_else(|_| Err(Error::Deadline(self.id.clone()))),
        }
    }

    /// The process with an id. Both the empty id and the container's own mean its first process.
    pub(crate) fn process(&self, id: &str) -> Result<Arc<Process>, Error> {
        self.processes
            .get(if self.is_init(id) { INIT } else { id })
            .ok_or_else(|| Error::UnknownProcess { container: self.id.clone(), process: id.to_string() })
    }

    /// Waits for the end of a process, and forgets it: its streams end, and its id may be used again.
    pub(crate) async fn wait(&self, id: &str) -> Result<i32, Error> {
        let process = self.process(id)?;
        let status = process.exit.wait().await;
        self.processes.forget(if self.is_init(id) { INIT } else { id }, &process);
        Ok(status)
    }

    /// Sends a signal to a process. Without an id SIGKILL means every process of the container, even if the first one
    /// is gone; other signals go to the first.
    pub(crate) fn signal(&self, id: &str, signal: i32) -> Result<(), Error> {
        if id == INIT && signal == libc::SIGKILL {
            return Ok(Cgroup::open(&self.cgroup)?.kill_all()?);
        }
        let process = self.process(id)?;
        let sent = if self.is_init(id) { process.signal_init(signal) } else { process.signal(signal) };
        sent.map_err(|source| Error::Signal { container: self.id.clone(), signal, source })
    }

    /// What the container uses.
    pub(crate) fn stats(&self) -> Result<Stats, Error> {
        Ok(Cgroup::open(&self.cgroup)?.stats()?)
    }

    fn is_init(&self, id: &str) -> bool {
        id == INIT || id == self.id
    }

    async fn ask(&self, command: impl FnOnce(Reply) -> Command) -> Result<(), Error> {
        let (reply, answered) = oneshot::channel();
        // A task that has ended takes no commands: the container is gone.
        if self.commands.send(command(reply)).await.is_err() {
            return Err(Error::Unknown(self.id.clone()));
        }
        match answered.await {
            Ok(result) => result,
            Err(_) => Err(Error::Unknown(self.id.clone())),
        }
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
