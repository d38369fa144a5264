//! Scopes, as the systemd of the machine at hand makes them. Only where it is PID 1, with cgroups of either version.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use jail::cgroup::systemd::{self, Scope};
use jail::cgroup::{Cgroup, DeviceRules, Place};
use jail::oci;
use serde_json::{Value, json};

use crate::bench::{Bench, Running, process, script};
use crate::tests::Test;

pub(crate) const ALL: &[Test] = &[
    ("systemd_scope_is_made_and_goes", scope_is_made_and_goes),
    ("systemd_limits_survive_a_reload", limits_survive_a_reload),
    ("systemd_update_is_seen_by_both", update_is_seen_by_both),
    ("systemd_exec_is_in_the_scope", exec_is_in_the_scope),
    ("systemd_devices_survive_a_reload", devices_survive_a_reload),
    ("systemd_name_in_use_is_refused", name_in_use_is_refused),
    ("systemd_scope_goes_with_its_last_process", scope_goes_with_its_last_process),
    ("systemd_bad_limit_leaves_nothing", bad_limit_leaves_nothing),
];

const SOON: Duration = Duration::from_secs(10);

/// Whether this machine can run them.
pub(crate) fn available() -> bool {
    systemd::is_running()
}

/// A scope of a test, in slices of the tests' own, with a container in it.
struct Trial {
    scope: Scope,
    cgroup: Cgroup,
    bench: Bench,
    running: Running,
}

impl Trial {
    fn new(name: &str, resources: Value, bench: Bench) -> Trial {
        let scope = scope(name);
        let mut placeholder = placeholder();
        let resources: oci::LinuxResources = serde_json::from_value(resources).unwrap();
        let pid = placeholder.id() as i32;
        let cgroup = Cgroup::create_scope(&scope, "a test of the jail", pid, Some(&resources)).unwrap();
        let mut bench = bench;
        bench.context.cgroup = Some(cgroup.path().to_owned());
        let running = bench.start().unwrap();
        end(&mut placeholder);
        Trial { scope, cgroup, bench, running }
    }

    /// A property as systemd shows it.
    fn property(&self, name: &str) -> String {
        property(self.scope.unit(), name)
    }

    /// What the kernel says, by the name of the file in either version.
    fn file(&self, v2: &str, v1: &str) -> String {
        if self.cgroup.is_v2() {
            return fs::read_to_string(self.cgroup.path().join(v2)).unwrap().trim().to_owned();
        }
        let controller = v1.split('.').next().unwrap();
        fs::read_to_string(in_v1(controller, &self.scope).join(v1)).unwrap().trim().to_owned()
    }

    fn limit(&self) -> String {
        self.file("memory.max", "memory.limit_in_bytes")
    }

    /// Ends it the way a container is removed.
    fn remove(self) {
        self.cgroup.kill_all().unwrap();
        assert_eq!(self.running.finish().code, 137);
        self.cgroup.remove(SOON).unwrap();
        nothing_is_left_of(&self.scope);
    }
}

fn scope(name: &str) -> Scope {
    match Place::of(&format!("husk-jail-tests.slice:jail:{name}"), name, true).unwrap() {
        Place::Scope(scope) => scope,
        other => panic!("{other:?}"),
    }
}

fn in_v1(controller: &str, scope: &Scope) -> std::path::PathBuf {
    let root = Path::new(jail::cgroup::ROOT);
    root.join(controller).join(scope.path().strip_prefix(root).unwrap())
}

