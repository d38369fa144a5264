//! VMs for tests: booted on demand, shared where possible, gone afterwards.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use agent_api::agent::CreateSandboxRequest;
use agent_api::paths;
use husk::agent::Client;
use husk::artefacts::ExtensionName;
use husk::image::Reference;
use husk::size::Memory;
use husk::vm::fate::Fate;
use husk::vm::{Vm, VmSpec};
use husk::{share, transport};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use crate::{Disk, Guest, Set, Settings};

/// How long a test may take, and a boot before it. A slow emulated machine under load needs a good part of it.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Name of the root file system's directory in the share.
pub(crate) const ROOTFS: &str = "rootfs";

/// VMs at a time: each wants a processor, and more only make all of them late.
static SLOTS: Semaphore = Semaphore::const_new(2);

/// Tests at a time on one VM, however many threads run them.
static TESTS: Semaphore = Semaphore::const_new(4);

/// Runs a test on the VM that all such tests share.
pub fn test(body: impl AsyncFnOnce(&Guest)) {
    block_on(async {
        let _turn = TESTS.acquire().await.expect("it is never closed");
        attend(Machine::shared().await, LIMIT, body).await;
    });
}

/// A VM of a test's own.
#[derive(Clone, Debug)]
pub struct Boot {
    memory_mib: Option<u64>,
    cpus: u32,
    transport: transport::Kind,
    share: share::Kind,
    cmdline: Vec<String>,
    qemu: Vec<String>,
    disks: u8,
    sandbox: bool,
    limit: Duration,
    artefacts: Option<PathBuf>,
    image: Option<String>,
    extensions: Vec<ExtensionName>,
}

/// How a VM ended.
#[derive(Debug)]
pub struct End {
    /// What the host made of it.
    pub reason: String,
    /// What the guest's console said.
    pub console: String,
}

impl Default for Boot {
    fn default() -> Boot {
        Boot {
            memory_mib: None,
            cpus: 1,
            transport: transport::Kind::Serial,
            share: share::Kind::Auto,
            cmdline: Vec::new(),
            qemu: Vec::new(),
            disks: 0,
            sandbox: true,
            limit: LIMIT,
            artefacts: None,
            image: None,
            extensions: Vec::new(),
        }
    }
}

impl Boot {
    /// A VM like the shared one.
    pub fn new() -> Boot {
        Boot::default()
    }

    /// A VM whose PID 1 is systemd.
    pub fn systemd() -> Boot {
        Boot { memory_mib: Some(1024), artefacts: Some(Settings::systemd()), ..Boot::default() }
    }

    /// A VM to look into: the recipe `debug`.
    pub fn debug() -> Boot {
        Boot { artefacts: Some(Settings::debug()), ..Boot::default() }
    }

    /// A VM whose host is not trusted: the recipe `confidential`.
    pub fn confidential() -> Boot {
        Boot { artefacts: Some(Settings::confidential()), ..Boot::default() }
    }

    /// A VM that boots the image in this format, of a set that has all of them.
    pub fn image(format: &str) -> Boot {
        Boot { artefacts: Some(Settings::formats()), image: Some(format.into()), ..Boot::default() }
    }

    /// From another set of artefacts.
    pub fn artefacts(mut self, set: &Set) -> Boot {
        self.artefacts = Some(set.dir());
        self
    }

    /// With an extension of a set of artefacts, else of the one that is booted: `[DIR:]NAME`.
    pub fn extension(mut self, set: Option<&Path>, name: &str) -> Boot {
        self.extensions.push(ExtensionName { set: set.map(Path::to_owned), name: name.into() });
        self
    }

    /// With this much memory.
    pub fn memory(mut self, mib: u64) -> Boot {
        self.memory_mib = Some(mib);
        self
    }

    /// With this many processors.
    pub fn cpus(mut self, cpus: u32) -> Boot {
        self.cpus = cpus;
        self
    }

    /// With the agent behind vsock instead of a serial port.
    pub fn vsock(mut self) -> Boot {
        self.transport = transport::Kind::Vsock;
        self
    }

    /// With the root file system shared in a certain way.
    pub fn share(mut self, kind: share::Kind) -> Boot {
        self.share = kind;
        self
    }

    /// With one more word on the kernel command line.
    pub fn cmdline(mut self, word: &str) -> Boot {
        self.cmdline.push(word.into());
        self
    }

    /// With more arguments for QEMU, as they are: `&["-device", "virtio-scsi-pci"]`.
    pub fn qemu(mut self, args: &[&str]) -> Boot {
        self.qemu.extend(args.iter().map(ToString::to_string));
        self
    }

    /// With this disk behind virtio-blk, at [`disk_address`] 0, the next at 1, and so on.
    pub fn disk(mut self, disk: &Disk) -> Boot {
        let (id, slot) = (format!("disk{}", self.disks), FIRST_SLOT + self.disks);
        self.disks += 1;
        let device = match Settings::get().arch().row().virtio_bus {
            "ccw" => format!("virtio-blk-ccw,drive={id},devno=fe.0.{slot:04x}"),
            bus => format!("virtio-blk-{bus},drive={id},addr={slot:#x}"),
        };
        self.qemu(&["-drive", &disk.drive(&id), "-device", &device])
    }

