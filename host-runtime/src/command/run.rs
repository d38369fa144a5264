//! `husk run`: one container in a VM of its own, from image to exit code.
//!
//! Everything it makes (state directory, unpacked files, processes, sockets) has a guard that removes it, so every way
//! out, an error and a signal included, leaves nothing behind but what was asked to stay.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_api::agent::{CreateContainerRequest, CreateSandboxRequest};
use protobuf::MessageField;

use super::Error;
use crate::agent::Target;
use crate::artefacts::{Artefacts, ExtensionName};
use crate::container::{self, Workload};
use crate::image::{self, ImageConfig, Reference};
use crate::name::Name;
use crate::session::{self, Attach};
use crate::signals::Signals;
use crate::size::Memory;
use crate::state::{self, Held, Record, Status, Store};
use crate::vm::{self, Vm, VmSpec};
use crate::{share, terminal, transport};

/// Where the root file system comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// An image in an OCI layout, unpacked for this container.
    Image(Reference),
    /// A directory, used in place.
    Rootfs(PathBuf),
}

/// What `husk run` was asked for.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The container's name.
    pub name: Name,
    /// Its root file system.
    pub source: Source,
    /// The program and its arguments; empty: the image's.
    pub command: Vec<String>,
    /// Whether nothing of it stays.
    pub remove: bool,
    /// With a terminal.
    pub terminal: bool,
    /// With our stdin.
    pub interactive: bool,
    /// The guest's memory.
    pub memory: Memory,
    /// The guest's processors.
    pub cpus: u32,
    /// Words on top of the image's environment.
    pub env: Vec<String>,
    /// Instead of the image's working directory.
    pub workdir: Option<String>,
    /// Instead of the image's user.
    pub user: Option<String>,
    /// How bytes reach the agent.
    pub transport: transport::Kind,
    /// How the root file system reaches the guest.
    pub share: share::Kind,
    /// The guest's kernel and images.
    pub artefacts: PathBuf,
    /// The format of the image to boot instead of the usual one.
    pub boot: Option<String>,
    /// Images beside it.
    pub extensions: Vec<ExtensionName>,
    /// How long that may take.
    pub boot_timeout: Duration,
    /// Where unpacked images go, a directory per container.
    pub data: PathBuf,
    /// Words at the end of the kernel command line.
    pub cmdline: Vec<String>,
}

/// How long the agent may take to clear up after a workload that has ended; the VM goes either way.
const REMOVAL: Duration = Duration::from_secs(10);

/// Runs a container and returns its exit code.
pub async fn run(store: &Store, options: RunOptions) -> Result<i32, Error> {
    let mut signals =
        Signals::listen().map_err(|source| Error::System { object: "signals".into(), source })?;
    let name = options.name.clone();
    let mut record = first_record(&options);
    let held = store.create(&name, &record)?;
    let mut files = match &options.source {
        Source::Image(_) => Some(Files(options.data.join(name.as_str()))),
        Source::Rootfs(_) => None,
    };

    let (rootfs, image) = root_file_system(&options, files.as_ref(), &mut signals).await?;
    let workload = workload(&options, image)?;
    record.env.clone_from(&workload.env);
    record.cwd.clone_from(&workload.cwd);
    record.user.clone_from(&workload.user);
    record.command.clone_from(&workload.args);

    let spec = VmSpec {
        memory: options.memory,
        cpus: options.cpus,
        share: Some(rootfs),
        share_kind: options.share,
        transport: options.transport,
        image: options.boot.clone(),
        extensions: options.extensions.clone(),
        boot_timeout: options.boot_timeout,
        extra_cmdline: options.cmdline.clone(),
        ..VmSpec::new(&options.artefacts, held.dir())
    };
    let vm = unless_stopped(&mut signals, "boot", &name, async { Ok(Vm::boot(spec).await?) }).await?;
    let code = match serve(&vm, &name, &workload, &options, &held, &mut record, &mut signals).await {
        Ok(code) => code,
        Err(e) => {
            if !matches!(e, Error::Interrupted { .. }) {
                // The guest is still there after a refusal; ask it to go rather than pull the plug.
                vm.shutdown().await;
            }
            return Err(e);
        }
    };
    let agent = vm.agent();
    let _ = tokio::time::timeout(REMOVAL, agent.remove_container(name.as_str())).await;
    vm.shutdown().await;

    if !options.remove {
        record.status = Status::Stopped;
        record.exit_code = Some(code);
        held.update(&record)?;
        if let Some(files) = files.take() {
            files.keep();
        }
        held.keep();
    }
    Ok(code)
}

