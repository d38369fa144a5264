//! Limits that hold, figures that move, and cgroups that go away. Only where `/sys/fs/cgroup` is version 2.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jail::cgroup::{self, Cgroup};
use jail::oci;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use serde_json::{Value, json};

use crate::bench::{Bench, Outcome, process, script};
use crate::tests::{Test, lines, out};

pub(crate) const ALL: &[Test] = &[
    ("cgroup_limits_are_written", limits_are_written),
    ("cgroup_is_the_process_s_root", is_the_processs_root),
    ("cgroup_stats_move", stats_move),
    ("cgroup_oom", oom),
    ("cgroup_kill_all_and_remove", kill_all_and_remove),
    ("cgroup_freeze", freeze),
    ("cgroup_exec", exec),
];

const SOON: Duration = Duration::from_secs(5);

/// Whether this machine can run them.
pub(crate) fn available() -> bool {
    statfs(cgroup::ROOT).is_ok_and(|stat| stat.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// A cgroup that goes with the test.
struct Group(Cgroup);

impl Group {
    fn new(name: &str) -> Group {
        Group(Cgroup::create(&path(name)).unwrap())
    }

    fn apply(&self, resources: Value) {
        let resources: oci::LinuxResources = serde_json::from_value(resources).unwrap();
        self.0.apply(&resources).unwrap();
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.path().join(file)).unwrap().trim().to_owned()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.0.kill_all().unwrap();
        self.0.remove(SOON).unwrap();
        let pod = self.0.path().parent().unwrap();
        if pod != Path::new(cgroup::ROOT) {
            fs::remove_dir(pod).unwrap();
        }
    }
}

fn path(name: &str) -> PathBuf {
    cgroup::path_of(&format!("/husk-jail-test/{name}"), "").unwrap()
}

fn inside(group: &Group, text: &str) -> Bench {
    let mut bench = script(text);
    bench.context.cgroup = Some(group.0.path().to_owned());
    bench.mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                        "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }))
}

fn limits_are_written() {
    let group = Group::new("limits");
    group.apply(json!({
        "memory": { "limit": 64 << 20, "swap": 64 << 20, "reservation": 16 << 20 },
        "cpu": { "shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "0" },
        "pids": { "limit": 20 },
    }));
    let values = ["memory.max", "memory.low", "cpu.weight", "cpu.max", "cpuset.cpus", "pids.max"];
    let got = values.map(|file| group.read(file));
    assert_eq!(got, ["67108864", "16777216", "39", "50000 100000", "0", "20"]);
    let bench = inside(
        &group,
        "cat /sys/fs/cgroup/memory.max; i=0; while [ $i -lt 40 ]; do sleep 1 & i=$((i+1)); done",
    );
    let got = bench.run().unwrap();
    assert!(got.out.starts_with("67108864\n") && got.err.contains("fork"), "{got:?}");
    // And lifted again.
    group.0.kill_all().unwrap();
    group.apply(
        json!({ "memory": { "limit": -1, "swap": -1 }, "cpu": { "quota": -1 }, "pids": { "limit": -1 } }),
    );
    let got = ["memory.max", "cpu.max", "pids.max"].map(|file| group.read(file));
    assert_eq!(got, ["max", "max 100000", "max"]);
}

fn is_the_processs_root() {
    let group = Group::new("root");
    let bench = inside(
        &group,
        "cat /proc/self/cgroup; ls /sys/fs/cgroup | grep -c cgroup.procs; cat /sys/fs/cgroup/cgroup.procs | head -1",
    );
    assert_eq!(lines(&bench), ["0::/", "1", "1"]);
    let bench = inside(&group, "echo 1 2>/dev/null > /sys/fs/cgroup/memory.max || echo readonly");
    assert_eq!(out(&bench), "readonly\n");
}

fn stats_move() {
    let group = Group::new("stats");
    group.apply(json!({ "cpu": { "quota": 20_000, "period": 100_000 }, "pids": { "limit": 9 } }));
    let running = inside(&group, "while :; do :; done").start().unwrap();
    let start = Instant::now();
    let stats = loop {
        let stats = group.0.stats().unwrap();
        if stats.cpu.throttled_time > 0 {
            break stats;
        }
        assert!(start.elapsed() < SOON, "{stats:?}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(stats.cpu.usage > 1_000_000 && stats.cpu.throttled_periods > 0, "{stats:?}");
    assert!(stats.memory.all.now > 0 && stats.memory.all.limit == u64::MAX, "{stats:?}");
    assert!(
        stats.memory.stat.contains_key("anon") && stats.memory.all.peak >= stats.memory.all.now,
        "{stats:?}"
    );
    assert_eq!((stats.pids.current, stats.pids.limit), (1, 9));
    assert!(group.0.populated().unwrap());
    assert_eq!(group.0.procs().unwrap(), [running.pid]);
    group.0.kill_all().unwrap();
    assert_eq!(running.finish().code, 137);
    assert!(!group.0.populated().unwrap());
}

fn oom() {
    let group = Group::new("oom");
    group.apply(json!({ "memory": { "limit": 8 << 20 } }));
    assert_eq!(group.0.oom_kills().unwrap(), 0);
    let got = inside(&group, "head -c 50000000 /dev/zero > /dev/shm/big; echo alive").run();
    assert!(!matches!(&got, Ok(outcome) if outcome.code == 0 && outcome.err.is_empty()), "{got:?}");
    assert!(group.0.oom_kills().unwrap() > 0);
}

fn kill_all_and_remove() {
    let group = Group::new("kill");
    let running = inside(&group, "sleep 100 & sleep 100 & echo started; cat; true").start().unwrap();
    running.await_output();
    while group.0.procs().unwrap().len() < 4 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let busy = group.0.remove(Duration::from_millis(50)).unwrap_err().to_string();
    assert!(busy.contains("not removed after 50ms"), "{busy}");
    group.0.kill_all().unwrap();
    assert_eq!(running.finish(), Outcome { out: "started\n".into(), err: String::new(), code: 137 });
    group.0.remove(SOON).unwrap();
    assert!(!group.0.path().exists());
    // Once more is fine, and so is killing nobody.
    group.0.remove(SOON).unwrap();
    fs::create_dir(group.0.path()).unwrap();
}

fn freeze() {
    let group = Group::new("freeze");
    let running = inside(&group, "cat; exit 4").start().unwrap();
    group.0.freeze(SOON).unwrap();
    assert_eq!(group.read("cgroup.freeze"), "1");
    assert_eq!(group.read("cgroup.events").lines().last(), Some("frozen 1"));
    group.0.thaw(SOON).unwrap();
    assert_eq!(running.finish().code, 4);
}

fn exec() {
    let group = Group::new("exec");
    let bench = inside(&group, "sleep 100; true");
    let init = bench.start().unwrap();
    let show = ["cat", "/proc/self/cgroup", "/proc/1/cgroup"];
    assert_eq!(bench.exec(&init, process(&show)).unwrap().finish().out, "0::/\n0::/\n");
    // A container that moved itself into "init" is followed there.
    let below = group.0.path().join("init");
    fs::create_dir(&below).unwrap();
    assert_eq!(bench.exec(&init, process(&show)).unwrap().finish().out, "0::/init\n0::/\n");
}