    /// With this much time instead of [`LIMIT`]: for what is measured, not judged.
    pub fn limit(mut self, limit: Duration) -> Boot {
        self.limit = limit;
        self
    }

    /// Without `CreateSandbox`: the guest as it comes up.
    pub fn bare(mut self) -> Boot {
        self.sandbox = false;
        self
    }

    /// Boots it, has the guest do something if it comes up, and returns how the VM ended, which it has to.
    pub fn ends(self, body: impl AsyncFnOnce(&Guest)) -> End {
        let (limit, sandbox) = (self.limit, self.sandbox);
        block_on(async {
            let (dir, booted) = Machine::try_boot(self).await;
            let end = async {
                match booted {
                    Err(error) => error.to_string(),
                    Ok(machine) => {
                        if sandbox {
                            // Its end may come at any time.
                            let _ = machine.create_sandbox(|_| ()).await;
                        }
                        let (gone, guest) = (machine.vm.fate(), Guest::new(Arc::new(machine)));
                        body(&guest).await;
                        guest.abandon_all();
                        gone.gone().await.to_string()
                    }
                }
            };
            let reason = tokio::time::timeout(limit, end).await.expect("a guest that ends in time");
            let console = std::fs::read(state(&dir).join("console.log")).unwrap_or_default();
            End { reason, console: String::from_utf8_lossy(&console).into_owned() }
        })
    }

    /// The same, with a console that says something. QEMU tells a guest of its console while it boots: on a busy host a guest
    /// that ends at once may be over before, and say nothing. Then there is another try.
    pub fn ends_with_a_word(self, body: impl AsyncFn(&Guest)) -> End {
        const TRIES: usize = 4;
        let tries = std::iter::repeat_with(|| self.clone().ends(&body)).take(TRIES);
        tries.into_iter().find(|end| !end.console.is_empty()).expect("a guest that says something")
    }

    /// Runs a test on a VM of its own.
    pub fn test(self, body: impl AsyncFnOnce(&Guest)) {
        let limit = self.limit;
        block_on(async { attend(Arc::new(Machine::boot(self).await), limit, body).await });
    }
}

/// What runtimes call the disk of this number that [`Boot::disk`] gave a VM: its driver, and its address. With PCI the
/// first is in slot 10 (hexadecimal) of the root bus, which is its path too.
pub fn disk_address(number: u8) -> (&'static str, String) {
    let slot = FIRST_SLOT + number;
    match Settings::get().arch().row().virtio_bus {
        "ccw" => ("blk-ccw", format!("0.0.{slot:04x}")),
        _ => ("blk", format!("{slot:x}")),
    }
}

/// Where disks begin, behind all that every VM has.
const FIRST_SLOT: u8 = 0x10;

/// A booted VM, its directory and its place among those that may run.
pub(crate) struct Machine {
    // Dropped in this order: the VM lets go of the directory before it is removed.
    pub(crate) vm: Vm,
    dir: Arc<TempDir>,
    _slot: SemaphorePermit<'static>,
}

impl Machine {
    /// The VM that runs already, or a new one. It goes when the last test is done with it.
    async fn shared() -> Arc<Machine> {
        static SHARED: Mutex<Weak<Machine>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(machine) = shared.upgrade()
            && is_up(&machine.vm.fate()).await
        {
            return machine;
        }
        let machine = Arc::new(Machine::boot(Boot::new()).await);
        *shared = Arc::downgrade(&machine);
        machine
    }

    async fn boot(boot: Boot) -> Machine {
        let sandbox = boot.sandbox;
        let (dir, booted) = Machine::try_boot(boot).await;
        let machine = booted.unwrap_or_else(|error| {
            print_logs(&state(&dir));
            panic!("{error}")
        });
        if sandbox {
            let created = machine.create_sandbox(|_| ()).await;
            created.unwrap_or_else(|error| {
                machine.print_logs();
                panic!("{error}")
            });
        }
        machine
    }

    /// The VM's directory, and the VM or why it did not come up.
    async fn try_boot(boot: Boot) -> (Arc<TempDir>, Result<Machine, husk::vm::Error>) {
        let slot = slot().await;
        let dir = Arc::new(TempDir::with_prefix("husk-e2e-").expect("a temporary directory"));
        let share = dir.path().join("share");
        for name in [&share, &state(&dir)] {
            std::fs::create_dir(name).expect("a directory in a new directory");
        }
        unpack(&Settings::get(), &share.join(ROOTFS)).await;
        // Its tasks live on the common runtime: each test has a runtime of its own, which ends before the VM does.
        let booting = runtime().spawn(Vm::boot(spec(boot, share, state(&dir))));
        let booted = booting.await.expect("booting does not panic");
        (dir.clone(), booted.map(|vm| Machine { vm, dir, _slot: slot }))
    }

