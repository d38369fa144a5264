//! One virtual machine: boots from artefacts to an agent that answers, and leaves nothing behind.
//!
//! Order of a boot: shared directory, transport, QEMU, its greeting, the guest opening the agent's port (its way to
//! say that it is ready; nothing is polled), one `Health.Check`, the log stream.

pub mod boot;
pub mod fate;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_api::agent::Storage;
use agent_api::ports;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::agent;
use crate::artefacts::{self, Artefacts, ExtensionName};
use crate::error::Chained;
use crate::log;
use crate::process::Process;
use crate::program::find_program;
use crate::qemu::{Accel, config, qmp};
use crate::share::{self, Share};
use crate::size::Memory;
use crate::transport::{self, mux::Mux, vsock, vsock::Vsock};
use fate::{Evidence, Fate, Gone, Monitor};

/// Name of the socket in a VM's directory on which clients ask for the guest's ports.
pub const AGENT_SOCKET: &str = "agent.sock";

/// What a VM shall be.
#[derive(Clone, Debug)]
pub struct VmSpec {
    /// Directory with `manifest.json`, the kernel and the images of its root.
    pub artefacts: PathBuf,
    /// The format of the image to boot. By default it is a ramdisk, else the first that boots.
    pub image: Option<String>,
    /// Images beside the root, which the agent mounts.
    pub extensions: Vec<ExtensionName>,
    /// The guest's memory.
    pub memory: Memory,
    /// The guest's processors.
    pub cpus: u32,
    /// A directory the guest sees, if any.
    pub share: Option<PathBuf>,
    /// How it sees it.
    pub share_kind: share::Kind,
    /// How bytes reach the agent.
    pub transport: transport::Kind,
    /// An existing directory for sockets and logs. Logs stay when the VM goes, sockets do not.
    pub state_dir: PathBuf,
    /// Words at the end of the kernel command line.
    pub extra_cmdline: Vec<String>,
    /// Arguments for QEMU after ours, unchecked: for tests, and for those who know QEMU.
    pub extra_qemu: Vec<String>,
    /// From QEMU's start to an answering agent.
    pub boot_timeout: Duration,
}

