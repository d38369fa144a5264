//! How the guest is set up: mounts, the kernel's settings, the agent's own, its log and its debug console.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use agent_api::ports;
use e2e::{Boot, Cli, Guest, Settings, test};
use guest_manifest::Manifest;
use guest_tree::{Node, Origin, Tree};
use husk::image::Reference;
use initrd::Compression;
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

/// What husk says when the fault is its own, or the guest's.
const OURS: i32 = 125;

#[test]
fn the_guest_is_mounted_as_peers_have_it() {
    test(async |guest| {
        let mounts =
            guest.container("c1").sees_guest().args(&["cat", "/guest/proc/1/mounts"]).run().await.ok();
        let expected = [
            ("/proc", "proc", "rw,nosuid,nodev,noexec"),
            ("/sys", "sysfs", "rw,nosuid,nodev,noexec"),
            ("/dev", "devtmpfs", "rw,nosuid"),
            ("/dev/shm", "tmpfs", "rw,nosuid,nodev"),
            ("/dev/pts", "devpts", "rw,nosuid,noexec"),
            ("/run", "tmpfs", "rw,nosuid,nodev"),
            ("/sys/fs/cgroup", "cgroup2", "rw,nosuid,nodev,noexec,relatime,nsdelegate"),
        ];
        for (target, kind, options) in expected {
            let lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            let found = lines.into_iter().find(|fields| fields[1] == target && fields[2] == kind);
            let found = found.unwrap_or_else(|| panic!("no {target} in {mounts}"));
            assert!(found[3].starts_with(options), "{target}: {} is not {options}", found[3]);
        }
        let binary = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/run/husk/agent")).unwrap();
        assert!(binary.split(' ').nth(3).unwrap().starts_with("ro,nosuid,nodev"), "{binary}");
    });
}

#[test]
fn the_kernel_is_hardened() {
    test(async |guest| {
        let expected = [
            ("kernel/core_pattern", "|/bin/false"),
            ("kernel/kptr_restrict", "2"),
            ("kernel/dmesg_restrict", "1"),
            ("kernel/unprivileged_bpf_disabled", "1"),
            ("kernel/perf_event_paranoid", "3"),
            ("fs/protected_symlinks", "1"),
            ("fs/protected_hardlinks", "1"),
            ("fs/protected_fifos", "1"),
            ("fs/protected_regular", "2"),
        ];
        let files: Vec<_> = expected.iter().map(|(name, _)| format!("/guest/proc/sys/{name}")).collect();
        let script = format!("for file in {}; do cat $file; done", files.join(" "));
        let values = guest.container("c1").sees_guest().sh(&script).run().await.ok();
        for ((name, value), found) in expected.iter().zip(values.lines()) {
            assert_eq!(found, *value, "{name}");
        }
        assert_eq!(values.lines().count(), expected.len(), "{values}");
        // What that is for: a workload that crashes leaves nothing behind.
        let crash = "ulimit -c unlimited; cd /tmp; sh -c 'kill -SEGV $$'; ls -A /tmp /";
        let left = guest.container("c2").sh(crash).run().await.ok();
        assert!(!left.contains("core"), "{left}");
        let session =
            guest.container("c3").sees_guest().args(&["cat", "/guest/proc/1/stat"]).run().await.ok();
        assert_eq!(session.split(' ').nth(5), Some("1"), "the agent leads a session: {session}");
    });
}

#[test]
fn a_bad_setting_is_a_warning_and_the_guest_boots() {
    Boot::new().cmdline("agent.hotplug_timeout=soon").cmdline("agent.log=trace").test(async |guest| {
        let warning = log_record(guest, "agent.hotplug_timeout").await;
        assert_eq!(warning["level"], "WARN");
        assert!(warning["msg"].as_str().unwrap().contains("\"soon\""), "{warning}");
    });
}

#[test]
fn an_agent_that_must_not_start_ends_its_vm_and_says_why() {
    Cli::test(async |cli| {
        let done = cli.run(&["--kernel-arg", "agent.server_addr=tcp"], &["true"]).run().await;
        done.complains(OURS, &["the guest powered off", "configuration: agent.server_addr", "\"tcp\""]);
        let done = cli.run(&["--kernel-arg", "agent.config_file=/no/such.toml"], &["true"]).run().await;
        done.complains(OURS, &["the guest powered off", "/no/such.toml", "o such file"]);
        cli.nothing_is_left().await;
    });
}

#[test]
fn core_dumps_are_for_those_who_ask() {
    Boot::new().cmdline("agent.devmode").test(async |guest| {
        let pattern = guest.container("c1").args(&["cat", "/proc/sys/kernel/core_pattern"]).run().await.ok();
        assert_eq!(pattern, "core");
    });
}

#[test]
fn the_log_takes_clients_one_after_the_other_and_side_by_side() {
    test(async |guest| {
        let mut clients = Vec::new();
        for round in 0..3 {
            let client = guest.vm().connect(ports::LOGS).await.unwrap();
            clients.push(BufReader::new(client).lines());
            let container = guest.container(&format!("logged{round}")).args(&["true"]).create().await;
            for lines in &mut clients {
                let found = async {
                    loop {
                        let line = lines.next_line().await.unwrap().expect("the log goes on");
                        let record: Value = serde_json::from_str(&line).unwrap();
                        if record["msg"].is_string() && line.contains(container.id()) {
                            return;
                        }
                    }
                };
                tokio::time::timeout(Duration::from_secs(20), found)
                    .await
                    .expect("a record of the container");
            }
            if round == 1 {
                // One goes, the others stay.
                drop(clients.remove(0));
            }
        }
    });
}