    pub(crate) async fn create_sandbox(
        &self,
        change: impl FnOnce(&mut CreateSandboxRequest),
    ) -> Result<(), husk::agent::Error> {
        let mut request = CreateSandboxRequest {
            hostname: "e2e".into(),
            sandbox_id: "sandbox".into(),
            storages: self.vm.share_storage(paths::SHARE_ROOT).into_iter().collect(),
            ..Default::default()
        };
        change(&mut request);
        self.vm.agent().create_sandbox(&request).await
    }

    pub(crate) fn share(&self) -> PathBuf {
        self.dir.path().join("share")
    }

    pub(crate) fn print_logs(&self) {
        print_logs(&state(&self.dir));
    }
}

/// A place among the VMs that may run.
pub(crate) async fn slot() -> SemaphorePermit<'static> {
    SLOTS.acquire().await.expect("it is never closed")
}

/// A client of its own on the VM's socket, kept by the common runtime.
pub(crate) async fn connect(vm: &Vm) -> Client {
    let (socket, fate) = (vm.agent_socket(), vm.fate());
    let connecting = runtime().spawn(async move { Client::connect(&socket, Some(fate)).await });
    connecting.await.expect("connecting does not panic").expect("the agent takes another connection")
}

/// Does something on the runtime that outlives every test, for a test that fails and cannot wait by itself. It is over
/// when this returns: the process may end right after the last test, and what still holds a VM then leaves files.
pub(crate) fn after_failure(work: impl Future<Output = ()> + Send + 'static) {
    let (done, over) = std::sync::mpsc::channel();
    let work = runtime().spawn(async move {
        let _ = tokio::time::timeout(Duration::from_secs(10), work).await;
        let _ = done.send(());
    });
    let _ = over.recv_timeout(Duration::from_secs(15));
    work.abort();
}

/// Runs a test on the thread it was started on, which is where its output is kept for the case that it fails.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

async fn attend(machine: Arc<Machine>, limit: Duration, body: impl AsyncFnOnce(&Guest)) {
    let guest = Guest::new(machine);
    let in_time = tokio::time::timeout(limit, async {
        body(&guest).await;
        guest.clean_up().await;
    });
    // The guest is still there when this panics, and tells what it logged.
    assert!(in_time.await.is_ok(), "the test was not done within {} s", limit.as_secs());
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime")
    })
}

async fn is_up(fate: &Fate) -> bool {
    tokio::select! {
        biased;
        _ = fate.gone() => false,
        () = std::future::ready(()) => true,
    }
}

/// What a test asks for, and what the run is about where it asks for nothing.
fn spec(boot: Boot, share: PathBuf, state: PathBuf) -> VmSpec {
    let settings = Settings::get();
    let image = boot.image.or_else(|| settings.boot.clone().filter(|_| boot.artefacts.is_none()));
    let memory_mib = boot.memory_mib.unwrap_or(settings.memory_mib);
    VmSpec {
        memory: Memory::from_mib(memory_mib).expect("an amount that a guest can have"),
        cpus: boot.cpus,
        share: Some(share),
        share_kind: boot.share,
        extensions: boot.extensions,
        transport: boot.transport,
        extra_cmdline: boot.cmdline,
        extra_qemu: boot.qemu,
        // Another init system starts many programs before it starts the agent, and firmware takes its time.
        boot_timeout: if boot.artefacts.is_some() || image.is_some() { 2 * LIMIT } else { LIMIT },
        image,
        ..VmSpec::new(boot.artefacts.as_ref().unwrap_or(&settings.artefacts), state)
    }
}

fn state(dir: &TempDir) -> PathBuf {
    dir.path().join("state")
}

/// Each VM gets files of its own, so that tests may write to them.
async fn unpack(settings: &Settings, rootfs: &Path) {
    let image = Reference { dir: settings.image.clone(), name: None };
    let (arch, rootfs) = (settings.arch(), rootfs.to_path_buf());
    let unpacking = tokio::task::spawn_blocking(move || {
        husk::image::unpack(&image, arch, &rootfs, &AtomicBool::new(false))
    });
    unpacking
        .await
        .expect("unpacking does not panic")
        .unwrap_or_else(|error| panic!("the test image: {error:?}"));
}

/// What a failed test's VM said.
pub(crate) fn print_logs(state: &Path) {
    for name in ["console.log", "agent.log", "qemu.log", "virtiofsd.log", "vsock.log"] {
        if let Ok(bytes) = std::fs::read(state.join(name)) {
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            let skipped = lines.len().saturating_sub(LINES);
            println!(
                "--- {name}, {} lines{}",
                lines.len(),
                if skipped > 0 { ", the last of them:" } else { ":" }
            );
            lines[skipped..].iter().for_each(|line| println!("{line}"));
        }
    }
}

/// The most lines of one log that are printed.
const LINES: usize = 200;
