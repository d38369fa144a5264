//! Processes and containers that share: one more process in a container, two containers in a sandbox, a user namespace
//! among namespaces that are not its own, a root on an initramfs.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use jail::PidNamespace;
use serde_json::json;

use crate::bench::{Bench, process, script};
use crate::tests::{Test, lines, out, status};

pub(crate) const ALL: &[Test] = &[
    ("exec_joins_the_container", exec_joins_the_container),
    ("exec_terminal", exec_terminal),
    ("exec_into_nothing", exec_into_nothing),
    ("shared_namespaces", shared_namespaces),
    ("user_namespace", user_namespace),
    ("exec_into_a_user_namespace", exec_into_a_user_namespace),
    ("stacked_root", stacked_root),
];

fn exec_joins_the_container() {
    let bench = Bench::new(&["sleep", "100"]).set("/process/capabilities/effective", json!(["CAP_KILL"]));
    let init = bench.start().unwrap();
    let show = "hostname; cat /proc/1/comm; for n in mnt uts ipc pid cgroup; do readlink /proc/1/ns/$n; readlink /proc/self/ns/$n; done";
    let got = bench.exec(&init, process(&["sh", "-c", show])).unwrap().finish();
    let words: Vec<_> = got.out.lines().collect();
    assert_eq!(words[..2], ["husk-test", "sleep"], "{got:?}");
    for pair in words[2..].chunks(2) {
        assert_eq!(pair[0], pair[1]);
    }
    // What the request leaves out is the container's; what it says holds.
    let got = bench.exec(&init, process(&["cat", "/proc/self/status"])).unwrap().finish().out;
    assert_eq!(status(&got, "CapBnd"), "00000000000000eb");
    assert_eq!(status(&got, "NoNewPrivs"), "0");
    let mut other = process(&["sh", "-c", "id -u; pwd; cat /proc/self/status"]);
    other["user"] = json!({ "uid": 0, "gid": 0, "username": "web" });
    other["cwd"] = json!("/home/web");
    other["capabilities"] = json!({ "bounding": ["CAP_KILL"] });
    let got = bench.exec(&init, other).unwrap().finish().out;
    assert!(got.starts_with("33\n/home/web\n"), "{got}");
    assert_eq!(status(&got, "CapBnd"), "0000000000000020");
    // Exit codes and failures are its own.
    assert_eq!(bench.exec(&init, process(&["sh", "-c", "exit 5"])).unwrap().finish().code, 5);
    let fails = |args: &[&str]| bench.exec(&init, process(args)).err().unwrap();
    assert_eq!(fails(&["nosuch"]), "exec: \"nosuch\": no such file or directory");
    let mut lost = process(&["pwd"]);
    lost["cwd"] = json!("/nosuch");
    assert_eq!(bench.exec(&init, lost).err().unwrap(), "cwd \"/nosuch\": no such file or directory");
}

fn exec_terminal() {
    let bench = Bench::new(&["sleep", "100"]);
    let init = bench.start().unwrap();
    let mut wanted = process(&["sh", "-c", "tty; stty size"]);
    wanted["terminal"] = json!(true);
    wanted["consoleSize"] = json!({ "height": 10, "width": 20 });
    let got = bench.exec(&init, wanted).unwrap().finish();
    assert_eq!(got.out, "/dev/pts/0\r\n10 20\r\n");
}

fn exec_into_nothing() {
    let bench = Bench::new(&["true"]);
    let init = bench.start().unwrap();
    crate::bench::wait_readable(&init.pidfd);
    let got = bench.exec(&init, process(&["true"])).err().unwrap();
    assert_eq!(got, "jail: exec: the container's first process is gone");
}

