//! Errors that name what is wrong: the field, or the object it names.

use agent_api::agent::*;
use agent_api::oci::*;
use e2e::Boot;
use protobuf::{Message, MessageField};
use ttrpc::Code::{self, INTERNAL, INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE};

use super::{PATIENCE, ask, raw};

/// A call that is refused: method, request, code, and a word of its message.
type Row = (&'static str, Vec<u8>, Code, &'static str);

#[test]
fn each_refusal_names_what_it_is_about() {
    Boot::new().test(async |guest| {
        let watch = guest.watch().await;
        let container = guest.container("named").args(&["sleep", "100000"]).start().await;
        let terminal = guest.container("terminal").terminal().args(&["sleep", "100000"]).start().await;
        container.exec(&["sleep", "100000"]).id("taken").start().await;
        let before = watch.look().await;
        let plain = guest.container("refused").into_request();
        let rows =
            [creations(&plain), processes(container.id(), terminal.id()), unknown(), others(container.id())]
                .concat();
        let client = raw(guest).await;
        let mut wrong = Vec::new();
        for (method, request, code, word) in rows {
            match ask(&client, method, request, PATIENCE).await {
                Err(ttrpc::Error::RpcStatus(status))
                    if status.code() == code && status.message().contains(word) => {}
                answer => wrong.push(format!("{method}: not {code:?} with {word:?} but {answer:?}")),
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        watch.nothing_is_left(&before).await;
    });
}

fn row(method: &'static str, request: &impl Message, code: Code, word: &'static str) -> Row {
    (method, request.write_to_bytes().expect("it can be written"), code, word)
}

fn creations(plain: &CreateContainerRequest) -> Vec<Row> {
    let refused = |word, change: &dyn Fn(&mut CreateContainerRequest)| {
        let mut request = plain.clone();
        change(&mut request);
        row("CreateContainer", &request, INTERNAL, word)
    };
    let in_spec = |word, change: &dyn Fn(&mut Spec)| {
        refused(word, &|request| change(request.OCI.mut_or_insert_default()))
    };
    let in_process = |word, change: &dyn Fn(&mut Process)| {
        in_spec(word, &|spec| change(spec.Process.mut_or_insert_default()))
    };
    let in_linux =
        |word, change: &dyn Fn(&mut Linux)| in_spec(word, &|spec| change(spec.Linux.mut_or_insert_default()));
    let in_mount = |word, change: &dyn Fn(&mut Mount)| {
        in_spec(word, &|spec| change(spec.Mounts.last_mut().expect("a plain spec has mounts")))
    };
    let storage = |word, change: &dyn Fn(&mut Storage)| {
        refused(word, &|request| {
            let mut storage = Storage {
                driver: "ephemeral".into(),
                source: "tmpfs".into(),
                fstype: "tmpfs".into(),
                mount_point: "/run/kata-containers/sandbox/ephemeral/named".into(),
                ..Default::default()
            };
            change(&mut storage);
            request.storages.push(storage);
        })
    };
    let namespace = |kind: &str| LinuxNamespace { Type: kind.into(), ..Default::default() };
    vec![
        refused("container \"\"", &|request| request.container_id.clear()),
        refused("container \"../up\"", &|request| request.container_id = "../up".into()),
        refused("OCI", &|request| request.OCI = MessageField::none()),
        in_spec("process", &|spec| spec.Process = MessageField::none()),
        in_spec("root", &|spec| spec.Root = MessageField::none()),
        in_process("args", &|process| process.Args.clear()),
        in_process("NUL", &|process| process.Args.push("a\0b".into())),
        in_process("environment", &|process| process.Env.push("no equals sign".into())),
        in_process("cwd", &|process| process.Cwd = "not/absolute".into()),
        in_process("oomScoreAdj", &|process| process.OOMScoreAdj = i64::MAX),
        in_process("resource limit", &|process| {
            process.Rlimits.push(POSIXRlimit { Type: "RLIMIT_NOSUCH".into(), ..Default::default() });
        }),
        in_process("soft limit", &|process| {
            let (kind, soft) = ("RLIMIT_NOFILE".into(), 9);
            process.Rlimits.push(POSIXRlimit { Type: kind, Soft: soft, Hard: 3, ..Default::default() });
        }),
        in_mount("mount", &|mount| mount.destination = "not/absolute".into()),
        in_mount("mount", &|mount| mount.destination = "/a/../../b".into()),
        in_mount("/tmp", &|mount| mount.type_ = "nosuchfs".into()),
        in_mount("/proc", &|mount| mount.destination = "/proc/1".into()),
        in_linux("namespace", &|linux| linux.Namespaces.push(namespace("nosuch"))),
        in_linux("user namespace", &|linux| linux.Namespaces.push(namespace("user"))),
        in_linux("sysctl", &|linux| drop(linux.Sysctl.insert("kernel.panic".into(), "1".into()))),
        in_linux("device type", &|linux| {
            linux.Devices.push(LinuxDevice { Path: "/dev/x".into(), Type: "x".into(), ..Default::default() });
        }),
        in_linux("masked path", &|linux| linux.MaskedPaths.push("up/../there".into())),
        in_linux("propagation", &|linux| linux.RootfsPropagation = "sideways".into()),
        in_linux("cgroup", &|linux| linux.CgroupsPath = "/../../up".into()),
        storage("driver", &|storage| storage.driver = "floppy".into()),
        storage("mount_point", &|storage| storage.mount_point = "not/absolute".into()),
        storage("mount_point", &|storage| storage.mount_point = "/run/../etc".into()),
    ]
}

fn processes(container: &str, terminal: &str) -> Vec<Row> {
    let exec = |word, change: &dyn Fn(&mut ExecProcessRequest)| {
        let process = Process { Args: vec!["true".into()], Cwd: "/".into(), ..Default::default() };
        let mut request = ExecProcessRequest {
            container_id: container.into(),
            exec_id: "fresh".into(),
            process: MessageField::some(process),
            ..Default::default()
        };
        change(&mut request);
        row("ExecProcess", &request, INTERNAL, word)
    };
    let signal = |exec_id: &str, signal, code, word| {
        let container_id = container.into();
        let request =
            SignalProcessRequest { container_id, exec_id: exec_id.into(), signal, ..Default::default() };
        row("SignalProcess", &request, code, word)
    };
    let resize = |container: &str, rows, columns, code, word| {
        let mut request = TtyWinResizeRequest { container_id: container.into(), ..Default::default() };
        (request.row, request.column) = (rows, columns);
        row("TtyWinResize", &request, code, word)
    };
    vec![
        exec("process", &|request| request.process = MessageField::none()),
        exec("taken", &|request| request.exec_id = "taken".into()),
        exec("no-such", &|request| request.process.mut_or_insert_default().Args = vec!["no-such".into()]),
        exec("args", &|request| request.process.mut_or_insert_default().Args.clear()),
        exec("NUL", &|request| request.process.mut_or_insert_default().Cwd = "/no/dir/\0".into()),
        signal("", u32::MAX, INVALID_ARGUMENT, "signal"),
        signal("", 65, INVALID_ARGUMENT, "signal"),
        signal("nobody", 15, NOT_FOUND, "nobody"),
        resize(container, 25, 80, UNAVAILABLE, "terminal"),
        resize(terminal, 70_000, 80, INVALID_ARGUMENT, "row"),
        resize(terminal, 25, 70_000, INVALID_ARGUMENT, "column"),
    ]
}

/// Every method that takes a container or a process: what it names is in its error.
fn unknown() -> Vec<Row> {
    let id = || "nobody-knows".to_string();
    let word = "nobody-knows";
    vec![
        row(
            "StartContainer",
            &StartContainerRequest { container_id: id(), ..Default::default() },
            INTERNAL,
            word,
        ),
        row(
            "RemoveContainer",
            &RemoveContainerRequest { container_id: id(), ..Default::default() },
            INTERNAL,
            word,
        ),
        row("ExecProcess", &ExecProcessRequest { container_id: id(), ..Default::default() }, INTERNAL, word),
        row("WriteStdin", &WriteStreamRequest { container_id: id(), ..Default::default() }, INTERNAL, word),
        row(
            "SignalProcess",
            &SignalProcessRequest { container_id: id(), signal: 15, ..Default::default() },
            INVALID_ARGUMENT,
            word,
        ),
        row(
            "SignalProcess",
            &SignalProcessRequest { container_id: id(), signal: 9, ..Default::default() },
            INTERNAL,
            word,
        ),
        row(
            "WaitProcess",
            &WaitProcessRequest { container_id: id(), ..Default::default() },
            INVALID_ARGUMENT,
            word,
        ),
        row(
            "ReadStdout",
            &ReadStreamRequest { container_id: id(), ..Default::default() },
            INVALID_ARGUMENT,
            word,
        ),
        row(
            "ReadStderr",
            &ReadStreamRequest { container_id: id(), ..Default::default() },
            INVALID_ARGUMENT,
            word,
        ),
        row(
            "CloseStdin",
            &CloseStdinRequest { container_id: id(), ..Default::default() },
            INVALID_ARGUMENT,
            word,
        ),
        row(
            "TtyWinResize",
            &TtyWinResizeRequest { container_id: id(), ..Default::default() },
            INVALID_ARGUMENT,
            word,
        ),
        row(
            "StatsContainer",
            &StatsContainerRequest { container_id: id(), ..Default::default() },
            INVALID_ARGUMENT,
            word,
        ),
        row(
            "UpdateContainer",
            &UpdateContainerRequest { container_id: id(), ..Default::default() },
            INVALID_ARGUMENT,
            word,
        ),
        row(
            "PauseContainer",
            &PauseContainerRequest { container_id: id(), ..Default::default() },
            INVALID_ARGUMENT,
            word,
        ),
        row(
            "ResumeContainer",
            &ResumeContainerRequest { container_id: id(), ..Default::default() },
            INVALID_ARGUMENT,
            word,
        ),
    ]
}

fn others(container: &str) -> Vec<Row> {
    let share = "/run/kata-containers/shared/containers";
    let copy = |path: String, word| {
        let request = CopyFileRequest { path, file_mode: 0o100_644, ..Default::default() };
        row("CopyFile", &request, INTERNAL, word)
    };
    let storage = Storage { driver: "local".into(), ..Default::default() };
    vec![
        copy("/etc/bad".into(), "/etc/bad"),
        copy(format!("{share}/../../bad"), "bad"),
        copy(share.into(), "path"),
        row("UpdateInterface", &UpdateInterfaceRequest::new(), INVALID_ARGUMENT, "interface"),
        row("UpdateRoutes", &UpdateRoutesRequest::new(), INVALID_ARGUMENT, "routes"),
        row("AddARPNeighbors", &AddARPNeighborsRequest::new(), INVALID_ARGUMENT, "neighbors"),
        row(
            "GetDiagnosticData",
            &GetDiagnosticDataRequest { container_id: container.into(), ..Default::default() },
            INVALID_ARGUMENT,
            "log_type",
        ),
        row(
            "GetVolumeStats",
            &VolumeStatsRequest { volume_guest_path: "/no/such".into(), ..Default::default() },
            INTERNAL,
            "/no/such",
        ),
        row("ReseedRandomDev", &ReseedRandomDevRequest::new(), INTERNAL, "data"),
        row("AddSwap", &AddSwapRequest::new(), INTERNAL, "PCIPath"),
        row(
            "AddSwapPath",
            &AddSwapPathRequest { path: "/no/such".into(), ..Default::default() },
            INTERNAL,
            "/no/such",
        ),
        row(
            "SetGuestDateTime",
            &SetGuestDateTimeRequest { Usec: -1, ..Default::default() },
            INTERNAL,
            "Usec",
        ),
        row(
            "UpdateEphemeralMounts",
            &UpdateEphemeralMountsRequest { storages: vec![storage], ..Default::default() },
            INTERNAL,
            "driver",
        ),
        row(
            "CreateSandbox",
            &CreateSandboxRequest { hostname: "h".repeat(65), ..Default::default() },
            INTERNAL,
            "hostname",
        ),
    ]
}