fn placeholder() -> Child {
    Command::new("/bin/busybox").args(["sleep", "1000"]).spawn().unwrap()
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn systemctl(args: &[&str]) -> String {
    let output = Command::new("systemctl").args(args).output().unwrap();
    assert!(output.status.success(), "systemctl {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "-p", name, unit])
}

fn nothing_is_left_of(scope: &Scope) {
    assert_eq!(property(scope.unit(), "LoadState"), "not-found");
    let units = systemctl(&["list-units", "--all", "--plain", "--no-legend"]);
    assert!(!units.contains(scope.unit()), "{units}");
    for directory in ["/run/systemd/transient", "/run/systemd/system.control"] {
        let left: Vec<_> = fs::read_dir(directory).into_iter().flatten().flatten().collect();
        assert!(
            left.iter().all(|entry| !entry.file_name().to_string_lossy().contains(scope.unit())),
            "{left:?}"
        );
    }
    assert!(!scope.path().exists());
    let controllers = jail::cgroup::v1_hierarchies().into_iter().map(|(name, _)| name);
    for name in controllers.chain(["systemd".to_owned(), "unified".to_owned()]) {
        assert!(!in_v1(&name, scope).exists(), "{name}");
    }
    for slice in scope.path().ancestors().skip(1).take(3) {
        assert!(systemd::stop_slice(slice).unwrap(), "{slice:?} has something in it");
        let below = slice.strip_prefix(jail::cgroup::ROOT).unwrap();
        for (name, _) in jail::cgroup::v1_hierarchies() {
            assert!(!Path::new(jail::cgroup::ROOT).join(&name).join(below).exists(), "{name}: {below:?}");
        }
    }
    assert_eq!(scope.missing_slices().len(), 3, "the slices went with it");
}

fn scope_is_made_and_goes() {
    let trial = Trial::new("plain", json!({}), script("sleep 100"));
    assert!(trial.scope.missing_slices().is_empty());
    let status = systemctl(&["status", "--no-pager", "-l", trial.scope.unit()]);
    for word in ["a test of the jail", "active (running)", "husk-jail-tests.slice", "sleep 100"] {
        assert!(status.contains(word), "{word}: {status}");
    }
    let wanted = "/husk.slice/husk-jail.slice/husk-jail-tests.slice/jail-plain.scope";
    assert_eq!(trial.property("ControlGroup"), wanted);
    assert_eq!((trial.property("Delegate"), trial.property("TasksMax")), ("yes".into(), "infinity".into()));
    let of_it = fs::read_to_string(format!("/proc/{}/cgroup", trial.running.pid)).unwrap();
    for line in of_it.lines() {
        assert!(line.ends_with(wanted), "{of_it}");
    }
    trial.remove();
}

fn limits() -> Value {
    json!({
        "memory": { "limit": 64 << 20, "reservation": 16 << 20 },
        "cpu": { "shares": 512, "quota": 12_500, "period": 50_000 },
        "pids": { "limit": 33 },
    })
}

fn limits_survive_a_reload() {
    let trial = Trial::new("reload", limits(), script("sleep 100"));
    assert_eq!(trial.property("TasksMax"), "33");
    assert_eq!(trial.property("CPUQuotaPerSecUSec"), "250ms");
    let kernel = |trial: &Trial| {
        let quota = match trial.cgroup.is_v2() {
            true => trial.file("cpu.max", ""),
            false => {
                format!("{} {}", trial.file("", "cpu.cfs_quota_us"), trial.file("", "cpu.cfs_period_us"))
            }
        };
        assert_eq!(trial.limit(), (64 << 20).to_string());
        assert_eq!(trial.file("pids.max", "pids.max"), "33");
        assert_eq!(quota, "12500 50000");
        assert_eq!(trial.file("cpu.weight", "cpu.shares"), if trial.cgroup.is_v2() { "20" } else { "512" });
    };
    kernel(&trial);
    systemctl(&["daemon-reload"]);
    kernel(&trial);
    assert_eq!(trial.property("TasksMax"), "33");
    trial.remove();
}

fn update_is_seen_by_both() {
    let trial = Trial::new("update", limits(), script("sleep 100"));
    let memory = if trial.cgroup.is_v2() { "MemoryMax" } else { "MemoryLimit" };
    let update = |change: Value| trial.cgroup.update(&serde_json::from_value(change).unwrap());
    update(json!({ "memory": { "limit": 32 << 20 }, "pids": { "limit": 7 } })).unwrap();
    for _ in 0..2 {
        assert_eq!((trial.property(memory), trial.limit()), ((32 << 20).to_string(), (32 << 20).to_string()));
        assert_eq!(
            (trial.property("TasksMax").as_str(), trial.file("pids.max", "pids.max").as_str()),
            ("7", "7")
        );
        systemctl(&["daemon-reload"]);
    }
    update(json!({ "memory": { "limit": -1 }, "cpu": { "quota": -1 } })).unwrap();
    assert_eq!(
        (trial.property(memory), trial.property("CPUQuotaPerSecUSec")),
        ("infinity".into(), "infinity".into())
    );
    assert_ne!(trial.limit(), (32 << 20).to_string());
    // What the kernel refuses changes neither.
    let refused =
        update(json!({ "pids": { "limit": 9 }, "hugepageLimits": [{ "pageSize": "3MB", "limit": 1 }] }));
    assert!(refused.unwrap_err().to_string().contains("hugetlb.3MB"));
    assert_eq!(
        (trial.property("TasksMax").as_str(), trial.file("pids.max", "pids.max").as_str()),
        ("7", "7")
    );
    trial.remove();
}

fn exec_is_in_the_scope() {
    let trial = Trial::new("exec", json!({}), script("sleep 100"));
    let exec = trial.bench.exec(&trial.running, process(&["sleep", "50"])).unwrap();
    let of = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(of(exec.pid), of(trial.running.pid));
    assert!(systemctl(&["status", "--no-pager", trial.scope.unit()]).contains("sleep 50"));
    drop(exec);
    trial.remove();
}

fn devices_survive_a_reload() {
    let mut bench = script("sleep 100");
    bench.spec["process"]["capabilities"] = crate::devices::with_mknod();
    let trial = Trial::new("devices", json!({}), bench);
    let tried = |trial: &Trial| {
        let text = "test -e /tmp/loop || mknod /tmp/loop c 10 237; (: < /tmp/loop) && echo read; echo x > /dev/null && echo null";
        let mut process = process(&["sh", "-c", text]);
        process["capabilities"] = crate::devices::with_mknod();
        trial.bench.exec(&trial.running, process).unwrap().finish().out
    };
    let rules = |devices: Value| {
        let linux: oci::Linux =
            serde_json::from_value(json!({ "resources": { "devices": devices } })).unwrap();
        DeviceRules::of(Some(&linux)).unwrap()
    };
    trial.cgroup.set_devices(&rules(json!([{ "allow": false, "access": "rwm" }]))).unwrap();
    assert_eq!(tried(&trial), "null\n");
    systemctl(&["daemon-reload"]);
    assert_eq!(tried(&trial), "null\n");
    // systemd looks at the whole of a unit when one of its properties changes.
    trial.cgroup.update(&serde_json::from_value(json!({ "pids": { "limit": 20 } })).unwrap()).unwrap();
    assert_eq!(tried(&trial), "null\n");
    trial.remove();
}

fn name_in_use_is_refused() {
    let trial = Trial::new("taken", json!({}), script("sleep 100"));
    let mut placeholder = placeholder();
    let error = Cgroup::create_scope(&scope("taken"), "another", placeholder.id() as i32, None).unwrap_err();
    let error = error.to_string();
    assert!(
        error.starts_with("systemd: start jail-taken.scope: org.freedesktop.systemd1.UnitExists: "),
        "{error}"
    );
    end(&mut placeholder);
    assert_eq!(
        (trial.property("ActiveState"), trial.property("Description")),
        ("active".into(), "a test of the jail".into())
    );
    trial.remove();
}

fn scope_goes_with_its_last_process() {
    let trial = Trial::new("short", json!({}), script("true"));
    let Trial { scope, cgroup, running, .. } = trial;
    assert_eq!(running.finish().code, 0);
    let start = Instant::now();
    while property(scope.unit(), "LoadState") != "not-found" {
        assert!(start.elapsed() < SOON, "{}", systemctl(&["status", scope.unit()]));
        std::thread::sleep(Duration::from_millis(20));
    }
    // To kill nobody and to remove nothing is no error.
    cgroup.kill_all().unwrap();
    cgroup.remove(SOON).unwrap();
    nothing_is_left_of(&scope);
}

fn bad_limit_leaves_nothing() {
    let mut placeholder = placeholder();
    let pid = placeholder.id() as i32;
    let scope = scope("bad");
    let weight = serde_json::from_value(json!({ "cpu": { "cpus": "0\n1" } })).unwrap();
    assert!(Cgroup::create_scope(&scope, "a test", pid, Some(&weight)).is_err());
    // The process is gone before it could be moved.
    end(&mut placeholder);
    let error = Cgroup::create_scope(&scope, "a test", pid, None).unwrap_err().to_string();
    assert!(error.starts_with("systemd: start jail-bad.scope: "), "{error}");
    assert_eq!(property(scope.unit(), "LoadState"), "not-found");
    assert!(!scope.path().exists());
    for slice in scope.slices().iter().rev() {
        let _ = Command::new("systemctl").args(["stop", slice]).status();
    }
}
