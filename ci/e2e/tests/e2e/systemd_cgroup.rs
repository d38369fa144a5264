//! A guest whose PID 1 is systemd: containers in scopes that it knows of.

use std::time::{Duration, Instant};

use agent_api::agent::GetOOMEventRequest;
use agent_api::oci::{LinuxCPU, LinuxMemory, LinuxPids, LinuxResources};
use agent_api::ports;
use e2e::{Boot, ContainerBuilder, Guest};
use nix::sys::signal::Signal::SIGKILL;
use protobuf::MessageField;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use ttrpc::context;

use crate::update::update;

const MIB: i64 = 1 << 20;

/// Where the slice of these tests puts a scope.
const PARENT: &str = "/husk.slice/husk-e2e.slice";

fn boot() -> Boot {
    Boot::systemd().cmdline("agent.debug_console").cmdline("agent.debug_console_vport=1026")
}

/// A shell in the guest, outside of every container: systemd answers nobody in another pid namespace.
struct Look<'g>(&'g Guest);

impl<'g> Look<'g> {
    /// Runs lines of shell there and returns what they print; panics if they fail.
    async fn sh(&self, script: &str) -> String {
        let mut console = self.0.vm().connect(ports::DEBUG_CONSOLE).await.unwrap();
        // Into a file first, as a terminal has its own ideas of lines; and the marks not as they are echoed.
        let line =
            format!("({script}) > /run/look 2>&1; e=$?; echo be''gin; cat /run/look; echo e''nd $e; exit\n");
        console.write_all(line.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        let read = console.read_to_end(&mut all);
        tokio::time::timeout(Duration::from_secs(60), read).await.expect("a shell that is quick").unwrap();
        let all = String::from_utf8_lossy(&all).replace('\r', "");
        let printed = all.split_once("begin\n").and_then(|(_, text)| text.rsplit_once("end "));
        let (text, status) = printed.unwrap_or_else(|| panic!("{script}: {all:?}"));
        assert!(status.starts_with("0\n"), "{script}: {text}");
        text.to_owned()
    }

    async fn property(&self, unit: &str, name: &str) -> String {
        self.sh(&format!("systemctl show --value -p {name} {unit}")).await.trim().to_owned()
    }

    /// Neither systemd nor the kernel knows anything of a scope.
    async fn misses(&self, unit: &str) {
        let units = "systemctl list-units --all --plain --no-legend";
        let script =
            format!("({units}; ls -R /run/systemd; find /sys/fs/cgroup -type d) | grep -F {unit} || true");
        assert_eq!(self.sh(&script).await, "");
    }
}

fn in_scope<'g>(guest: &'g Guest, name: &str) -> (ContainerBuilder<'g>, String) {
    let unit = format!("cri-{name}.scope");
    let path = format!("husk-e2e.slice:cri:{name}");
    let container = guest.container(name).args(&["sleep", "100000"]);
    (container.linux(|linux| linux.CgroupsPath = path), unit)
}

#[test]
fn a_container_is_a_scope_from_its_creation_to_its_removal() {
    boot().test(async |guest| {
        let look = Look(guest);
        let (builder, unit) = in_scope(guest, "life");
        let container = builder.create().await;
        assert_eq!(look.property(&unit, "ControlGroup").await, format!("{PARENT}/{unit}"));
        container.start().await;
        let status = look.sh(&format!("systemctl status --no-pager -l {unit}")).await;
        for word in [container.id(), "active (running)", "sleep 100000"] {
            assert!(status.contains(word), "{word}: {status}");
        }
        assert!(look.sh("systemd-cgls --no-pager").await.contains(&unit));
        let exec = container.exec(&["sleep", "4321"]).start().await;
        assert!(look.sh(&format!("systemctl status --no-pager -l {unit}")).await.contains("sleep 4321"));
        exec.signal(SIGKILL as i32).await;
        exec.wait().await;
        assert_eq!(
            container.sh("cat /proc/self/cgroup").await.trim(),
            "0::/",
            "its namespace begins at the scope"
        );
        assert_eq!(
            container.stats().await.cgroup_stats.unwrap().pids_stats.current,
            1,
            "nothing else is in it"
        );
        container.remove().await;
        look.misses(&unit).await;
    });
}

