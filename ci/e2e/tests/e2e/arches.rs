//! What has to work on every architecture: `cargo xtask test --arch` runs these alone, on that architecture emulated.
//!
//! Each is about something that differs between architectures: numbers of system calls, requests and flags, the order of
//! bytes, floating point, the way to power off. All else is tested once, on the machine's own.

use std::io::Write as _;
use std::time::Duration;

use agent_api::agent::ListInterfacesRequest;
use agent_api::oci::{LinuxSeccomp, LinuxSyscall};
use e2e::{Boot, Disk, Settings, disk_address, storage, test};
use guest_manifest::Manifest;
use husk::agent::Stream;
use kernel_config::golden;
use protobuf::MessageField;
use sha2::{Digest, Sha256};
use ttrpc::context;

use super::layers::whole_and_flipped;
use super::noise;

const MIB: i64 = 1 << 20;

#[test]
fn the_guest_is_healthy_and_what_the_artefacts_say() {
    test(async |guest| {
        guest.agent().check().await.unwrap();
        let done = guest.container("c1").sh("uname -m; exit 7").run().await;
        assert_eq!((done.status, done.text()), (7, Settings::get().arch().row().uname));
    });
}

#[test]
fn the_kernel_is_the_one_with_the_golden_configuration() {
    test(async |guest| {
        let settings = Settings::get();
        let manifest = Manifest::load(&settings.artefacts).unwrap();
        let variant = manifest.variant.parse().unwrap();
        let golden = golden::path(&manifest.kernel_version, settings.arch(), variant);
        let golden = std::fs::read_to_string(&golden).unwrap_or_else(|e| panic!("{}: {e}", golden.display()));
        let version = guest.container("c1").sh("cat /proc/version").run().await.ok();
        let wanted =
            format!("Linux version {}-husk (husk@config-{})", manifest.kernel_version, golden::mark(&golden));
        assert!(version.starts_with(&wanted), "{version} does not begin with {wanted}");
    });
}

#[test]
fn a_second_process_runs_beside_the_first() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let done =
            container.exec(&["sh", "-c", "id -u; cat; echo aside >&2; kill -KILL $$"]).user(1000, 1000);
        let process = done.start().await;
        process.write(b"piped").await;
        process.close_stdin().await;
        let done = process.output().await;
        assert_eq!((done.status, done.text(), done.error_text()), (137, "1000\npiped", "aside"));
    });
}

#[test]
fn limits_are_set_and_bind() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]);
        let container = container.memory(32 * MIB).cpu(50_000, 100_000).pids(6).start().await;
        let read = "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max";
        assert_eq!(container.sh(read).await, format!("{}\n50000 100000\n6", 32 * MIB));
        let script = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all";
        let forked = container.exec(&["sh", "-c", script]).run().await;
        assert!(forked.status != 0 && forked.error_text().contains("can't fork"), "{forked:?}");
        let greedy = guest.container("c2").args(&["tail", "-n", "1", "/dev/zero"]).memory(16 * MIB);
        assert_eq!(greedy.run().await.status, 137);
    });
}

#[test]
fn what_goes_in_comes_out() {
    const SIZE: usize = 4 << 20;
    test(async |guest| {
        let container = guest.container("c1").args(&["cat"]).start().await;
        let cat = container.init();
        let feed = async {
            let (mut digest, mut noise) = (Sha256::new(), noise(SIZE));
            while let Some(chunk) = noise.next_chunk(256 << 10) {
                digest.update(&chunk);
                cat.write(&chunk).await;
            }
            cat.close_stdin().await;
            digest.finalize()
        };
        let (sent, received) = tokio::join!(feed, cat.read_all(Stream::Stdout));
        assert_eq!((received.len(), Sha256::digest(&received)), (SIZE, sent));
        assert_eq!(cat.wait().await, 0);
    });
}

#[test]
fn floating_point_survives_other_processes() {
    // Each operation by itself, as the interpreter does it: the results are those of IEEE 754 to the last bit.
    const ROUNDS: u32 = 3000;
    let series = |seed: f64| (0..ROUNDS).fold(seed, |x, _| x * 1.000_001 + seed / 3.0);
    test(async |guest| {
        let program = format!(
            "BEGIN {{ x = s; for (i = 0; i < {ROUNDS}; i++) {{ y = x * 1.000001; x = y + s / 3 }}; printf \"%.6f\\n\", x }}"
        );
        let script = format!(
            "cd /tmp; for s in 1 2 3 4; do awk -v s=$s '{program}' > $s & done; wait; cat 1 2 3 4; \
             awk 'BEGIN {{ printf \"%.15f %d\\n\", 2 / 3, 3.99 }}'"
        );
        let printed = guest.container("c1").sh(&script).run().await.ok();
        let mut wanted: Vec<String> = [1.0, 2.0, 3.0, 4.0].map(|seed| format!("{:.6}", series(seed))).into();
        wanted.push("0.666666666666667 3".into());
        assert_eq!(printed.lines().collect::<Vec<_>>(), wanted);
    });
}

