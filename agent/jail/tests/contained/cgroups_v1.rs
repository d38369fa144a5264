//! The same with version 1. Only where `/sys/fs/cgroup` holds a hierarchy per controller.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jail::cgroup::{self, Cgroup};
use jail::oci;
use serde_json::{Value, json};

use crate::bench::{Bench, script};
use crate::tests::Test;

pub(crate) const ALL: &[Test] = &[
    ("cgroup1_limits_go_up_and_down", limits_go_up_and_down),
    ("cgroup1_process_is_in_every_hierarchy", process_is_in_every_hierarchy),
    ("cgroup1_stats", stats),
    ("cgroup1_oom", oom),
    ("cgroup1_freeze_kill_remove", freeze_kill_remove),
    ("cgroup1_devices", devices),
    ("cgroup1_cpuset_comes_from_above", cpuset_comes_from_above),
    ("cgroup1_tree_is_mounted_in_the_container", tree_is_mounted_in_the_container),
];

const SOON: Duration = Duration::from_secs(5);

/// Whether this machine can run them.
pub(crate) fn available() -> bool {
    let hierarchies = cgroup::v1_hierarchies();
    ["cpu", "memory", "pids", "freezer", "devices"]
        .iter()
        .all(|name| hierarchies.iter().any(|(_, all)| all == name))
}

/// A cgroup that goes with the test, and its parent.
struct Group(Cgroup);

impl Group {
    fn new(name: &str) -> Group {
        Group(Cgroup::create(&cgroup::path_of(&format!("/husk-jail-test/{name}"), "").unwrap()).unwrap())
    }

    fn apply(&self, resources: Value) -> Result<(), cgroup::CgroupError> {
        let resources: oci::LinuxResources = serde_json::from_value(resources).unwrap();
        self.0.apply(&resources)
    }

    fn read(&self, file: &str) -> String {
        let controller = file.split('.').next().unwrap();
        let below = self.0.path().strip_prefix(cgroup::ROOT).unwrap();
        let path: PathBuf =
            [Path::new(cgroup::ROOT), Path::new(controller), below, Path::new(file)].iter().collect();
        fs::read_to_string(path).unwrap().trim().to_owned()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.0.kill_all().unwrap();
        self.0.remove(SOON).unwrap();
        assert!(Cgroup::open(self.0.path().parent().unwrap()).unwrap().remove_if_empty());
    }
}

fn inside(group: &Group, text: &str) -> Bench {
    let mut bench = script(text);
    bench.context.cgroup = Some(group.0.path().to_owned());
    bench
}

fn limits_go_up_and_down() {
    let group = Group::new("limits");
    let swap = fs::exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").unwrap();
    let limits =
        || (group.read("memory.limit_in_bytes"), swap.then(|| group.read("memory.memsw.limit_in_bytes")));
    let mib = |amount: u64| (amount << 20).to_string();
    for (limit, total) in [(64, 96), (32, 32), (128, 256), (16, 24)] {
        group.apply(json!({ "memory": { "limit": limit << 20, "swap": total << 20 } })).unwrap();
        assert_eq!(limits(), (mib(limit), swap.then(|| mib(total))));
    }
    group.apply(json!({ "memory": { "limit": 48 << 20 } })).unwrap();
    assert_eq!(
        limits(),
        (mib(48), swap.then(|| mib(56))),
        "above the old total, with as much swap as before"
    );
    group
        .apply(json!({ "cpu": { "shares": 512, "quota": 5_000, "period": 20_000, "cpus": "0" },
                        "pids": { "limit": 7 } }))
        .unwrap();
    let files = ["cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpuset.cpus", "pids.max"];
    assert_eq!(files.map(|file| group.read(file)), ["512", "5000", "20000", "0", "7"]);
    group
        .apply(json!({ "memory": { "limit": -1 }, "cpu": { "quota": -1 }, "pids": { "limit": -1 } }))
        .unwrap();
    assert_eq!(["cpu.cfs_quota_us", "pids.max"].map(|file| group.read(file)), ["-1", "max"]);
    let unlimited = |text: &str| text.parse::<u64>().unwrap() > 1 << 60;
    assert!(unlimited(&limits().0) && limits().1.is_none_or(|total| unlimited(&total)), "{:?}", limits());
    let error = group.apply(json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 }] }));
    if !fs::exists("/sys/fs/cgroup/hugetlb").unwrap() {
        assert!(error.unwrap_err().to_string().contains("hugetlb"), "a limit nobody can hold is an error");
    }
}

