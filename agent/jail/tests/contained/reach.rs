//! How far a container reaches: clocks, users and owners of its own, namespaces that exist already, mounts below mounts,
//! when it runs.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use serde_json::{Value, json};

use crate::bench::{Bench, process, script};
use crate::tests::{Test, lines, out};

pub(crate) const ALL: &[Test] = &[
    ("time_namespace", time_namespace),
    ("time_namespace_by_path", time_namespace_by_path),
    ("user_namespace_by_path", user_namespace_by_path),
    ("other_namespaces_by_path", other_namespaces_by_path),
    ("owners_are_mapped", owners_are_mapped),
    ("attributes_of_all_below", attributes_of_all_below),
    ("propagation", propagation),
    ("scheduling", scheduling),
];

fn add_namespace(bench: &mut Bench, namespace: Value) {
    bench.spec["linux"]["namespaces"].as_array_mut().unwrap().push(namespace);
}

fn uptime(text: &str) -> f64 {
    text.split(' ').next().unwrap().parse().unwrap()
}

fn ahead() -> Bench {
    let offsets = json!({ "boottime": { "secs": 1_000_000 }, "monotonic": { "secs": 500, "nanosecs": 1 } });
    let mut bench = Bench::new(&["sleep", "100"]).set("/linux/timeOffsets", offsets);
    add_namespace(&mut bench, json!({ "type": "time" }));
    bench
}

fn time_namespace() {
    let mut bench = ahead();
    bench.spec["process"]["args"] = json!(["cat", "/proc/uptime", "/proc/self/timens_offsets"]);
    let got = lines(&bench);
    let ours = uptime(&fs::read_to_string("/proc/uptime").unwrap());
    assert!((uptime(&got[0]) - ours - 1e6).abs() < 60.0, "{got:?} and {ours}");
    assert_eq!(got[1].split_whitespace().collect::<Vec<_>>(), ["monotonic", "500", "1"]);
    // One more process has the same clocks.
    let bench = ahead();
    let init = bench.start().unwrap();
    let got = bench.exec(&init, process(&["cat", "/proc/uptime"])).unwrap().finish().out;
    assert!(uptime(&got) > 1e6, "{got}");
    // In a user namespace too.
    let mut bench = unprivileged(ahead());
    bench.spec["process"]["args"] = json!(["cat", "/proc/uptime"]);
    assert!(uptime(&out(&bench)) > 1e6);
}

fn time_namespace_by_path() {
    let first = ahead();
    let one = first.start().unwrap();
    let mut second = Bench::new(&["cat", "/proc/uptime"]);
    add_namespace(&mut second, json!({ "type": "time", "path": format!("/proc/{}/ns/time", one.pid) }));
    assert!(uptime(&out(&second)) > 1e6);
}

pub(crate) fn unprivileged(bench: Bench) -> Bench {
    let maps = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    let mut bench = bench.set("/linux/uidMappings", maps.clone()).set("/linux/gidMappings", maps);
    add_namespace(&mut bench, json!({ "type": "user" }));
    chown(bench.rootfs(), Some(100_000), Some(100_000)).unwrap();
    bench
}

fn user_namespace_by_path() {
    let first = unprivileged(Bench::new(&["sleep", "100"]));
    let one = first.start().unwrap();
    let text = "id -u; readlink /proc/self/ns/user; readlink /proc/1/ns/pid; hostname; cat /proc/self/uid_map; \
                echo x > /dev/null && echo null; ulimit -n; mount -t tmpfs t /tmp 2>/dev/null || echo refused";
    let limits = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    let mut second = script(text).set("/process/rlimits", limits);
    add_namespace(&mut second, json!({ "type": "user", "path": format!("/proc/{}/ns/user", one.pid) }));
    chown(second.rootfs(), Some(100_000), Some(100_000)).unwrap();
    let got = lines(&second);
    let namespace = |name: &str| fs::read_link(format!("/proc/{}/ns/{name}", one.pid)).unwrap();
    assert_eq!(got[0], "0");
    assert_eq!(Path::new(&got[1]), namespace("user"));
    assert_ne!(Path::new(&got[2]), namespace("pid"));
    assert_eq!(got[3], "husk-test");
    assert_eq!(got[4].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_eq!(got[5..], ["null", "100", "refused"]);
    // With the other one's pid namespace as well, and one more process in it.
    second.context.pid = jail::PidNamespace::Join(format!("/proc/{}/ns/pid", one.pid).into());
    second.spec["process"]["args"] = json!(["sleep", "50"]);
    let two = second.start().unwrap();
    let got =
        second.exec(&two, process(&["sh", "-c", "id -u; cat /proc/1/comm; readlink /proc/self/ns/user"]));
    let got = got.unwrap().finish().out;
    let words: Vec<_> = got.lines().collect();
    assert_eq!((words[0], words[1], Path::new(words[2])), ("0", "sleep", namespace("user").as_path()));
    let mut lost = script("true");
    add_namespace(&mut lost, json!({ "type": "user", "path": "/proc/self/ns/nosuch" }));
    assert!(lost.run().unwrap_err().starts_with("jail: open user namespace \"/proc/self/ns/nosuch\": "));
    let mut same = script("true");
    add_namespace(&mut same, json!({ "type": "user", "path": "/proc/self/ns/user" }));
    assert!(same.run().unwrap_err().starts_with("jail: clone: "));
}

fn other_namespaces_by_path() {
    let first = Bench::new(&["sleep", "100"]);
    let one = first.start().unwrap();
    let mut second = script("for n in pid cgroup net ipc uts mnt; do readlink /proc/self/ns/$n; done");
    let listed = ["pid", "cgroup", "network", "ipc", "uts", "mount"].map(|kind| {
        let name = kind.replace("network", "net").replace("mount", "mnt");
        json!({ "type": kind, "path": format!("/proc/{}/ns/{name}", one.pid) })
    });
    second.spec["linux"]["namespaces"] = json!(listed);
    for (name, inside) in ["pid", "cgroup", "net", "ipc", "uts", "mnt"].iter().zip(lines(&second)) {
        let theirs = fs::read_link(format!("/proc/{}/ns/{name}", one.pid)).unwrap();
        // Its mounts are always its own.
        assert_eq!(theirs == Path::new(&inside), *name != "mnt", "{name}");
    }
}

fn owners_are_mapped() {
    let volume = |bench: &Bench| {
        let path = bench.path("volume");
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("file"), "text").unwrap();
        chown(path.join("file"), Some(7), Some(8)).unwrap();
        path
    };
    // Its own maps: file ids inside, shown ids outside.
    let bench = script("stat -c %u:%g /data/file");
    let source = volume(&bench);
    let maps = |outside: u32| json!([{ "containerID": 0, "hostID": outside, "size": 1000 }]);
    let bench = bench
        .mount(json!({ "destination": "/data", "type": "bind", "source": source, "options": ["bind"],
        "uidMappings": maps(2000), "gidMappings": maps(3000) }));
    assert_eq!(out(&bench), "2007:3008\n");
    // The container's: what root owns outside is root's inside, and what root makes inside is root's outside.
    let bench = unprivileged(script("stat -c %u:%g /data/file; touch /data/new && stat -c %u /data/new"));
    let source = volume(&bench);
    let bench = bench.mount(
        json!({ "destination": "/data", "type": "bind", "source": source, "options": ["rbind", "ridmap", "nosuid"] }),
    );
    assert_eq!(out(&bench), "7:8\n0\n");
    assert_eq!(fs::metadata(source.join("new")).unwrap().uid(), 0);
    // A file system that cannot is named.
    let bench = unprivileged(script("true")).mount(
        json!({ "destination": "/data", "type": "bind", "source": "/proc/sys", "options": ["bind", "idmap"] }),
    );
    let error = bench.run().unwrap_err();
    assert!(error.starts_with("jail: id-mapped mount of \"/proc/sys\" at \"/data\": "), "{error}");
}

