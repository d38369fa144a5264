//! Specs in, plans out.

use serde_json::{Value, json};

use super::*;

fn context() -> Context {
    Context {
        id: "c1".into(),
        bundle: "/run/c1".into(),
        ipc: Some("/run/sandbox-ns/ipc".into()),
        uts: Some("/run/sandbox-ns/uts".into()),
        cgroup: Some("/sys/fs/cgroup/c1".into()),
        ..Context::default()
    }
}

fn spec(change: Value) -> oci::Spec {
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "process": { "user": {}, "args": ["sh"], "env": ["A=b"], "cwd": "/" },
        "linux": { "namespaces": [] },
    });
    for (pointer, value) in change.as_object().unwrap() {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[name] = value.clone();
    }
    serde_json::from_value(spec).unwrap()
}

fn plan(change: Value) -> Result<Plan, PlanError> {
    container(&spec(change), &context())
}

fn plan_of(change: Value) -> Container {
    plan(change).unwrap().container.unwrap()
}

#[test]
fn a_plan_survives_its_file() {
    let plan = plan(json!({ "/hostname": "h", "/mounts": [
        { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"] } ] }))
    .unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

#[test]
fn the_sandbox_namespaces_win_over_the_spec() {
    let listed = json!([
        { "type": "ipc", "path": "/elsewhere" }, { "type": "uts" }, { "type": "network" }, { "type": "pid" },
        { "type": "mount" }, { "type": "cgroup" },
    ]);
    let namespaces = plan(json!({ "/linux/namespaces": listed, "/hostname": "h" })).unwrap().namespaces;
    assert_eq!(namespaces.create, [NamespaceKind::Mount, NamespaceKind::Pid]);
    let joined: Vec<_> =
        namespaces.join.iter().map(|join| (join.kind, join.path.to_str().unwrap())).collect();
    let expected = [(NamespaceKind::Ipc, "/run/sandbox-ns/ipc"), (NamespaceKind::Uts, "/run/sandbox-ns/uts")];
    assert_eq!(joined, expected);
    assert!(namespaces.own_cgroup);
}

#[test]
fn without_a_sandbox_the_spec_decides() {
    let listed = json!([{ "type": "ipc" }, { "type": "uts", "path": "" }, { "type": "network", "path": "/run/netns/x" }]);
    let spec = spec(json!({ "/linux/namespaces": listed, "/hostname": "h" }));
    let context = Context {
        pid: PidNamespace::Join("/proc/7/ns/pid".into()),
        bundle: "/b".into(),
        ..Context::default()
    };
    let plan = container(&spec, &context).unwrap();
    assert_eq!(plan.namespaces.create, [NamespaceKind::Mount, NamespaceKind::Ipc, NamespaceKind::Uts]);
    assert_eq!(plan.namespaces.join.len(), 2);
    assert_eq!(plan.container.unwrap().hostname.as_deref(), Some("h"));
}

#[test]
fn a_shared_host_name_is_not_the_containers_to_set() {
    assert_eq!(plan_of(json!({ "/hostname": "h", "/domainname": "d" })).hostname, None);
}

#[test]
fn a_user_namespace_needs_maps_and_changes_mounts() {
    let user = json!([{ "type": "user" }]);
    assert_eq!(plan(json!({ "/linux/namespaces": user })), Err(PlanError::NoIdMap("uid")));
    let maps = json!([{ "containerID": 0, "hostID": 1000, "size": 5 }]);
    let mounts = json!([
        { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["mode=0620", "gid=5"] },
    ]);
    let got = plan(json!({
        "/linux/namespaces": user, "/linux/uidMappings": maps, "/linux/gidMappings": maps, "/mounts": mounts,
    }))
    .unwrap();
    let made = got.container.unwrap();
    assert!(made.bind_devices);
    assert_eq!(made.mounts[0].source, Source::Bind { path: "/sys".into(), recursive: true });
    // Group 5 does not exist in a namespace of five ids.
    assert_eq!(made.mounts[1].options.data, ["mode=0620"]);
    assert_eq!(got.namespaces.uids, [IdMap { inside: 0, outside: 1000, size: 5 }]);
    // One that exists has maps of its own; its processes are no more privileged for that.
    let path = json!([{ "type": "user", "path": "/proc/1/ns/user" }]);
    let joined = plan(json!({ "/linux/namespaces": path })).unwrap();
    assert_eq!(joined.namespaces.joins(NamespaceKind::User), Some(Path::new("/proc/1/ns/user")));
    assert!(joined.namespaces.uids.is_empty() && joined.container.unwrap().bind_devices);
}

#[test]
fn clocks_belong_to_a_new_time_namespace() {
    let offsets = json!({ "monotonic": { "secs": -5 }, "boottime": { "nanosecs": 7 } });
    let time = |namespaces: Value, offsets: Value| {
        plan(json!({ "/linux/namespaces": namespaces, "/linux/timeOffsets": offsets }))
    };
    let got = time(json!([{ "type": "time" }]), offsets.clone()).unwrap().namespaces;
    let clocks: Vec<_> =
        got.clocks.iter().map(|at| (at.clock.as_str(), at.seconds, at.nanoseconds)).collect();
    assert_eq!(clocks, [("boottime", 0, 7), ("monotonic", -5, 0)]);
    for (namespaces, offsets) in [
        (json!([]), offsets.clone()),
        (json!([{ "type": "time", "path": "/proc/1/ns/time" }]), offsets),
        (json!([{ "type": "time" }]), json!({ "realtime": {} })),
        (json!([{ "type": "time" }]), json!({ "monotonic": { "nanosecs": 1_000_000_000 } })),
    ] {
        assert!(time(namespaces.clone(), offsets.clone()).is_err(), "{namespaces} {offsets}");
    }
}

#[test]
fn owners_are_mapped_by_their_own_maps_or_the_containers() {
    let maps = json!([{ "containerID": 0, "hostID": 1000, "size": 5 }]);
    let mount = |change: Value| {
        let mut mount = json!({ "destination": "/d", "source": "/s", "options": ["bind"] });
        mount.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!([mount])
    };
    let owners = |change: Value| {
        let plan = plan(json!({ "/mounts": mount(change) }))?;
        Ok::<_, PlanError>(plan.container.unwrap().mounts[0].owners.clone())
    };
    assert_eq!(owners(json!({})), Ok(None));
    let own = owners(json!({ "uidMappings": maps, "gidMappings": maps })).unwrap().unwrap();
    assert_eq!((own.uids[0].outside, own.below), (1000, false));
    for bad in [
        json!({ "uidMappings": maps }),
        json!({ "options": ["bind", "idmap"] }),
        json!({ "type": "tmpfs", "options": [], "uidMappings": maps, "gidMappings": maps }),
    ] {
        assert!(owners(bad.clone()).is_err(), "{bad}");
    }
    let inherited = plan(json!({
        "/mounts": mount(json!({ "options": ["rbind", "ridmap"] })), "/linux/namespaces": [{ "type": "user" }],
        "/linux/uidMappings": maps, "/linux/gidMappings": maps,
    }));
    let inherited = inherited.unwrap().container.unwrap().mounts[0].owners.clone().unwrap();
    assert_eq!((inherited.gids[0].outside, inherited.below), (1000, true));
}

#[test]
fn labels_go_to_what_can_carry_one() {
    let mounts = json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" },
        { "destination": "/b", "type": "bind", "source": "/b" },
    ]);
    let made = plan_of(json!({ "/linux/mountLabel": "a:b:c:s0:c1,c2", "/mounts": mounts }));
    let data: Vec<_> = made.mounts.iter().map(|mount| mount.options.data.join(" ")).collect();
    assert_eq!(data, ["", "context=\"a:b:c:s0:c1,c2\"", ""]);
    assert_eq!(made.mount_label.as_deref(), Some("a:b:c:s0:c1,c2"));
    assert_eq!(plan_of(json!({ "/linux/mountLabel": "" })).mount_label, None);
}

#[test]
fn what_we_leave_to_others_is_refused() {
    for (pointer, value) in [
        ("/linux/intelRdt", json!({ "l3CacheSchema": "L3:0=f" })),
        ("/linux/netDevices", json!({ "eth0": {} })),
    ] {
        let error = plan(json!({ pointer: value })).unwrap_err().to_string();
        assert!(error.contains(&pointer[1..].replace('/', ".")), "{error}");
    }
}

#[test]
fn the_bind_option_wins_over_the_type() {
    let mounts = json!([
        { "destination": "/a", "type": "local", "source": "/run/x", "options": ["rbind"] },
        { "destination": "/b", "type": "bind", "source": "relative" },
        { "destination": "/c", "type": "cgroup", "source": "cgroup", "options": ["ro", "nsdelegate"] },
        { "destination": "/d//e/.", "source": "tmpfs", "type": "tmpfs", "options": ["size=1k"] },
    ]);
    let mounts = plan_of(json!({ "/mounts": mounts })).mounts;
    assert_eq!(mounts[0].source, Source::Bind { path: "/run/x".into(), recursive: true });
    assert_eq!(mounts[1].source, Source::Bind { path: "/run/c1/relative".into(), recursive: false });
    assert_eq!(mounts[2].source, Source::FileSystem { fstype: "cgroup2".into(), source: "cgroup".into() });
    assert!(mounts[2].options.data.is_empty());
    assert_eq!(mounts[3].destination, Path::new("/d/e"));
}

#[test]
fn mounts_that_are_refused() {
    let mount = |destination: &str, typ: &str| {
        plan(json!({ "/mounts": [{ "destination": destination, "type": typ, "source": "/x" }] })).map(drop)
    };
    for name in ["cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "net/dev"] {
        assert_eq!(mount(&format!("/proc/{name}"), "bind"), Ok(()));
    }
    assert_eq!(mount("/proc", "proc"), Ok(()));
    for path in ["/proc/sys", "/proc/self/environ", "/proc//sys/./kernel", "/proc/net"] {
        assert!(matches!(mount(path, "bind"), Err(PlanError::InsideProc(_))), "{path}");
    }
    for path in ["relative", "/a/../../b", ""] {
        assert!(matches!(mount(path, "tmpfs"), Err(PlanError::Path { .. })), "{path}");
    }
    let bare = json!({ "/mounts": [{ "destination": "/x", "options": ["bind"] }] });
    assert_eq!(plan(bare), Err(PlanError::NoSource("/x".into())));
}

#[test]
fn devices_are_the_defaults_and_the_specs() {
    let own = json!([
        { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o100_600 },
        { "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "uid": 7 },
        { "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 },
    ]);
    let devices = plan_of(json!({ "/linux/devices": own })).devices;
    let names: Vec<_> = devices.iter().map(|device| device.path.to_str().unwrap()).collect();
    let expected =
        ["/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/fuse", "/dev/null"];
    assert_eq!(names, expected);
    assert_eq!((devices[5].mode, devices[6].uid), (0o600, 7));
    for bad in [json!({ "major": -1 }), json!({ "type": "a" }), json!({ "path": "dev/x" })] {
        let mut device = json!({ "path": "/dev/x", "type": "c", "major": 1, "minor": 1 });
        device.as_object_mut().unwrap().extend(bad.as_object().unwrap().clone());
        assert!(plan(json!({ "/linux/devices": [device] })).is_err(), "{bad}");
    }
}

#[test]
fn a_bound_dev_is_left_alone() {
    let made = plan_of(json!({ "/mounts": [{ "destination": "/dev/", "type": "bind", "source": "/dev" }] }));
    assert!(made.devices.is_empty() && !made.device_links);
}

#[test]
fn nothing_is_assumed_that_the_spec_does_not_say() {
    let plan = plan(json!({})).unwrap();
    let made = plan.container.unwrap();
    assert!(made.masked_paths.is_empty() && made.readonly_paths.is_empty() && made.mounts.is_empty());
    assert!(!made.readonly_root);
    assert_eq!(made.root, Path::new("/run/c1/rootfs"));
    assert_eq!(plan.process.capabilities, Capabilities::default());
    assert!(plan.process.rlimits.is_empty() && !plan.process.no_new_privileges);
    assert_eq!((plan.process.oom_score_adj, plan.process.user.umask), (None, 0o022));
}

#[test]
fn an_exec_inherits_what_it_leaves_out() {
    let caps = json!({ "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"] });
    let of = plan(json!({
        "/process/capabilities": caps, "/process/noNewPrivileges": true, "/process/selinuxLabel": "a:b:c:s0",
        "/process/rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 1 }],
        "/linux/seccomp": { "defaultAction": "SCMP_ACT_ALLOW" },
    }))
    .unwrap();
    let process = |change: Value| {
        let mut process = json!({ "user": {}, "args": ["id"], "cwd": "" });
        process.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value::<oci::Process>(process).unwrap()
    };
    let got = exec(&process(json!({})), &of).unwrap();
    assert!(got.is_exec() && got.namespaces.create.is_empty());
    assert_eq!(got.cgroup, of.cgroup);
    assert_eq!(got.process.capabilities, of.process.capabilities);
    assert!(!got.process.no_new_privileges && got.process.rlimits.is_empty());
    assert_eq!((&got.process.seccomp, &got.process.labels), (&of.process.seccomp, &of.process.labels));
    assert!(got.process.seccomp.is_some());
    assert_eq!(got.process.cwd, Path::new("/"));
    let got = exec(&process(json!({ "capabilities": {} })), &of).unwrap();
    assert_eq!(got.process.capabilities, Capabilities::default());
    assert!(!got.namespaces.of_container.contains(&NamespaceKind::User));
}

#[test]
fn a_name_only_counts_for_uid_0() {
    let name = |user: Value| plan(json!({ "/process/user": user })).unwrap().process.user.name;
    assert_eq!(name(json!({ "uid": 0, "username": "web" })).as_deref(), Some("web"));
    assert_eq!(name(json!({ "uid": 5, "username": "web" })), None);
    assert_eq!(name(json!({ "uid": 0, "username": "" })), None);
}

#[test]
fn what_no_system_call_takes_is_refused() {
    assert_eq!(plan(json!({ "/process/args": [] })), Err(PlanError::Missing("process.args")));
    assert_eq!(plan(json!({ "/process/args": [""] })), Err(PlanError::Missing("process.args")));
    for (pointer, value) in [
        ("/process/args", json!(["a\0b"])),
        ("/process/env", json!(["A=b\0"])),
        ("/process/cwd", json!("/a\0")),
        ("/root/path", json!("/a\0")),
        ("/linux/maskedPaths", json!(["/a\0"])),
    ] {
        assert!(matches!(plan(json!({ pointer: value })), Err(PlanError::Nul { .. })), "{pointer}");
    }
    for entry in ["NOVALUE", "=value", ""] {
        assert_eq!(plan(json!({ "/process/env": [entry] })), Err(PlanError::Env(entry.into())));
    }
    let limits = json!([{ "type": "RLIMIT_NOFILE", "soft": 2, "hard": 1 }]);
    assert!(matches!(plan(json!({ "/process/rlimits": limits })), Err(PlanError::Rlimit { .. })));
    assert!(matches!(plan(json!({ "/linux/sysctl": { "vm.x": "1" } })), Err(PlanError::Sysctl(_))));
}