/// The agent's part: sandbox, container, process.
async fn serve(
    vm: &Vm,
    name: &Name,
    workload: &Workload,
    options: &RunOptions,
    held: &Held,
    record: &mut Record,
    signals: &mut Signals,
) -> Result<i32, Error> {
    let client = vm.agent();
    let target = Target { container: name.to_string(), exec_id: String::new() };
    let sandbox = CreateSandboxRequest {
        hostname: name.to_string(),
        sandbox_id: name.to_string(),
        storages: vm.share_storage(&container::rootfs(name)).into_iter().collect(),
        ..Default::default()
    };
    let create = CreateContainerRequest {
        container_id: name.to_string(),
        exec_id: name.to_string(),
        OCI: MessageField::some(container::spec(name, workload)),
        ..Default::default()
    };
    unless_stopped(signals, "start", name, async {
        client.create_sandbox(&sandbox).await?;
        client.create_container(&create).await?;
        if let (true, Some((rows, columns))) = (options.terminal, terminal::size()) {
            client.resize(&target, rows, columns).await?;
        }
        Ok(client.start_container(name.as_str()).await?)
    })
    .await?;
    record.status = Status::Running;
    held.update(record)?;
    let attach = Attach { terminal: options.terminal, interactive: options.interactive };
    Ok(session::attend(&client, &target, attach, signals).await?)
}

/// `work`, given up when husk is told to stop.
async fn unless_stopped<T>(
    signals: &mut Signals,
    stage: &'static str,
    name: &Name,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        done = work => done,
        signal = signals.stop() => Err(Error::Interrupted { stage, object: name.to_string(), signal }),
    }
}

/// The directory to share, and what the image says about its workload.
async fn root_file_system(
    options: &RunOptions,
    files: Option<&Files>,
    signals: &mut Signals,
) -> Result<(PathBuf, ImageConfig), Error> {
    let reference = match &options.source {
        Source::Rootfs(dir) => return Ok((dir.clone(), ImageConfig::default())),
        Source::Image(reference) => reference.clone(),
    };
    let files = files.expect("an image is unpacked into files of its own");
    state::remove_tree(&files.0)?;
    state::make_private(&files.0)?;
    let rootfs = files.0.join("rootfs");
    let target = rootfs.clone();
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let artefacts = Artefacts::load(&options.artefacts, options.boot.as_deref());
    let arch = artefacts.map_err(vm::Error::from)?.arch;
    let mut unpacking = tokio::task::spawn_blocking(move || image::unpack(&reference, arch, &target, &seen));
    let unpacked = tokio::select! {
        unpacked = &mut unpacking => unpacked,
        signal = signals.stop() => {
            // It must be done with the directory before the guard removes it.
            stop.store(true, Ordering::Relaxed);
            let _ = unpacking.await;
            return Err(Error::Interrupted { stage: "image", object: options.name.to_string(), signal });
        }
    };
    match unpacked {
        Ok(config) => Ok((rootfs, config?)),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// The image's word, overruled by the flags.
fn workload(options: &RunOptions, image: ImageConfig) -> Result<Workload, Error> {
    let args = if options.command.is_empty() { image.command } else { options.command.clone() };
    if args.is_empty() {
        let cause = "no command given, and the image has none".into();
        return Err(Error::Arguments { object: options.name.to_string(), cause });
    }
    let base = container::merge_env(&container::base_env(&options.name, options.terminal), &image.env);
    Ok(Workload {
        args,
        env: container::merge_env(&base, &options.env),
        cwd: options.workdir.clone().unwrap_or(image.workdir),
        user: options.user.clone().unwrap_or(image.user),
        terminal: options.terminal,
    })
}

fn first_record(options: &RunOptions) -> Record {
    let (image, data) = match &options.source {
        Source::Image(reference) => (reference.to_string(), Some(options.data.join(options.name.as_str()))),
        Source::Rootfs(dir) => (dir.display().to_string(), None),
    };
    Record {
        pid: std::process::id(),
        status: Status::Creating,
        exit_code: None,
        image,
        command: options.command.clone(),
        artefacts: absolute(&options.artefacts),
        data: data.map(|dir| absolute(&dir)),
        remove: options.remove,
        env: Vec::new(),
        cwd: String::new(),
        user: String::new(),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// A container's own files, removed when dropped.
#[derive(Debug)]
struct Files(PathBuf);

impl Files {
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