#[test]
fn limits_are_known_to_both_and_hold_over_a_reload() {
    boot().test(async |guest| {
        let look = Look(guest);
        let (builder, unit) = in_scope(guest, "limits");
        let container = builder.privileged().memory(64 * MIB).cpu(12_345, 50_000).pids(1).start().await;
        // Both views in one go: a shell takes its time in an emulated guest.
        let script = format!(
            "cd /sys/fs/cgroup{PARENT}/{unit}; cat memory.max cpu.max pids.max; \
             systemctl show -p MemoryMax -p CPUQuotaPerSecUSec -p TasksMax {unit} | sort"
        );
        let views = async || look.sh(&script).await.lines().collect::<Vec<_>>().join(" ");
        let wanted = "67108864 12500 50000 1 CPUQuotaPerSecUSec=250ms MemoryMax=67108864 TasksMax=1";
        assert_eq!(views().await, wanted);
        let resources = LinuxResources {
            Memory: MessageField::some(LinuxMemory { Limit: 32 * MIB, ..Default::default() }),
            CPU: MessageField::some(LinuxCPU { Quota: 20_000, Period: 50_000, ..Default::default() }),
            Pids: MessageField::some(LinuxPids { Limit: 9, ..Default::default() }),
            ..Default::default()
        };
        update(guest, &container, Some(resources)).await.unwrap();
        for _ in 0..2 {
            let wanted = "33554432 20000 50000 9 CPUQuotaPerSecUSec=400ms MemoryMax=33554432 TasksMax=9";
            assert_eq!(views().await, wanted);
            look.sh("systemctl daemon-reload").await;
        }
        let unlimited = LinuxResources {
            Memory: MessageField::some(LinuxMemory { Limit: -1, ..Default::default() }),
            Pids: MessageField::some(LinuxPids { Limit: -1, ..Default::default() }),
            ..Default::default()
        };
        update(guest, &container, Some(unlimited)).await.unwrap();
        look.sh("systemctl daemon-reload").await;
        let wanted = "max 20000 50000 max CPUQuotaPerSecUSec=400ms MemoryMax=infinity TasksMax=infinity";
        assert_eq!(views().await, wanted);
        // A device that is not allowed stays so: systemd has no word in it.
        let tried =
            container.exec(&["sh", "-c", "mknod /dev/m c 1 11 && echo made; head -c 1 /dev/m"]).run().await;
        assert_eq!(tried.text(), "made");
        assert!(tried.error_text().contains("Operation not permitted"), "{tried:?}");
        container.remove().await;
        look.misses(&unit).await;
    });
}

#[test]
fn a_container_that_ends_or_is_killed_can_be_asked_and_removed() {
    boot().test(async |guest| {
        let look = Look(guest);
        let (builder, unit) = in_scope(guest, "ends");
        let container = builder.args(&["true"]).start().await;
        assert_eq!(container.init().wait().await, 0);
        // systemd has taken the scope away, and to kill nobody is no error.
        container.init().signal(SIGKILL as i32).await;
        container.remove().await;
        look.misses(&unit).await;
        let (builder, unit) = in_scope(guest, "killed");
        let container = builder.start().await;
        container.init().signal(SIGKILL as i32).await;
        assert_eq!(container.init().wait().await, 137);
        container.remove().await;
        look.misses(&unit).await;
    });
}

#[test]
fn kills_for_lack_of_memory_are_told_though_the_scope_goes_with_them() {
    boot().test(async |guest| {
        for turn in 0..10 {
            let (builder, _) = in_scope(guest, &format!("oom{turn}"));
            let container = builder.args(&["tail", "-n", "1", "/dev/zero"]).memory(16 * MIB).start().await;
            assert_eq!(container.init().wait().await, 137);
            let ctx = context::with_duration(Duration::from_secs(30));
            let event = guest.agent().service().get_oom_event(ctx, &GetOOMEventRequest::new()).await.unwrap();
            assert_eq!(event.container_id, container.id());
            container.remove().await;
        }
    });
}

#[test]
fn what_is_refused_leaves_nothing() {
    boot().test(async |guest| {
        let look = Look(guest);
        for (path, field) in [
            ("pod:cri:x1", "slice"),
            ("a--b.slice:cri:x1", "slice"),
            ("a.slice:c/i:x1", "prefix"),
            ("a.slice:cri:", "name"),
        ] {
            let container = guest.container("refused").linux(|linux| linux.CgroupsPath = path.into());
            let error = container.try_create().await.unwrap_err().to_string();
            assert!(error.contains(&format!("cgroupsPath: {field} ")), "{path}: {error}");
        }
        // A scope of that name is somebody else's.
        let (builder, unit) = in_scope(guest, "taken");
        let container = builder.start().await;
        let (again, _) = in_scope(guest, "taken");
        let again = again.request(|request| request.container_id = "another-1".into());
        assert!(again.try_create().await.is_err());
        look.sh("systemd-run -q --unit=cri-foreign --scope --slice=husk-e2e.slice sleep 1000 > /dev/null 2>&1 & sleep 1")
            .await;
        let (builder, foreign) = in_scope(guest, "foreign");
        let error = builder.try_create().await.unwrap_err().to_string();
        assert!(error.contains("start cri-foreign.scope: org.freedesktop.systemd1.UnitExists: "), "{error}");
        assert_eq!(look.property(&foreign, "ActiveState").await, "active");
        look.sh(&format!("systemctl stop {foreign}")).await;
        container.remove().await;
        look.misses(&unit).await;
        look.misses(&foreign).await;
        let traces = look.sh("systemctl list-units --all --plain --no-legend | grep -c x1 || true").await;
        assert_eq!(traces.trim(), "0");
    });
}

#[test]
fn a_systemd_that_cannot_be_reached_is_told_in_time() {
    boot().test(async |guest| {
        let look = Look(guest);
        look.sh("mv /run/systemd/private /run/systemd/elsewhere").await;
        let (builder, unit) = in_scope(guest, "alone");
        let begun = Instant::now();
        let error = builder.try_create().await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        let wanted = format!("systemd: start {unit}: connect to \"/run/systemd/private\": ");
        assert!(error.to_string().contains(&wanted), "{error}");
        look.sh("mv /run/systemd/elsewhere /run/systemd/private").await;
        look.misses(&unit).await;
        let (builder, unit) = in_scope(guest, "alone");
        builder.start().await.remove().await;
        look.misses(&unit).await;
        let all = look.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await;
        assert!(!all.contains("husk/agent hold"), "nobody holds a place any more: {all}");
    });
}