fn shared_namespaces() {
    let first = Bench::new(&["sleep", "100"]);
    let one = first.start().unwrap();
    let namespace = |name: &str| Some(format!("/proc/{}/ns/{name}", one.pid).into());
    let mut second =
        script("hostname; for n in ipc uts pid; do readlink /proc/self/ns/$n; done; cat /proc/1/comm; true");
    second.spec["hostname"] = json!("ignored");
    second.context.ipc = namespace("ipc");
    second.context.uts = namespace("uts");
    second.context.pid = PidNamespace::Join(namespace("pid").unwrap());
    let got = lines(&second);
    assert_eq!(got[0], "husk-test");
    for (name, inside) in ["ipc", "uts", "pid"].iter().zip(&got[1..]) {
        assert_eq!(fs::read_link(namespace(name).unwrap()).unwrap(), Path::new(inside), "{name}");
    }
    assert_eq!(got[4], "sleep");
    // Its own pid namespace beside the shared others.
    second.context.pid = PidNamespace::New;
    assert_eq!(lines(&second)[4], "sh");
    second.context.ipc = Some("/proc/self/ns/nosuch".into());
    assert!(second.run().unwrap_err().starts_with("jail: open ipc namespace \"/proc/self/ns/nosuch\": "));
}

/// A container whose root is user 100000 outside.
fn unprivileged(text: &str) -> Bench {
    let maps = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    let limits = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    let mut bench = script(text)
        .set("/linux/uidMappings", maps.clone())
        .set("/linux/gidMappings", maps)
        .set("/process/rlimits", limits)
        .set("/process/oomScoreAdj", json!(55));
    bench.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    for path in [bench.rootfs(), bench.rootfs().join("data")] {
        chown(path, Some(100_000), Some(100_000)).unwrap();
    }
    bench
}

fn user_namespace() {
    let inside = "id -u; wc -l < /proc/self/uid_map; hostname; echo x > /dev/null && echo null; touch /data/mine; \
                  ls -d /sys/kernel; mount -t tmpfs t /tmp 2>/dev/null || echo refused; stat -c %u /proc/1; \
                  ulimit -n; cat /proc/self/oom_score_adj";
    let expected = ["0", "1", "husk-test", "null", "/sys/kernel", "refused", "0", "100", "55"];
    let bench = unprivileged(inside);
    assert_eq!(lines(&bench), expected);
    let made = fs::metadata(bench.rootfs().join("data/mine")).unwrap();
    assert_eq!(made.uid(), 100_000);
    // In a sandbox whose ipc and uts namespaces belong to somebody else.
    let first = Bench::new(&["sleep", "100"]);
    let one = first.start().unwrap();
    let mut bench = unprivileged(&format!("{inside}; ls /dev/mqueue"));
    bench.context.uts = Some(format!("/proc/{}/ns/uts", one.pid).into());
    bench.context.ipc = Some(format!("/proc/{}/ns/ipc", one.pid).into());
    let queues = bench.path("queues");
    fs::create_dir(&queues).unwrap();
    fs::write(queues.join("queue"), "").unwrap();
    bench.context.mqueue = Some(queues);
    let mut more = expected.to_vec();
    more.push("queue");
    assert_eq!(lines(&bench), more);
}

fn exec_into_a_user_namespace() {
    let bench = unprivileged("sleep 100; true");
    let init = bench.start().unwrap();
    let mut wanted =
        process(&["sh", "-c", "id -u; readlink /proc/1/ns/user; readlink /proc/self/ns/user; tty"]);
    wanted["terminal"] = json!(true);
    let got = bench.exec(&init, wanted).unwrap().finish().out;
    let words: Vec<_> = got.lines().collect();
    assert_eq!((words[0], words[1], words[3]), ("0", words[2], "/dev/pts/0"), "{got}");
    let mut wanted = process(&["id", "-u"]);
    wanted["user"] = json!({ "uid": 33, "gid": 34 });
    assert_eq!(bench.exec(&init, wanted).unwrap().finish().out, "33\n");
}

fn stacked_root() {
    let mut bench = script("cat /proc/self/mountinfo; echo; hostname; ls /");
    bench.context.root_is_ramfs = true;
    let plain = {
        let plain = script("cat /proc/self/mountinfo");
        out(&plain).lines().count()
    };
    let got = out(&bench);
    let (mounts, rest) = got.split_once("\n\n").unwrap();
    assert_eq!(mounts.lines().count(), plain, "{mounts}");
    assert!(rest.starts_with("husk-test\nbin\n"), "{rest}");
    // And one more process finds the container's root, not the one below it.
    let mut bench = Bench::new(&["sleep", "100"]);
    bench.context.root_is_ramfs = true;
    let init = bench.start().unwrap();
    let got = bench.exec(&init, process(&["cat", "/etc/hosts"])).unwrap().finish();
    assert_eq!(got.out, "image\n");
}
