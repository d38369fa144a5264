//! Hooks that run inside, and the moment at which the agent runs its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bench::{Bench, script};
use crate::tests::{Test, lines};

pub(crate) const ALL: &[Test] = &[
    ("hooks_of_the_container_see_its_namespaces_and_our_files", hooks_see_namespaces_and_our_files),
    ("hooks_of_the_start_run_inside_as_the_user", hooks_of_the_start_run_inside_as_the_user),
    ("hooks_beside_the_agent_come_before_the_root", hooks_beside_the_agent_come_before_the_root),
    ("hooks_that_fail_say_so", hooks_that_fail_say_so),
    ("hooks_that_hang_are_killed", hooks_that_hang_are_killed),
    ("hooks_that_leave_something_behind_keep_nobody_waiting", hooks_that_leave_something_behind),
];

/// A script among the bench's files, outside of the root.
fn outside(bench: &Bench, text: &str) -> PathBuf {
    let path = bench.path("hook");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn hook(bench: Bench, turn: &str, text: &str) -> Bench {
    let path = outside(&bench, text);
    let hooks = json!({ turn: [{ "path": path, "args": ["named", "argument"], "env": ["A=b"] }] });
    bench.set("/hooks", hooks).set("/annotations", json!({ "key": "x".repeat(100_000) }))
}

fn hooks_see_namespaces_and_our_files() {
    // The state, larger than a pipe, is not read to its end.
    let text =
        "head -c 60 > seen; hostname > name; echo $0 $1 $A >> name; pwd >> name; ls -d rootfs/bin >> name";
    let bench = hook(script("true"), "createContainer", text);
    assert_eq!(bench.run().unwrap().code, 0);
    let name = fs::read_to_string(bench.path("name")).unwrap();
    let directory = bench.path("");
    let expected = format!(
        "husk-test\n{} argument b\n{}\nrootfs/bin\n",
        bench.path("hook").display(),
        directory.to_str().unwrap().trim_end_matches('/')
    );
    assert_eq!(name, expected);
    let seen = fs::read_to_string(bench.path("seen")).unwrap();
    assert!(seen.starts_with(r#"{"ociVersion":"1.0.2","id":"test","bundle":"#), "{seen}");
}

fn hooks_of_the_start_run_inside_as_the_user() {
    let bench = script("cat /tmp/state; echo; cat /tmp/who");
    let inside = bench.rootfs().join("bin/hook");
    fs::write(
        &inside,
        "#!/bin/sh\ncat > /tmp/state; id -u > /tmp/who; pwd >> /tmp/who; echo $A >> /tmp/who\n",
    )
    .unwrap();
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o755)).unwrap();
    let hooks = json!({ "startContainer": [{ "path": "/bin/hook", "env": ["A=b", "PATH=/bin"] }] });
    let bench =
        bench.set("/hooks", hooks).set("/process/user/uid", json!(33)).set("/process/cwd", json!("/home"));
    let created = bench.create().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(!bench.rootfs().join("tmp/state").exists(), "not before the start");
    created.release();
    let got = created.finish().out;
    let (state, who) = got.split_once('\n').unwrap();
    let state: Value = serde_json::from_str(state).unwrap();
    assert_eq!(
        (&state["status"], &state["pid"], &state["id"]),
        (&json!("created"), &json!(1), &json!("test"))
    );
    assert_eq!(who, "33\n/home\nb\n");
}

fn hooks_beside_the_agent_come_before_the_root() {
    let mut bench = script("cat /tmp/early").set("/hooks", json!({ "prestart": [{ "path": "/bin/true" }] }));
    bench.when_mounted = |running| {
        let proc = PathBuf::from(format!("/proc/{}", running.pid));
        let mounts = fs::read_to_string(proc.join("mountinfo")).unwrap();
        let root =
            mounts.lines().find_map(|line| line.split(' ').nth(4).filter(|path| path.ends_with("/rootfs")));
        let root = root.expect("the root is a mount by now").to_owned();
        assert!(mounts.contains(&format!("{root}/proc ")), "and all is mounted in it: {mounts}");
        let ours = fs::read_link("/proc/self/ns/mnt").unwrap();
        assert_ne!(fs::read_link(proc.join("ns/mnt")).unwrap(), ours);
        fs::write(proc.join("root").join(root.trim_start_matches('/')).join("tmp/early"), "early").unwrap();
    };
    assert_eq!(lines(&bench), ["early"]);
}

fn hooks_that_fail_say_so() {
    let bench = hook(script("true"), "createContainer", "echo out; echo no such thing >&2; exit 3");
    let error = bench.run().unwrap_err();
    let path = bench.path("hook");
    assert_eq!(error, format!("createContainer hook {path:?}: exit status: 3: out\nno such thing"));
    let bench = script("true").set("/hooks", json!({ "startContainer": [{ "path": "/no/hook" }] }));
    let error = bench.run().unwrap_err();
    assert_eq!(error, "startContainer hook \"/no/hook\": no such file or directory");
    let bench = hook(script("true"), "createContainer", "kill -SEGV $$");
    assert!(bench.run().unwrap_err().contains("signal: 11"));
}

fn hooks_that_hang_are_killed() {
    let begun = Instant::now();
    let bench = script("true");
    let path = outside(&bench, "sleep 1000 & echo $! > child; echo y; wait");
    let bench = bench.set("/hooks", json!({ "createContainer": [{ "path": path, "timeout": 1 }] }));
    assert_eq!(bench.run().unwrap_err(), format!("createContainer hook {path:?}: not done after 1 s"));
    assert!(begun.elapsed() < Duration::from_secs(8));
}

fn hooks_that_leave_something_behind() {
    let begun = Instant::now();
    let bench = hook(script("echo done"), "createContainer", "(while :; do echo y; done) & echo left");
    assert_eq!(lines(&bench), ["done"]);
    assert!(begun.elapsed() < Duration::from_secs(8));
}
