//! Real containers on the machine at hand: the jail crate's own processes, a busybox, and what they see.
//!
//! Needs root, and says so and fails without. Leaves nothing: at the end it counts what is left. A
//! machine has cgroups of one version or the other; the tests of those it lacks are named as not run.

mod bench;
mod cgroups;
mod cgroups_v1;
mod devices;
mod filters;
mod hooks;
mod reach;
mod sharing;
mod systemd;
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let first = args.next();
    if first.as_deref() == Some("jail") {
        jail::enter();
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("contained: these tests make namespaces and mounts: run them as root");
        return ExitCode::FAILURE;
    }
    let wanted = first.filter(|word| !word.starts_with('-'));
    let known = tests::ALL.iter().chain(sharing::ALL).chain(reach::ALL).chain(hooks::ALL).chain(filters::ALL);
    let known = known.chain(cgroups::ALL).chain(cgroups_v1::ALL).chain(devices::ALL).chain(systemd::ALL);
    let all = known.filter(|(name, _)| wanted.as_ref().is_none_or(|part| name.contains(part)));
    let before = Left::count();
    let mut failed = 0;
    for (name, test) in all {
        if let Some(missing) = missing(name) {
            println!("test {name} ... not run: there is no {missing}");
            continue;
        }
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += u32::from(!passed);
    }
    let after = Left::count();
    if before != after {
        println!("left behind: before {before:?}, after {after:?}");
        failed += 1;
    }
    println!("{failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a test needs that this machine lacks.
fn missing(test: &str) -> Option<&'static str> {
    match test.split('_').next() {
        Some("cgroup") if !cgroups::available() => Some("cgroups of version 2 alone"),
        Some("cgroup1") if !cgroups_v1::available() => Some("cgroups of version 1"),
        Some("devices") if !devices::available() => Some("cgroups of version 2"),
        Some("systemd") if !systemd::available() => Some("systemd"),
        _ => None,
    }
}

/// What a run could leave behind in this process and on this machine.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    mounts: usize,
    descriptors: usize,
    children: bool,
    namespaces: Vec<String>,
}

impl Left {
    fn count() -> Left {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let any = nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
        let namespace =
            |name: &str| format!("{:?}", std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap());
        let namespaces =
            ["pid_for_children", "ipc", "uts", "mnt", "net", "cgroup", "user"].map(namespace).to_vec();
        Left { mounts, descriptors, children: any != Err(nix::errno::Errno::ECHILD), namespaces }
    }
}
