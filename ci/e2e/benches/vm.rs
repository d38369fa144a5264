//! The figures of a running VM, one JSON object a line: what `cargo xtask bench` puts into its table.
//!
//! | figure | how it is taken |
//! |---|---|
//! | cold boot to Health | from the call that executes QEMU to the answer to `Health.Check`, nothing shared, nothing cached by us |
//! | kernel to PID 1 | the guest's own monotonic clock when the agent's `main` begins, with one instruction a nanosecond |
//! | agent's memory, threads | `/proc/1/status` of a guest with one idle container, seen from that container |

use std::process::Stdio;
use std::time::{Duration, Instant};

use e2e::{Boot, Settings};
use husk::vm::{Vm, VmSpec};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// How often each figure is taken.
const RUNS: usize = 10;

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
        report("cold boot to Health", "ms", cold_boots(&settings).await);
        report("kernel to PID 1 (icount)", "ms", counted_boots(&settings).await);
    });
    let (mut memory, mut threads) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        Boot::new().test(async |guest| {
            let idle = guest.container("figures").sees_guest().sh("cat /guest/proc/1/status").run().await;
            memory.push(field(idle.text(), "VmRSS:") / 1e3 * 1.024);
            threads.push(field(idle.text(), "Threads:"));
        });
    }
    report("agent's memory", "MB", memory);
    report("agent's threads", "", threads);
}

fn report(name: &str, unit: &str, runs: Vec<f64>) {
    println!("{}", json!({ "name": name, "unit": unit, "runs": runs }));
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

/// Virtual milliseconds from the start of the kernel's clock to the agent's first instruction.
///
/// Each instruction takes one virtual nanosecond and idle time none, so that the figure does not depend on the machine
/// or on what else it does.
async fn counted_boots(settings: &Settings) -> Vec<f64> {
    let manifest = guest_manifest::Manifest::load(&settings.artefacts).expect("a manifest");
    // Without a log port the agent's records go to the console.
    let cmdline = manifest.cmdline.replace("agent.log_vport=1025", "");
    let mut runs = Vec::new();
    for _ in 0..3 {
        let socket = tempfile::tempdir().expect("a temporary directory");
        let mut qemu = Command::new("qemu-system-x86_64")
            .args(["-M", "q35", "-accel", "tcg,thread=single", "-cpu", "max", "-m", "256M"])
            .args(["-icount", "shift=0,sleep=off", "-nodefaults", "-no-user-config", "-display", "none"])
            .arg("-no-reboot")
            .arg("-kernel")
            .arg(manifest.kernel_path(&settings.artefacts))
            .arg("-initrd")
            .arg(manifest.initrd_path(&settings.artefacts))
            .args(["-append", &cmdline, "-device", "virtio-serial-pci", "-chardev", "stdio,id=console"])
            .args(["-device", "virtconsole,chardev=console", "-chardev"])
            .arg(format!("socket,id=agent,path={},server=on,wait=off", socket.path().join("agent").display()))
            .args(["-device", "virtserialport,chardev=agent,name=husk.agent"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("QEMU runs");
        let mut lines = BufReader::new(qemu.stdout.take().expect("it is piped")).lines();
        let ready = tokio::time::timeout(DEADLINE, async {
            loop {
                let line = lines
                    .next_line()
                    .await
                    .expect("QEMU's output")
                    .expect("QEMU goes on until the agent is ready");
                match serde_json::from_str::<Value>(&line) {
                    Ok(record) if record["msg"] == "ready" => return record,
                    _ => {}
                }
            }
        });
        let ready = ready.await.expect("the guest is ready in time");
        let micros: f64 = ready["started_us"].as_str().and_then(|text| text.parse().ok()).expect("a number");
        runs.push(micros / 1e3);
        qemu.kill().await.expect("QEMU ends");
    }
    runs
}

/// The number behind a key of `/proc/PID/status`.
fn field(status: &str, key: &str) -> f64 {
    let value = status.lines().find_map(|line| line.strip_prefix(key)).expect("the key is there");
    value.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}
