//! The figures of a running VM, one JSON object a line: what `cargo xtask bench` puts into its table.
//!
//! | figure | how it is taken |
//! |---|---|
//! | cold boot to Health | from the call that executes QEMU to the answer to `Health.Check`, nothing shared, nothing cached by us |
//! | power-on to PID 1 | firmware and kernel, in virtual time: one instruction a nanosecond (`-icount`) |
//! | agent's memory, threads | `/proc/1/status` of a guest with one idle container, seen from that container |

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use e2e::{Boot, Figure, Settings};
use guest_tree::{Attributes, Kind, Node, Origin, Tree};
use husk::vm::{Vm, VmSpec};
use initrd::Compression;
use tokio::process::Command;

/// How often each figure is taken.
const RUNS: usize = 10;

/// How often the boot in virtual time is counted, which hardly varies.
const COUNTED_RUNS: usize = 3;

/// How long one run may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn main() {
    // cargo test runs bench targets too when it is told to build everything; there is nothing to test here.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let settings = Settings::get();
    runtime.block_on(async {
        Figure::new("cold boot to Health", "ms").budget(900.0).report(&cold_boots(&settings).await);
        let counted = counted_boots(&settings).await;
        Figure::new("power-on to PID 1 (icount)", "ms").budget(300.0).report(&counted);
    });
    let (mut memory, mut threads) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        Boot::new().test(async |guest| {
            let idle = guest.container("figures").sees_guest().sh("cat /guest/proc/1/status").run().await;
            memory.push(field(idle.text(), "VmRSS:") / 1e3 * 1.024);
            threads.push(field(idle.text(), "Threads:"));
        });
    }
    Figure::new("agent's memory", "MB").budget(5.0).report(&memory);
    Figure::new("agent's threads", "").report(&threads);
}

/// Milliseconds from QEMU's start to an answering agent.
async fn cold_boots(settings: &Settings) -> Vec<f64> {
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let spec = VmSpec { boot_timeout: DEADLINE, ..VmSpec::new(&settings.artefacts, dir.path()) };
        let start = Instant::now();
        let vm = Vm::boot(spec).await.expect("the VM boots");
        vm.agent().check().await.expect("the agent answers");
        runs.push(start.elapsed().as_secs_f64() * 1e3);
        vm.shutdown().await;
    }
    runs
}

/// Virtual milliseconds from the machine's first instruction, firmware included, to the first of PID 1.
///
/// Each instruction takes one virtual nanosecond and idle time none, so that the figure does not depend on the machine
/// or on what else it does. `pid1.c` reads it, in a ramdisk with the agent beside it: unpacking that counts.
async fn counted_boots(settings: &Settings) -> Vec<f64> {
    let arch = guest_arch::Arch::host().row();
    let manifest = guest_manifest::Manifest::load(&settings.artefacts).expect("a manifest");
    let initrd = manifest.initrd(&settings.artefacts).expect("artefacts that boot from a ramdisk");
    let cmdline = initrd.cmdline.as_deref().unwrap_or_default();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ramdisk = dir.path().join("initrd");
    let agent = std::fs::read(settings.artefacts.join(&manifest.agent.file)).expect("the agent");
    let archive = ramdisk_with(compile(dir.path()).await, agent);
    std::fs::write(&ramdisk, archive).expect("a file in a new directory");
    let mut runs = Vec::new();
    for _ in 0..COUNTED_RUNS {
        let mut qemu = Command::new(arch.qemu_binary);
        qemu.args([
            "-M",
            arch.machine,
            "-accel",
            "tcg,thread=single",
            "-cpu",
            arch.emulated_cpu,
            "-m",
            "256M",
        ])
        .args(["-icount", "shift=0,sleep=off", "-nodefaults", "-no-user-config", "-display", "none"])
        .arg("-no-reboot")
        .arg("-kernel")
        .arg(manifest.kernel_path(&settings.artefacts))
        .arg("-initrd")
        .arg(&ramdisk)
        .args(["-append", &format!("{cmdline} {}", arch.emulated_words(1))])
        .args(["-device", "virtio-serial-pci", "-chardev", "stdio,id=console"])
        .args(["-device", "virtconsole,chardev=console"])
        .stdin(Stdio::null())
        .kill_on_drop(true);
        let ended = tokio::time::timeout(DEADLINE, qemu.output()).await.expect("the guest ends in time");
        let said = String::from_utf8_lossy(&ended.expect("QEMU runs").stdout).into_owned();
        let nanos: f64 = said.trim().parse().unwrap_or_else(|_| panic!("not a time: {said:?}"));
        runs.push(nanos / 1e6);
    }
    runs
}

async fn compile(dir: &Path) -> Vec<u8> {
    let program = dir.join("init");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/pid1.c");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-static", "-nostdlib", "-fno-stack-protector", "-o"]).arg(&program).arg(source);
    assert!(gcc.status().await.expect("gcc runs").success(), "pid1.c does not compile");
    std::fs::read(program).expect("gcc wrote its output")
}

fn ramdisk_with(init: Vec<u8>, agent: Vec<u8>) -> Vec<u8> {
    let origin = Origin::from("the bench");
    let console = Node::new(Kind::CharDevice { major: 5, minor: 1 }, Attributes::root(0o600), &origin);
    let mut tree = Tree::new();
    for (path, node) in [
        ("/init", Node::file(0o755, init, &origin)),
        ("/husk-agent", Node::file(0o755, agent, &origin)),
        ("/dev/console", console),
    ] {
        tree.put(path, node).expect("three paths do not clash");
    }
    initrd::to_vec(&tree, 0, Compression::Zstd).expect("three entries make an archive")
}

/// The number behind a key of `/proc/PID/status`.
fn field(status: &str, key: &str) -> f64 {
    let value = status.lines().find_map(|line| line.strip_prefix(key)).expect("the key is there");
    value.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}
