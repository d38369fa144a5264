//! Device rules as the kernel holds to them, where a version 2 tree is mounted, alone or beside version 1.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jail::cgroup::{self, Cgroup, DeviceRules};
use jail::oci;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use serde_json::{Value, json};

use crate::bench::{Bench, script};
use crate::tests::Test;

pub(crate) const ALL: &[Test] = &[
    ("devices_rules_hold", rules_hold),
    ("devices_rules_are_replaced", rules_are_replaced),
    ("devices_parent_has_a_say", parent_has_a_say),
];

/// Whether this machine can run them.
pub(crate) fn available() -> bool {
    root().is_some()
}

fn root() -> Option<PathBuf> {
    let roots = [cgroup::ROOT, "/sys/fs/cgroup/unified"].map(PathBuf::from);
    let v2 = |path: &PathBuf| statfs(path).is_ok_and(|stat| stat.filesystem_type() == CGROUP2_SUPER_MAGIC);
    roots.into_iter().find(v2)
}

/// A cgroup that goes with the test.
struct Group(Cgroup);

impl Group {
    fn new(name: &str) -> Group {
        Group(Cgroup::create(&root().unwrap().join("husk-jail-devices").join(name)).unwrap())
    }

    fn parent(&self) -> Cgroup {
        Cgroup::open(self.0.path().parent().unwrap()).unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.0.kill_all().unwrap();
        self.0.remove(Duration::from_secs(5)).unwrap();
        assert!(self.parent().remove_if_empty());
    }
}

fn rules(devices: Value) -> DeviceRules {
    let linux: oci::Linux = serde_json::from_value(json!({ "resources": { "devices": devices } })).unwrap();
    DeviceRules::of(Some(&linux)).unwrap()
}

pub(crate) fn with_mknod() -> Value {
    let caps = json!(["CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_SYS_RAWIO"]);
    json!({ "bounding": caps, "effective": caps, "permitted": caps })
}

/// Tries the node of `/dev/loop-control` (10:237) for reading and writing, and `/dev/null`.
fn inside(path: &Path) -> Bench {
    let text = "mknod /tmp/loop c 10 237 && echo made; (: < /tmp/loop) && echo read; (: >> /tmp/loop) && echo write; \
                echo x > /dev/null && echo null; cat /dev/tty 2>/dev/null; true";
    let mut bench = script(text);
    bench.spec["process"]["capabilities"] = with_mknod();
    bench.context.cgroup = Some(path.to_owned());
    bench
}

fn tried(group: &Group) -> String {
    inside(group.0.path()).run().unwrap().out.split_whitespace().collect::<Vec<_>>().join(" ")
}

const READ_LOOP: &str = r#"{ "allow": true, "type": "c", "major": 10, "minor": 237, "access": "r" }"#;

fn rules_hold() {
    let group = Group::new("hold");
    assert_eq!(tried(&group), "made read write null", "nothing is forbidden at first");
    group.0.set_devices(&rules(json!([{ "allow": false, "access": "rwm" }]))).unwrap();
    assert_eq!(tried(&group), "made null");
    let no_nodes = json!([{ "allow": true }, { "allow": false, "type": "c", "major": 10, "minor": 237, "access": "wm" }]);
    let mut all_but = rules(no_nodes);
    assert!(!all_but.allow_everything() && !all_but.admit(&rules(json!([]))));
    group.0.set_devices(&all_but).unwrap();
    // The defaults come after what the spec says, and let any node be made.
    assert_eq!(tried(&group), "made read null");
}

fn rules_are_replaced() {
    let group = Group::new("replace");
    let read: Value = serde_json::from_str(READ_LOOP).unwrap();
    group.0.set_devices(&rules(json!([]))).unwrap();
    assert_eq!(tried(&group), "made null");
    group.0.set_devices(&rules(json!([read]))).unwrap();
    assert_eq!(tried(&group), "made read null");
    group.0.set_devices(&rules(json!([{ "allow": true }]))).unwrap();
    assert_eq!(tried(&group), "made read write null");
    group.0.set_devices(&rules(json!([]))).unwrap();
    assert_eq!(tried(&group), "made null");
}

fn parent_has_a_say() {
    let group = Group::new("below");
    group.0.set_devices(&rules(json!([{ "allow": true, "type": "c", "major": 10, "minor": 237 }]))).unwrap();
    assert_eq!(tried(&group), "made read write null");
    group.parent().set_devices(&rules(json!([serde_json::from_str::<Value>(READ_LOOP).unwrap()]))).unwrap();
    assert_eq!(tried(&group), "made read null");
}
