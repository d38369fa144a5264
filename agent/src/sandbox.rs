//! What all containers of the VM share: its namespaces, storages, name servers and name.
//!
//! Network calls and storages of containers need no sandbox, containers do: [`Sandbox::shared`] is what they join.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use agent_api::agent::CreateSandboxRequest;
use agent_api::paths;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;

use crate::guest::Guest;
use crate::hooks::GuestHooks;
use crate::storage::{self, Storages};
use crate::{dns, modules, mountinfo};

/// The longest host name Linux takes, in bytes (uname(2)).
const MAX_HOSTNAME: usize = 64;

/// The sandbox cannot be made, or is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("sandbox: it does not exist yet")]
    Missing,
    #[error("sandbox: it exists already and has containers")]
    InUse,
    #[error("sandbox: it was destroyed")]
    Destroyed,
    #[error("sandbox: hostname {0:?} is longer than 64 bytes")]
    Hostname(String),
    #[error("sandbox: {step}: {source}")]
    Step { step: &'static str, source: io::Error },
    #[error("sandbox: {0}")]
    Storage(#[from] storage::Error),
    #[error("sandbox: {0}")]
    Module(#[from] modules::Error),
}

/// The one sandbox of this VM.
#[derive(Default)]
pub(crate) struct Sandbox {
    state: Mutex<State>,
    /// What is mounted, for the sandbox or for a container of it.
    pub(crate) storages: Storages,
}

#[derive(Default)]
enum State {
    #[default]
    None,
    Made {
        id: String,
        /// The pid namespace of the first container, which shares it with those that ask. Open, so that it keeps its
        /// name when that container is gone.
        pid_namespace: Option<File>,
        /// Programs of the guest that run for every container.
        guest_hooks: GuestHooks,
    },
    Destroyed,
}

/// What a container joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shared {
    /// The sandbox's id: the container with the same id is the pod's own.
    pub(crate) id: String,
    pub(crate) ipc: PathBuf,
    pub(crate) uts: PathBuf,
    pub(crate) mqueue: PathBuf,
    /// A path to the shared pid namespace, if a container has made one.
    pub(crate) pid: Option<PathBuf>,
    pub(crate) guest_hooks: GuestHooks,
}

impl Sandbox {
    /// Makes the sandbox: run directory, namespaces, storages, name servers.
    ///
    /// A runtime may ask again while there are no containers; it gets a fresh sandbox.
    pub(crate) async fn create(
        &self,
        request: CreateSandboxRequest,
        has_containers: bool,
        guest: &Arc<Guest>,
    ) -> Result<(), Error> {
        if request.hostname.len() > MAX_HOSTNAME {
            return Err(Error::Hostname(request.hostname));
        }
        match &*self.state() {
            State::Destroyed => return Err(Error::Destroyed),
            State::Made { .. } if has_containers => return Err(Error::InUse),
            _ => {}
        }
        modules::load(&guest.reaper, &request.kernel_modules).await?;
        self.storages.clear().await;
        guest.uploads.clear();
        let hooks = PathBuf::from(request.guest_hook_path);
        let (storages, id) = blocking(move || {
            reset_run_directory()
                .map_err(|source| Error::Step { step: "reset the run directory", source })?;
            make_namespaces(request.hostname)
                .map_err(|source| Error::Step { step: "make the shared namespaces", source })?;
            dns::write(&request.dns).map_err(|source| Error::Step { step: "write resolv.conf", source })?;
            Ok((request.storages, request.sandbox_id))
        })
        .await?;
        self.storages.acquire(guest, "sandbox", &storages).await?;
        // After the storages: that is where they may be.
        let guest_hooks = blocking(move || Ok(scan(&hooks))).await?;
        *self.state() = State::Made { id, pid_namespace: None, guest_hooks };
        crate::timeline::stamp("sandbox created");
        Ok(())
    }

    /// What a new container joins.
    pub(crate) fn shared(&self) -> Result<Shared, Error> {
        let state = self.state();
        let State::Made { id, pid_namespace, guest_hooks } = &*state else {
            return Err(if matches!(*state, State::Destroyed) { Error::Destroyed } else { Error::Missing });
        };
        let namespaces = Path::new(paths::SANDBOX_NAMESPACES);
        Ok(Shared {
            id: id.clone(),
            ipc: namespaces.join("ipc"),
            uts: namespaces.join("uts"),
            mqueue: namespaces.join("mqueue"),
            pid: pid_namespace
                .as_ref()
                .map(|file| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))),
            guest_hooks: guest_hooks.clone(),
        })
    }

    /// The pid namespace of this process becomes the shared one, if it is the first.
    pub(crate) fn offer_pid_namespace(&self, pid: i32) {
        if let State::Made { pid_namespace: slot @ None, .. } = &mut *self.state() {
            *slot = File::open(format!("/proc/{pid}/ns/pid")).ok();
        }
    }

    /// Ends the sandbox. There is only one end.
    pub(crate) async fn destroy(&self) -> Result<(), Error> {
        if matches!(std::mem::replace(&mut *self.state(), State::Destroyed), State::Destroyed) {
            return Err(Error::Destroyed);
        }
        self.storages.clear().await;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The hooks in a directory of the guest; none if there is no such name.
fn scan(directory: &Path) -> GuestHooks {
    if directory.is_absolute() { GuestHooks::scan(directory) } else { GuestHooks::default() }
}

/// Runs what may block on a thread where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| {
        Err(Error::Step { step: "run a blocking step", source: io::Error::other(panic) })
    })
}

/// Empties the run directory. Whatever is still mounted below it is unmounted first: removing the files of a mount
/// would remove them on the host.
fn reset_run_directory() -> io::Result<()> {
    let mounted = mountinfo::read()?.into_iter().filter(|mount| mount.point.starts_with(paths::RUN));
    for mount in mounted.rev() {
        umount2(&mount.point, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_dir_all(paths::RUN) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(paths::SHARE_ROOT)?;
    fs::create_dir_all(paths::SANDBOX)
}

/// Makes an ipc and a uts namespace that outlive the thread that made them, each bound to a file, and a message queue
/// file system that belongs to the former.
fn make_namespaces(hostname: String) -> io::Result<()> {
    // A thread of its own: the namespaces it enters are its own too, and end with it but for the bind mounts.
    let thread = std::thread::Builder::new().name("namespaces".to_string()).spawn(move || {
        let directory = Path::new(paths::SANDBOX_NAMESPACES);
        unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
        if !hostname.is_empty() {
            sethostname(&hostname)?;
        }
        for name in ["ipc", "uts"] {
            let file = directory.join(name);
            replace_mount_point(&file, |file| fs::write(file, ""))?;
            let namespace = format!("/proc/thread-self/ns/{name}");
            mount(Some(namespace.as_str()), &file, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        }
        let queues = directory.join("mqueue");
        replace_mount_point(&queues, |path| fs::create_dir_all(path))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("mqueue"), &queues, Some("mqueue"), flags, None::<&str>)?;
        io::Result::Ok(())
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

/// Unmounts what an earlier sandbox left, and makes the mount point.
fn replace_mount_point(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    fs::create_dir_all(paths::SANDBOX_NAMESPACES)?;
    if path.exists() {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::Error::EINVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    make(path)
}
