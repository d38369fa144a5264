//! `cargo xtask bench --boot`: where the time between a kernel's first instruction and PID 1 goes.
//!
//! QEMU counts instructions, one a nanosecond, and idle time as none, so that the figures depend on nothing but the
//! kernel and the machine it is given. The kernel times its own initialisers (`initcall_debug`); what lies between two
//! messages and is none of theirs is shown as a gap. Early initialisers are timed by a clock that ticks only every 4 ms:
//! the time stamps of messages are finer.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use ::kernel_config::Variant;
use anyhow::{Context, Result, bail};
use guest_arch::Arch;
use guest_inputs::{Cache, Progress};
use guest_tree::{Attributes, Kind, Node, Origin, Tree};
use initrd::Compression;

use crate::deps;

/// How many initialisers and gaps are shown: the rest is small change.
const SHOWN: usize = 12;
/// What is no gap, in milliseconds.
const SMALL: f64 = 1.0;
/// Seconds after which a guest hangs. Emulated and counted, a boot takes one or two.
const DEADLINE: &str = "120";

/// For a program that needs no C library, which cross compilers come without.
const FREESTANDING: [&str; 6] =
    ["-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-Wl,--no-relax"];

/// What a kernel's log says of its boot.
#[derive(Debug, Default, PartialEq)]
struct Digest {
    /// Milliseconds from the kernel's first time stamp to PID 1.
    pid1: Option<f64>,
    /// Microseconds and names of initialisers, the longest first.
    initcalls: Vec<(u64, String)>,
    /// Milliseconds without a message, and the message that ended them; the longest first.
    gaps: Vec<(f64, String)>,
}

pub(crate) fn run(arches: &[Arch], install_deps: bool) -> Result<()> {
    deps::ensure(&[&deps::kernel(arches, &[Variant::Lean]), &deps::vm(arches)], install_deps)?;
    for &arch in arches {
        let kernel = ::kernel_config::build(&Cache::open()?, arch, Variant::Lean, &Progress::new())?;
        let dir = tempfile::tempdir()?;
        let source = dir.path().join("pid1.c");
        fs::write(&source, include_str!("bench_boot/pid1.c"))?;
        let init = compile(arch, &source, &FREESTANDING)?;
        let log = boot(arch, &kernel.image, &init, "initcall_debug log_buf_len=1M");
        let log = log.with_context(|| format!("the boot of {arch}"))?;
        println!("{}", Digest::of(&log).text(arch));
    }
    Ok(())
}

/// What a guest with this PID 1 says on its console while it counts instructions.
pub(crate) fn boot(arch: Arch, kernel: &Path, init: &[u8], words: &str) -> Result<String> {
    let dir = tempfile::tempdir()?;
    let ramdisk = dir.path().join("initrd");
    fs::write(&ramdisk, self::ramdisk(init.to_vec())?)?;
    let row = arch.row();
    let words = format!("quiet console={} panic=-1 {words} {}", row.console, row.emulated_words(1));
    let mut qemu = Command::new("timeout");
    qemu.args([DEADLINE, row.qemu_binary, "-M", row.machine, "-cpu", row.emulated_cpu, "-m", "256M"]);
    qemu.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    qemu.args(row.firmware.map(|firmware| ["-bios", firmware]).iter().flatten());
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(&ramdisk).args(["-append", &words]);
    qemu.args(["-device", &format!("virtio-serial-{}", row.virtio_bus), "-chardev", "stdio,id=console"]);
    let console = format!("{},chardev=console", row.console_device);
    qemu.args(["-device", &console]).stdin(Stdio::null());
    let output = qemu.output().with_context(|| format!("cannot run {}", row.qemu_binary))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if said.is_empty() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(said)
}

fn ramdisk(init: Vec<u8>) -> Result<Vec<u8>> {
    let (mut tree, origin) = (Tree::new(), Origin::from("this benchmark"));
    tree.put("/init", Node::file(0o755, init, &origin))?;
    let console = Kind::CharDevice { major: 5, minor: 1 };
    tree.put("/dev/console", Node::new(console, Attributes::root(0o600), &origin))?;
    Ok(initrd::to_vec(&tree, 0, Compression::Zstd)?)
}