#[test]
fn calls_are_filtered() {
    test(async |guest| {
        let rule = LinuxSyscall {
            // The second is the only one of the two that newer architectures have.
            Names: vec!["mkdir".into(), "mkdirat".into()],
            Action: "SCMP_ACT_ERRNO".into(),
            ..Default::default()
        };
        let filter = LinuxSeccomp {
            DefaultAction: "SCMP_ACT_ALLOW".into(),
            Syscalls: vec![rule],
            ..Default::default()
        };
        let script = "mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status";
        let filtered = guest.container("c1").sh(script);
        let filtered = filtered.linux(|linux| linux.Seccomp = MessageField::some(filter));
        assert_eq!(
            filtered.run().await.ok(),
            "mkdir: can't create directory '/tmp/x': Operation not permitted\nSeccomp:\t2"
        );
        assert_eq!(guest.container("c2").sh("mkdir /tmp/x && echo made").run().await.ok(), "made");
    });
}

#[test]
fn a_terminal_has_a_size() {
    test(async |guest| {
        let script =
            "tty; stty size; echo up; while [ \"$(stty size)\" != '33 77' ]; do sleep 0.1; done; echo ok";
        let container = guest.container("c1").sh(script).terminal().start().await;
        assert!(container.init().read_until("up").await.contains("/dev/pts/0"));
        container.init().try_resize(33, 77).await.unwrap();
        container.init().read_until("ok").await;
    });
}

#[test]
fn devices_are_ruled_by_a_program_in_the_kernel() {
    test(async |guest| {
        let script = "head -c 4 /dev/zero | wc -c; mknod /dev/it c 10 237; head -c 1 /dev/it 2>&1";
        let done = guest.container("c1").privileged().sh(script).run().await;
        assert_eq!(done.text(), "4\nhead: /dev/it: Operation not permitted", "{done:?}");
    });
}

#[test]
fn the_network_is_listed() {
    test(async |guest| {
        let limit = context::with_duration(Duration::from_secs(10));
        let listed = guest.agent().service().list_interfaces(limit, &ListInterfacesRequest::new()).await;
        let listed = listed.unwrap().Interfaces;
        let loopback = listed.iter().find(|interface| interface.name == "lo").expect("a loopback interface");
        assert_eq!(
            (loopback.mtu, loopback.IPAddresses[0].address.as_str()),
            (65536, "127.0.0.1"),
            "{listed:?}"
        );
    });
}

#[test]
fn a_disk_is_found_and_checked_against_its_hashes() {
    let (whole, flipped) = whole_and_flipped();
    let (good, bad) = (Disk::with(&whole.bytes), Disk::with(&flipped.bytes));
    Boot::new().disk(&good).disk(&bad).test(async |guest| {
        for (number, wanted) in [(0, "fineread"), (1, "fine")] {
            let id = format!("checked-{number}");
            let at = format!("/run/kata-containers/{id}/rootfs");
            let (driver, address) = disk_address(number);
            let mut layer = storage(driver, &address, "erofs", &["X-kata.overlay-lower"], &at);
            layer.options.push("X-kata.multi-layer=true".into());
            layer.options.extend(whole.check_options());
            let script = "cat /vol/other; cat /vol/file > /dev/null && echo read";
            let container = guest.container("c").mount("/vol", "bind", &at, &["rbind"]).sh(script);
            let done = container.request(|request| {
                request.container_id = id;
                request.storages = vec![layer];
            });
            assert_eq!(done.run().await.text(), wanted);
        }
    });
}

#[test]
fn an_extension_is_found_and_checked_against_its_hashes() {
    Boot::new().extension(Some(&Settings::extension()), "tools").test(async |guest| {
        let script = "tail -c 5 /vol/numbers; grep ' /vol ' /proc/self/mountinfo; touch /vol/x";
        let container = guest.container("c1").mount("/vol", "bind", "/run/kata-extensions/tools", &["rbind"]);
        let done = container.sh(script).run().await;
        let told = done.text();
        assert!(told.starts_with("3000\n"), "{done:?}");
        assert!(told.contains(" ro,nosuid,nodev") && told.contains(" - erofs /dev/dm-"), "{done:?}");
        assert!(done.error_text().contains("Read-only file system"), "{done:?}");
    });
}

#[test]
fn the_processors_weaknesses_are_told() {
    test(async |guest| {
        let script = "cd /sys/devices/system/cpu/vulnerabilities && grep . *";
        let told = guest.container("c1").sh(script).run().await.ok();
        // Not by print!, which the test runner keeps to itself unless the test fails.
        for line in told.lines() {
            writeln!(std::io::stdout(), "{}: {line}", Settings::get().arch()).unwrap();
        }
        for weakness in ["meltdown", "spectre_v1", "spectre_v2"] {
            let line = told.lines().find_map(|line| line.strip_prefix(weakness)?.strip_prefix(':'));
            let line = line.unwrap_or_else(|| panic!("{weakness} is not told: {told}"));
            assert!(!line.starts_with("Vulnerable"), "{weakness}: {line}");
        }
    });
}

#[test]
fn several_processors_run_and_the_guest_powers_off() {
    Boot::new().cpus(2).test(async |guest| {
        assert_eq!(guest.container("c1").sh("nproc; grep -c ^cpu[0-9] /proc/stat").run().await.ok(), "2\n2");
        guest.agent().destroy_sandbox().await.unwrap();
        let gone = tokio::time::timeout(Duration::from_secs(30), guest.vm().fate().gone()).await;
        let gone = gone.expect("QEMU exits by itself").to_string();
        assert!(!gone.contains("panic"), "{gone}");
    });
}
