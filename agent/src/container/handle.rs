//! A handle on a container: what its callers can ask for.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jail::cgroup::{Cgroup, Stats};
use jail::oci;
use nix::libc;
use tokio::sync::{Notify, mpsc, oneshot};

use super::Error;
use super::bounds::blocking;
use crate::diagnostics::TerminationLog;
use crate::process::{INIT, Process, Table};

/// The annotation in which engines write the name of a container within its pod.
const NAME: &str = "io.kubernetes.cri.container-name";

/// A handle on a container.
pub(crate) struct Container {
    id: String,
    name: Option<String>,
    cgroup: PathBuf,
    pub(super) processes: Arc<Table>,
    commands: mpsc::Sender<Command>,
    /// Whether somebody asked for its end with SIGKILL.
    pub(super) killed: Arc<AtomicBool>,
    /// Whether its processes stand still. Its task alone changes that.
    paused: AtomicBool,
    /// The processors and memory nodes it last asked for, if any.
    cpuset: Mutex<Option<oci::LinuxResources>>,
    /// Somebody wants it gone, while it may still wait for a storage that never comes.
    unwanted: Notify,
    pub(crate) termination_log: TerminationLog,
}

pub(super) type Reply = oneshot::Sender<Result<(), Error>>;

/// What a container's task does, one after the other.
pub(super) enum Command {
    Start(Reply),
    Exec { id: String, process: Box<oci::Process>, reply: Reply },
    Update { resources: Box<oci::LinuxResources>, reply: Reply },
    Pause(Reply),
    Resume(Reply),
    Remove(Reply),
}

impl Container {
    /// A handle, and the end of it that the container's task holds.
    pub(super) fn new(id: String, cgroup: PathBuf, spec: &oci::Spec) -> (Self, mpsc::Receiver<Command>) {
        let (commands, inbox) = mpsc::channel(16);
        let container = Self {
            id,
            name: spec.annotations().as_ref().and_then(|all| all.get(NAME).cloned()),
            cgroup,
            processes: Arc::default(),
            commands,
            killed: Arc::default(),
            paused: AtomicBool::new(false),
            cpuset: Mutex::new(None),
            unwanted: Notify::new(),
            termination_log: TerminationLog::of(spec),
        };
        (container, inbox)
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// What engines call it within its pod.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The path of its cgroup.
    pub(crate) fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Starts the first process's program.
    pub(crate) async fn start(&self) -> Result<(), Error> {
        self.ask(Command::Start).await
    }

    /// Starts one more process under an id of its own.
    pub(crate) async fn exec(&self, id: String, process: oci::Process) -> Result<(), Error> {
        self.ask(|reply| Command::Exec { id, process: Box::new(process), reply }).await
    }

    /// Changes its limits, those that are given.
    pub(crate) async fn update(&self, resources: oci::LinuxResources) -> Result<(), Error> {
        self.ask(|reply| Command::Update { resources: Box::new(resources), reply }).await
    }

    /// Stops every process where it is.
    pub(crate) async fn pause(&self) -> Result<(), Error> {
        self.ask(Command::Pause).await
    }

    /// Lets every process go on.
    pub(crate) async fn resume(&self) -> Result<(), Error> {
        self.ask(Command::Resume).await
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
    ///
    /// In a paused container other signals wait until it goes on. SIGKILL does not: to kill the first process of one
    /// that stands still is to kill all, because that is the way that works with every version of cgroups.
    pub(crate) async fn signal(&self, id: &str, signal: i32) -> Result<(), Error> {
        let is_init = self.is_init(id);
        if signal == libc::SIGKILL && is_init {
            self.killed.store(true, Ordering::Relaxed);
        }
        let kills_all = id == INIT || (is_init && self.is_paused());
        if signal == libc::SIGKILL && kills_all {
            let cgroup = self.cgroup.clone();
            return match blocking(move || Cgroup::open(&cgroup)?.kill_all()).await {
                // systemd takes a scope away with the last process in it.
                Err(error) if error.is_missing() => Ok(()),
                killed => Ok(killed?),
            };
        }
        let process = self.process(id)?;
        let sent = if is_init { process.signal_init(signal) } else { process.signal(signal) };
        sent.map_err(|source| Error::Signal { container: self.id.clone(), signal, source })
    }

    /// What the container uses.
    pub(crate) fn stats(&self) -> Result<Stats, Error> {
        Ok(Cgroup::open(&self.cgroup)?.stats()?)
    }

    /// Asks the kernel once more for the processors and memory nodes that the container asked for: there may be more of
    /// them now. Past the container's task, so that one that is busy holds up nobody.
    pub(crate) async fn refresh_cpuset(&self) -> Result<(), Error> {
        let wanted = self.cpuset.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let Some(wanted) = wanted else { return Ok(()) };
        let cgroup = self.cgroup.clone();
        Ok(blocking(move || Cgroup::open(&cgroup)?.refresh_cpuset(&wanted)).await?)
    }

    /// Remembers the processors and memory nodes that new limits ask for.
    pub(super) fn remember_cpuset(&self, resources: &oci::LinuxResources) {
        let Some(cpu) = resources.cpu() else { return };
        let mut held = self.cpuset.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let before = held.as_ref().and_then(|held| held.cpu().as_ref());
        let mut after = oci::LinuxCpu::default();
        after.set_cpus(cpu.cpus().clone().or_else(|| before.and_then(|cpu| cpu.cpus().clone())));
        after.set_mems(cpu.mems().clone().or_else(|| before.and_then(|cpu| cpu.mems().clone())));
        if after.cpus().is_some() || after.mems().is_some() {
            let mut resources = oci::LinuxResources::default();
            resources.set_cpu(Some(after)).set_devices(None);
            *held = Some(resources);
        }
    }

    /// Waits until somebody wants it gone.
    pub(super) async fn given_up(&self) {
        self.unwanted.notified().await;
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
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