/// Compiles a program for a guest.
pub(crate) fn compile(arch: Arch, source: &Path, flags: &[&str]) -> Result<Vec<u8>> {
    let program = source.with_extension("");
    let prefix = if arch == Arch::host() { "" } else { arch.row().cross_compile };
    let mut gcc = Command::new(format!("{prefix}gcc"));
    let status =
        gcc.args(flags).arg("-o").arg(&program).arg(source).status().context("cannot run the C compiler")?;
    if !status.success() {
        bail!("the C compiler failed ({status})");
    }
    Ok(fs::read(program)?)
}

impl Digest {
    /// Reads lines such as "<6>[    0.123456] initcall f+0x0/0x10 returned 0 after 12 usecs"; others are skipped.
    fn of(log: &str) -> Digest {
        let mut digest = Digest::default();
        let mut before: Option<f64> = None;
        for (time, message) in log.lines().filter_map(stamped) {
            if message.starts_with("Run /init") {
                digest.pid1 = Some(time);
                break;
            }
            let spent = time - before.replace(time).unwrap_or(time);
            match initcall(message) {
                Some(initcall) => digest.initcalls.push(initcall),
                None if spent >= SMALL => digest.gaps.push((spent, message.to_owned())),
                None => {}
            }
        }
        digest.initcalls.sort_by(|a, b| b.cmp(a));
        digest.gaps.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        digest
    }

    fn text(&self, arch: Arch) -> String {
        let all: u64 = self.initcalls.iter().map(|(spent, _)| spent).sum();
        let pid1 = self.pid1.map_or("never".to_owned(), |time| format!("{time:.1} ms"));
        let count = self.initcalls.len();
        let mut lines = vec![format!(
            "{arch}: PID 1 after {pid1}; {count} initialisers, {:.1} ms of it",
            all as f64 / 1e3
        )];
        let calls = self.initcalls.iter().take(SHOWN);
        lines.extend(calls.map(|(spent, name)| format!("    {:>8.2} ms  {name}", *spent as f64 / 1e3)));
        let gaps = self.gaps.iter().take(SHOWN);
        lines.extend(gaps.map(|(spent, message)| format!("    {spent:>8.2} ms  before {message:?}")));
        lines.join("\n")
    }
}

/// Milliseconds, and what was said then.
fn stamped(line: &str) -> Option<(f64, &str)> {
    let (_, rest) = line.split_once('[')?;
    let (seconds, message) = rest.split_once("] ")?;
    Some((seconds.trim().parse::<f64>().ok()? * 1e3, message.trim_end()))
}

fn initcall(message: &str) -> Option<(u64, String)> {
    let rest = message.strip_prefix("initcall ")?;
    let (name, _) = rest.split_once('+')?;
    let (_, spent) = rest.split_once(" after ")?;
    Some((spent.strip_suffix(" usecs")?.parse().ok()?, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "<5>[    0.000000] Linux version 6.12\n<6>[    0.054000] Freeing SMP alternatives memory: 36K\n\
        <7>[    0.055000] calling  acpi_init+0x0/0x640 @ 1\n<6>[    0.060000] ACPI: Interpreter enabled\n\
        <7>[    0.079000] initcall acpi_init+0x0/0x640 returned 0 after 24000 usecs\n\
        <7>[    0.080000] initcall loop_init+0x0/0xf0 returned 0 after 36 usecs\n\
        <6>[    0.081500] Run /init as init process\n<7>[    0.200000] initcall late+0x0/0x1 returned 0 after 9 usecs\n\
        a line of something else [x] y\n";

    #[test]
    fn what_took_time_is_told_the_longest_first_and_nothing_after_pid_1() {
        let digest = Digest::of(LOG);
        assert_eq!(digest.initcalls, [(24_000, "acpi_init".to_owned()), (36, "loop_init".to_owned())]);
        let gaps: Vec<_> =
            digest.gaps.iter().map(|(spent, message)| (spent.round(), message.as_str())).collect();
        let expected = [(54.0, "Freeing SMP alternatives memory: 36K"), (5.0, "ACPI: Interpreter enabled")];
        assert_eq!(gaps[..2], expected);
        assert!((digest.pid1.unwrap() - 81.5).abs() < 1e-6);
        let text = digest.text(Arch::X86_64);
        assert!(text.starts_with("x86_64: PID 1 after 81.5 ms; 2 initialisers, 24.0 ms of it\n"), "{text}");
        assert!(text.contains("       24.00 ms  acpi_init\n"), "{text}");
    }

    #[test]
    fn a_boot_that_never_comes_to_pid_1_says_so() {
        assert!(Digest::of("[    0.1] x\n").text(Arch::S390x).starts_with("s390x: PID 1 after never; 0 "));
    }
}