fn process_is_in_every_hierarchy() {
    let group = Group::new("member");
    let running = inside(&group, "cat; true").start().unwrap();
    let of_it = fs::read_to_string(format!("/proc/{}/cgroup", running.pid)).unwrap();
    for (_, controllers) in cgroup::v1_hierarchies() {
        let line = format!(":{controllers}:/husk-jail-test/member");
        assert!(of_it.lines().any(|it| it.ends_with(&line)), "{line} in {of_it}");
    }
    let more = inside(&group, "");
    let show = crate::bench::process(&["cat", "/proc/self/cgroup"]);
    let shown = more.exec(&running, show).unwrap().finish().out;
    assert!(
        shown.contains(":memory:/\n") && shown.contains(":pids:/\n"),
        "the container's own root: {shown}"
    );
    assert_eq!(running.finish().code, 0);
}

fn stats() {
    let group = Group::new("stats");
    group
        .apply(json!({ "cpu": { "quota": 20_000, "period": 100_000 }, "memory": { "limit": 64 << 20 } }))
        .unwrap();
    let running = inside(&group, "while :; do :; done").start().unwrap();
    let start = Instant::now();
    let stats = loop {
        let stats = group.0.stats().unwrap();
        if stats.cpu.throttled_time > 0 && stats.cpu.per_processor.iter().sum::<u64>() > 1_000_000 {
            break stats;
        }
        assert!(start.elapsed() < SOON, "{stats:?}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(stats.cpu.usage > 1_000_000 && stats.cpu.throttled_periods > 0, "{stats:?}");
    assert!(stats.cpu.user > 0 && stats.memory.all.now > 0 && stats.memory.all.peak > 0, "{stats:?}");
    assert_eq!((stats.memory.all.limit, stats.pids.current, stats.pids.limit), (64 << 20, 1, 0));
    assert!(stats.memory.stat.contains_key("total_rss"), "{stats:?}");
    group.0.kill_all().unwrap();
    assert_eq!(running.finish().code, 137);
    group.0.remove(SOON).unwrap();
    assert!(group.0.stats().is_err(), "zeroes would be a lie");
    Cgroup::create(group.0.path()).unwrap();
}

fn oom() {
    let group = Group::new("oom");
    group.apply(json!({ "memory": { "limit": 8 << 20, "swap": 8 << 20 } })).unwrap();
    let watch = group.0.watch_oom().unwrap();
    assert!(!watch.is_exceptional() && watch.kills().unwrap() == 0 && !watch.populated());
    let running = inside(&group, "head -c 50000000 /dev/zero > /dev/shm/big; echo alive").start().unwrap();
    crate::bench::wait_readable(&watch);
    running.finish();
    let start = Instant::now();
    while watch.kills().unwrap() == 0 {
        assert!(start.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(watch.kills().unwrap(), group.0.stats().unwrap().memory.oom_kills);
}

fn freeze_kill_remove() {
    let group = Group::new("freeze");
    let running = inside(&group, "sleep 100 & sleep 100 & echo started; cat; true").start().unwrap();
    running.await_output();
    group.0.freeze(SOON).unwrap();
    assert_eq!(group.read("freezer.state"), "FROZEN");
    group.0.thaw(SOON).unwrap();
    assert_eq!(group.read("freezer.state"), "THAWED");
    let busy = group.0.remove(Duration::from_millis(50)).unwrap_err().to_string();
    assert!(busy.contains("not removed after 50ms"), "{busy}");
    group.0.freeze(SOON).unwrap();
    group.0.kill_all().unwrap();
    assert_eq!(running.finish().code, 137, "also what stands still");
    group.0.remove(SOON).unwrap();
    assert!(!group.0.populated().unwrap_or(false));
    Cgroup::create(group.0.path()).unwrap();
}

fn devices() {
    let group = Group::new("devices");
    let rules = |devices: Value| {
        let linux: oci::Linux =
            serde_json::from_value(json!({ "resources": { "devices": devices } })).unwrap();
        cgroup::DeviceRules::of(Some(&linux)).unwrap()
    };
    group.0.set_devices(&rules(json!([{ "allow": false }]))).unwrap();
    let list = group.read("devices.list");
    assert!(list.contains("c 1:3 rwm") && list.contains("b *:* m") && !list.contains("a *:*"), "{list}");
    let test = "mknod /tmp/null c 1 3 && echo x > /tmp/null && mknod /tmp/loop c 10 237 && echo made; \
                (: < /tmp/loop) && echo read";
    let mut bench = inside(&group, test);
    bench.spec["process"]["capabilities"] = crate::devices::with_mknod();
    let got = bench.run().unwrap();
    assert_eq!(got.out, "made\n", "{got:?}");
    // For reading: what was forbidden is allowed from here on, and what was allowed stays.
    group
        .0
        .set_devices(&rules(
            json!([{ "allow": true, "type": "c", "major": 10, "minor": 237, "access": "r" }]),
        ))
        .unwrap();
    let list = group.read("devices.list");
    assert!(list.contains("c 10:237 r") && list.contains("c 1:3 rwm"), "{list}");
    group.0.set_devices(&rules(json!([]))).unwrap();
    assert!(!group.read("devices.list").contains("c 10:237"));
}

fn cpuset_comes_from_above() {
    let group = Group::new("cpuset");
    let all = fs::read_to_string("/sys/fs/cgroup/cpuset/cpuset.cpus").unwrap();
    assert_eq!(
        (group.read("cpuset.cpus"), group.read("cpuset.mems")),
        (all.trim().to_owned(), "0".to_owned())
    );
    // A parent that has less is given all again before its child is.
    let parent = "/sys/fs/cgroup/cpuset/husk-jail-test/cpuset.cpus";
    fs::write(group_file(&group, "cpuset.cpus"), "0").unwrap();
    fs::write(parent, "0").unwrap();
    let resources = serde_json::from_value(json!({ "cpu": { "cpus": all.trim() } })).unwrap();
    group.0.refresh_cpuset(&resources).unwrap();
    assert_eq!(group.read("cpuset.cpus"), all.trim());
    assert_eq!(fs::read_to_string(parent).unwrap(), all);
}

fn group_file(group: &Group, file: &str) -> PathBuf {
    let below = group.0.path().strip_prefix(cgroup::ROOT).unwrap();
    Path::new(cgroup::ROOT).join("cpuset").join(below).join(file)
}

fn tree_is_mounted_in_the_container() {
    let group = Group::new("mounted");
    let show = "ls /sys/fs/cgroup | grep -c memory; cat /sys/fs/cgroup/memory/cgroup.procs | head -1; \
                cat /sys/fs/cgroup/pids/pids.max; mkdir /sys/fs/cgroup/x /sys/fs/cgroup/memory/x || echo sealed";
    let mut bench = inside(&group, show);
    bench.context.cgroup_v1 = cgroup::v1_hierarchies();
    let bench = bench.mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                                    "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }));
    let got = bench.run().unwrap();
    assert_eq!(got.out, "1\n1\nmax\nsealed\n", "{got:?}");
    assert_eq!(got.err.matches("Read-only file system").count(), 2, "{got:?}");
}