#[test]
fn a_guest_without_a_shell_has_no_debug_console_and_says_so() {
    let boot = Boot::new().bare().cmdline("agent.debug_console").cmdline("agent.debug_console_vport=1026");
    boot.test(async |guest| {
        let mut client = guest.vm().connect(ports::DEBUG_CONSOLE).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("husk-agent: debug console: ") && text.contains("/bin/sh"), "{text:?}");
        guest.agent().check().await.unwrap();
    });
}

#[test]
fn nobody_gets_a_debug_console_unasked() {
    Boot::new().bare().cmdline("agent.debug_console_vport=1026").test(async |guest| {
        assert!(guest.vm().connect(ports::DEBUG_CONSOLE).await.is_err());
    });
}

#[test]
fn the_debug_console_is_a_shell_in_the_guest() {
    let shell = Shell::new();
    for vsock in [false, true] {
        let boot = shell.boot().cmdline("agent.debug_console_vport=1026");
        let boot = if vsock { boot.vsock() } else { boot };
        boot.test(async |guest| {
            let mut client = guest.vm().connect(ports::DEBUG_CONSOLE).await.unwrap();
            client.write_all(b"tty; tr '\\0' ' ' < /proc/1/cmdline; echo en''d\n").await.unwrap();
            let text = read_until(&mut client, "end").await;
            assert!(text.contains("/dev/pts/") && text.contains("init"), "{text:?}");
            client.write_all(b"echo star''ted; sleep 4711\n").await.unwrap();
            read_until(&mut client, "started").await;
            drop(client);
            // What the first client left is gone when the next one looks.
            let mut client = guest.vm().connect(ports::DEBUG_CONSOLE).await.unwrap();
            let looking = b"while ps | grep -q '[s]leep 4711'; do sleep 0.1; done; echo al''one\n";
            client.write_all(looking).await.unwrap();
            read_until(&mut client, "alone").await;
            client.write_all(b"exit\n").await.unwrap();
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.unwrap();
            guest.agent().check().await.unwrap();
        });
    }
}

#[test]
fn without_a_port_the_debug_console_is_the_vms_own() {
    let shell = Shell::new();
    shell.boot().test(async |guest| {
        let prompt = async {
            while !std::fs::read_to_string(guest.vm().console_log()).unwrap_or_default().contains("# ") {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), prompt).await.expect("a prompt on the console");
    });
}

/// A ramdisk with a shell in it: what is added comes before what was there, as one archive after the other.
struct Shell(NamedTempFile);

impl Shell {
    fn new() -> Shell {
        let settings = Settings::get();
        let dir = TempDir::new().unwrap();
        let image = Reference { dir: settings.image.clone(), name: None };
        let rootfs = dir.path().join("rootfs");
        husk::image::unpack(&image, settings.arch(), &rootfs, &AtomicBool::new(false)).unwrap();
        let busybox = std::fs::read(rootfs.join("bin/busybox")).unwrap();
        let applets = ["sh", "tty", "tr", "sleep", "ps", "grep", "stty"];
        let origin = Origin::from("the test");
        let mut tree = Tree::new();
        tree.put("/bin/busybox", Node::file(0o755, busybox, &origin)).unwrap();
        for applet in applets {
            tree.put(format!("/bin/{applet}"), Node::symlink("busybox", &origin)).unwrap();
        }
        let mut bytes = initrd::to_vec(&tree, 0, Compression::None).unwrap();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let manifest = Manifest::load(&settings.artefacts).unwrap();
        bytes.extend(
            std::fs::read(manifest.initrd(&settings.artefacts).unwrap().path(&settings.artefacts)).unwrap(),
        );
        let file = NamedTempFile::with_prefix("husk-initrd-").unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Shell(file)
    }

    /// A VM that boots from it, with a debug console.
    fn boot(&self) -> Boot {
        let path: &Path = self.0.path();
        Boot::new().bare().qemu(&["-initrd", path.to_str().unwrap()]).cmdline("agent.debug_console")
    }
}

async fn read_until(client: &mut (impl tokio::io::AsyncRead + Unpin), wanted: &str) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 1024]);
    while !text.contains(wanted) {
        let read = tokio::time::timeout(Duration::from_secs(30), client.read(&mut buffer)).await;
        match read.unwrap_or_else(|_| panic!("nothing more after {text:?}")).unwrap() {
            0 => panic!("it ended with {text:?}"),
            read => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
        }
    }
    text
}

/// The first record of the agent's log that has this in its message.
async fn log_record(guest: &Guest, wanted: &str) -> Value {
    let found = async {
        loop {
            let text = std::fs::read_to_string(guest.vm().agent_log()).unwrap_or_default();
            let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut named =
                records.filter(|record| record["msg"].as_str().is_some_and(|msg| msg.contains(wanted)));
            if let Some(record) = named.next() {
                return record;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.expect("a record in time")
}