impl VmSpec {
    /// 256 MiB, one processor, nothing shared.
    pub fn new(artefacts: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> VmSpec {
        VmSpec {
            artefacts: artefacts.into(),
            image: None,
            extensions: Vec::new(),
            memory: Memory::from_mib(256).expect("256 MiB is an ordinary amount"),
            cpus: 1,
            share: None,
            share_kind: share::Kind::Auto,
            transport: transport::Kind::Serial,
            state_dir: state_dir.into(),
            extra_cmdline: Vec::new(),
            extra_qemu: Vec::new(),
            boot_timeout: Duration::from_secs(30),
        }
    }
}

/// Why a VM does not boot, or did not last.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The artefacts.
    #[error(transparent)]
    Artefacts(#[from] artefacts::Error),
    /// The image that is booted.
    #[error("boot: {0}")]
    Boot(#[from] boot::Error),
    /// The shared directory.
    #[error("share: {0}")]
    Share(Chained<share::Error>),
    /// The vsock daemon.
    #[error("vsock: {0}")]
    Vsock(Chained<vsock::Error>),
    /// There is no emulator.
    #[error("qemu: {0}: not found")]
    NoQemu(&'static str),
    /// It cannot be started, or one of its channels cannot be made.
    #[error("qemu: {object}: {}", crate::error::plain(source))]
    Qemu {
        /// What was made.
        object: String,
        /// What the system said.
        source: io::Error,
    },
    /// Its control channel.
    #[error("qemu: control channel: {0}")]
    Control(String),
    /// The VM ended.
    #[error("boot: guest: {0}")]
    Gone(Gone),
    /// The guest took too long.
    #[error("boot: guest: not ready within {} s; its console ends with: {console}", .limit.as_secs())]
    Late {
        /// The deadline.
        limit: Duration,
        /// The console's last line.
        console: String,
    },
    /// The agent did not answer.
    #[error("boot: agent: {0}")]
    Agent(Chained<agent::Error>),
}

impl From<Gone> for Error {
    fn from(gone: Gone) -> Error {
        Error::Gone(gone)
    }
}

/// A running VM. Dropping it kills QEMU and the helpers and removes the sockets.
#[derive(Debug)]
pub struct Vm {
    // Fields are dropped in this order: first what talks to QEMU, then QEMU, then what QEMU talks to.
    logs: Option<JoinHandle<()>>,
    client: agent::Client,
    _mux: Option<Mux>,
    commands: qmp::Commands,
    monitor: Monitor,
    qemu: Process,
    _vsock: Option<Vsock>,
    share: Option<Share>,
    _sockets: Sockets,
    dir: PathBuf,
}

impl Vm {
    /// Boots a VM and checks that its agent answers.
    pub async fn boot(spec: VmSpec) -> Result<Vm, Error> {
        let dir = &spec.state_dir;
        let sockets = Sockets(dir.clone());
        let artefacts = Artefacts::load(&spec.artefacts, spec.image.as_deref())?;
        let extensions = artefacts.extensions(&spec.extensions)?;
        let row = artefacts.arch.row();
        let program = find_program(row.qemu_binary, &[]).ok_or(Error::NoQemu(row.qemu_binary))?;
        let share = match &spec.share {
            Some(shared) => {
                let share = Share::start(shared, spec.share_kind, artefacts.arch, dir);
                Some(share.map_err(|e| Error::Share(e.into()))?)
            }
            None => None,
        };
        let hybrid = dir.join(AGENT_SOCKET);
        let vsock = match spec.transport {
            transport::Kind::Serial => None,
            transport::Kind::Vsock => {
                Some(Vsock::start(dir, &hybrid).await.map_err(|e| Error::Vsock(e.into()))?)
            }
        };
        let accel = Accel::detect(artefacts.arch);
        let of_machine = if accel == Accel::Tcg { row.emulated_words(spec.cpus) } else { String::new() };
        let words = extensions.iter().map(|extension| extension.cmdline.clone());
        let words: Vec<String> = words.chain(spec.extra_cmdline).collect();
        let config = config::Config {
            machine: row.machine.into(),
            bus: row.virtio_bus,
            console: row.console_device,
            accel,
            emulated_cpu: row.emulated_cpu,
            memory: spec.memory,
            cpus: spec.cpus,
            boot: boot::boot(&artefacts, &of_machine, &words, dir)?,
            extensions,
            share: share.as_ref().map(Share::device),
            vsock: vsock.as_ref().map(|vsock| vsock.device.clone()),
            extra: spec.extra_qemu,
        };
        let (qemu, channels) = start_qemu(&program, &config, dir)?;

        let boot = async {
            let (mut monitor, commands, serial) = attach(&qemu, channels, dir).await?;
            monitor.port_open().await?;
            let mux = match spec.transport {
                transport::Kind::Serial => Some(Mux::start(serial, &hybrid).map_err(cannot(&hybrid))?),
                transport::Kind::Vsock => None,
            };
            if let Some(mux) = &mux {
                monitor.follow(mux.ended());
            }
            let client = first_answer(&hybrid, monitor.fate()).await?;
            Ok::<_, Error>((monitor, commands, mux, client))
        };
        let boot = async {
            match tokio::time::timeout(spec.boot_timeout, boot).await {
                Ok(booted) => booted,
                Err(_) => {
                    Err(Error::Late { limit: spec.boot_timeout, console: log::last_line(&dir.join(CONSOLE)) })
                }
            }
        };
        let (mut monitor, commands, mux, client) = with_share(share.as_ref(), boot).await?;
        let obituary = share.as_ref().map(Share::obituary).transpose().map_err(cannot(Path::new("share")))?;
        if let Some(end) = obituary.flatten() {
            monitor.follow(end);
        }
        if let Some(vsock) = &vsock {
            monitor.follow(vsock.obituary().map_err(cannot(Path::new("vsock")))?);
        }
        let logs = follow_logs(&hybrid, dir.join(AGENT_LOG));
        Ok(Vm {
            logs: Some(logs),
            client,
            _mux: mux,
            commands,
            monitor,
            qemu,
            _vsock: vsock,
            share,
            _sockets: sockets,
            dir: spec.state_dir,
        })
    }

    /// The connection to the agent.
    pub fn agent(&self) -> agent::Client {
        self.client.clone()
    }

    /// A stream to any port of the guest.
    pub async fn connect(&self, port: u32) -> Result<UnixStream, transport::Error> {
        transport::connect(&self.agent_socket(), port).await
    }

    /// What the agent shall mount so that the shared directory appears at `mount_point`; `None` if nothing is shared.
    pub fn share_storage(&self, mount_point: &str) -> Option<Storage> {
        self.share.as_ref().map(|share| share.storage(mount_point))
    }

    /// The socket on which clients ask for ports.
    pub fn agent_socket(&self) -> PathBuf {
        self.dir.join(AGENT_SOCKET)
    }

    /// What the guest's console said.
    pub fn console_log(&self) -> PathBuf {
        self.dir.join(CONSOLE)
    }

    /// What QEMU complained of.
    pub fn qemu_stderr(&self) -> PathBuf {
        self.dir.join(QEMU_LOG)
    }

    /// What the agent logged, one JSON object a line.
    pub fn agent_log(&self) -> PathBuf {
        self.dir.join(AGENT_LOG)
    }

    /// QEMU's process id.
    pub fn qemu_pid(&self) -> u32 {
        self.qemu.pid()
    }

    /// Has QEMU execute a command of its control channel (QMP), and returns what it returned.
    pub async fn qmp(&self, command: &str, arguments: serde_json::Value) -> Result<serde_json::Value, Error> {
        let executed = self.fate().guard(self.commands.execute(command, arguments)).await?;
        executed.map_err(|error| Error::Control(error.to_string()))
    }

    /// What becomes of it.
    pub fn fate(&self) -> Fate {
        self.monitor.fate().clone()
    }

    /// Asks the agent to power off, waits for QEMU to leave, and kills what remains.
    pub async fn shutdown(mut self) {
        let left = async {
            if self.client.destroy_sandbox().await.is_ok() {
                self.monitor.fate().gone().await;
            }
        };
        let _ = tokio::time::timeout(POWER_OFF, left).await;
        // The log ends with the guest; what is still under way fits in a moment.
        if let Some(logs) = self.logs.take() {
            let _ = tokio::time::timeout(Duration::from_secs(1), logs).await;
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if let Some(logs) = &self.logs {
            logs.abort();
        }
    }
}

const CONSOLE: &str = "console.log";
const QEMU_LOG: &str = "qemu.log";
const AGENT_LOG: &str = "agent.log";

/// How long an orderly power-off may take.
const POWER_OFF: Duration = Duration::from_secs(10);

/// Removes what a VM's directory has for its devices when dropped.
#[derive(Debug)]
struct Sockets(PathBuf);

impl Drop for Sockets {
    fn drop(&mut self) {
        for name in [AGENT_SOCKET, "share.sock", "vsock.sock"] {
            let _ = std::fs::remove_file(self.0.join(name));
        }
        let _ = std::fs::remove_dir_all(self.0.join(boot::EFI_DISK));
    }
}

/// Our ends of QEMU's channels, in the order of [`config::PASSED`].
struct Channels {
    qmp: UnixStream,
    console: UnixStream,
    serial: UnixStream,
}

fn cannot(object: &Path) -> impl Fn(io::Error) -> Error {
    let object = object.display().to_string();
    move |source| Error::Qemu { object: object.clone(), source }
}

/// Starts QEMU with one end of a socket pair for each channel: no path, no race, nothing to remove.
fn start_qemu(program: &Path, config: &config::Config, dir: &Path) -> Result<(Process, Channels), Error> {
    let channel = || -> io::Result<(UnixStream, OwnedFd)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((UnixStream::from_std(ours)?, theirs.into()))
    };
    let channels = || -> io::Result<_> { Ok((channel()?, channel()?, channel()?)) };
    let ((qmp, a), (console, b), (serial, c)) = channels().map_err(cannot(Path::new("channel")))?;
    let process = Process::start(program, &config.argv(), &dir.join(QEMU_LOG), vec![a, b, c])
        .map_err(cannot(program))?;
    Ok((process, Channels { qmp, console, serial }))
}

/// Follows a QEMU that was just started. Its death before the greeting is told in its own words.
async fn attach(
    qemu: &Process,
    channels: Channels,
    dir: &Path,
) -> Result<(Monitor, qmp::Commands, UnixStream), Error> {
    let evidence = Evidence { console: dir.join(CONSOLE), qemu_stderr: dir.join(QEMU_LOG) };
    let watch = qemu.watch().map_err(cannot(Path::new("process")))?;
    let console = evidence.console.clone();
    let console = tokio::spawn(async move {
        let _ = log::capture(channels.console, console, log::LIMIT).await;
    });
    let (events, commands) = match qmp::greet(channels.qmp).await {
        Ok(channel) => channel,
        // The channel of a dead QEMU closes before the process can be waited for.
        Err(e) => match tokio::time::timeout(Duration::from_secs(2), watch.exited()).await {
            Ok(how) => return Err(Error::Gone(Gone::new(fate::explain(&how, None, &evidence)))),
            Err(_) => return Err(Error::Control(e.to_string())),
        },
    };
    Ok((Monitor::start(watch, events, console, evidence), commands, channels.serial))
}

/// A boot during which the shared directory's daemon may die. It dies with QEMU, and QEMU with it: who failed first
/// is told by how the daemon ended.
async fn with_share<T>(
    share: Option<&Share>,
    boot: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(share) = share else { return boot.await };
    const MOMENT: Duration = Duration::from_secs(2);
    tokio::pin!(boot);
    tokio::select! {
        booted = &mut boot => match booted {
            Err(Error::Gone(gone)) => match tokio::time::timeout(MOMENT, share.died()).await {
                Ok(died) if !died.is_orderly() => Err(Error::Share(died.into())),
                _ => Err(Error::Gone(gone)),
            },
            booted => booted,
        },
        died = share.died() => match tokio::time::timeout(MOMENT, &mut boot).await {
            Ok(Err(error)) if died.is_orderly() => Err(error),
            _ => Err(Error::Share(died.into())),
        },
    }
}

/// Connects and checks. A guest that dies meanwhile takes the connection along before it is known why: that is waited for,
/// as it says more than a connection that failed.
async fn first_answer(socket: &Path, fate: &Fate) -> Result<agent::Client, Error> {
    const MOMENT: Duration = Duration::from_secs(2);
    let error = match fate.guard(answer(socket, fate)).await? {
        Ok(client) => return Ok(client),
        Err(error) => error,
    };
    match tokio::time::timeout(MOMENT, fate.gone()).await {
        Ok(gone) => Err(Error::Gone(gone)),
        Err(_) => Err(Error::Agent(error.into())),
    }
}

/// The serial port carries the signal that the guest is ready; with vsock the listener may come a moment later, so a
/// refusal is asked again there.
async fn answer(socket: &Path, fate: &Fate) -> Result<agent::Client, agent::Error> {
    loop {
        match agent::Client::connect(socket, Some(fate.clone())).await {
            Ok(client) => {
                client.check().await?;
                return Ok(client);
            }
            Err(agent::Error::Connect(transport::Error::Refused(_))) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Copies the agent's log stream into its file.
fn follow_logs(socket: &Path, file: PathBuf) -> JoinHandle<()> {
    let socket = socket.to_path_buf();
    tokio::spawn(async move {
        if let Ok(stream) = transport::connect(&socket, ports::LOGS).await {
            let _ = log::capture(stream, file, log::LIMIT).await;
        }
    })
}