fn attributes_of_all_below() {
    let text = "touch /data/x 2>/dev/null || echo top; touch /data/below/x 2>/dev/null || echo below; \
                grep ' /data' /proc/self/mountinfo | grep -c 'ro,nosuid,nodev,noexec'; true";
    let volume = script("true");
    let source = volume.path("volume");
    fs::create_dir_all(source.join("below")).unwrap();
    let mount = |options: Value| json!({ "destination": "/data", "type": "bind", "source": source, "options": options });
    let below = json!({ "destination": "/data/below", "type": "tmpfs", "source": "t" });
    // What is mounted below at the time is meant, so the volume gets a mount of its own first.
    let held = nix::mount::mount(
        Some("tmpfs"),
        &source.join("below"),
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    );
    held.unwrap();
    let run = |bench: Bench| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lines(&bench)));
    let all = run(script(text).mount(mount(json!(["rbind", "rro", "rnosuid", "rnodev", "rnoexec"]))));
    let top = run(script(text).mount(mount(json!(["rbind", "ro"]))));
    nix::mount::umount(&source.join("below")).unwrap();
    assert_eq!(all.unwrap(), ["top", "below", "2"]);
    assert_eq!(top.unwrap(), ["top", "0"]);
    // Of a file system that is made here they hold too, from the end on.
    let fresh = script("touch /data/x 2>/dev/null || echo sealed; ls -d /data/below")
        .mount(json!({ "destination": "/data", "type": "tmpfs", "source": "t", "options": ["rro"] }))
        .mount(below);
    assert_eq!(lines(&fresh), ["sealed", "/data/below"]);
}

fn propagation() {
    let bench = script("grep -E ' (/|/data) ' /proc/self/mountinfo | grep -oE 'shared|unbindable'; true")
        .set("/linux/rootfsPropagation", json!("shared"));
    let source = bench.path("volume");
    fs::create_dir(&source).unwrap();
    let bench = bench.mount(
        json!({ "destination": "/data", "type": "bind", "source": source, "options": ["bind", "runbindable"] }),
    );
    assert_eq!(lines(&bench), ["shared", "unbindable"]);
}

fn scheduling() {
    let mut bench = script("cat /proc/self/stat; busybox uname -m")
        .set("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 5 }))
        .set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 }))
        .set("/linux/memoryPolicy", json!({ "mode": "MPOL_LOCAL" }))
        .set("/linux/personality", json!({ "domain": "LINUX32" }));
    let got = lines(&bench);
    let words: Vec<_> = got[0].rsplit(')').next().unwrap().split_whitespace().collect();
    // proc_pid_stat(5), fields 19 and 41.
    assert_eq!((words[16], words[38]), ("5", "3"), "{got:?}");
    if cfg!(target_arch = "x86_64") {
        assert_eq!(got[1], "i686");
    }
    bench.spec["process"]["args"] = json!(["sleep", "100"]);
    let init = bench.start().unwrap();
    let mut wanted = process(&["sh", "-c", "grep Cpus_allowed_list /proc/self/status; busybox uname -m"]);
    wanted["execCPUAffinity"] = json!({ "initial": "0-1", "final": "0" });
    let got = bench.exec(&init, wanted).unwrap().finish().out;
    assert!(got.starts_with("Cpus_allowed_list:\t0\n"), "{got}");
    let bench = script("true").set("/process/scheduler", json!({ "policy": "SCHED_FIFO", "priority": 1000 }));
    assert_eq!(bench.run().unwrap_err(), "scheduler: invalid argument");
}
