//! Where the binary seeds come from: values in our own types, written as their peers write them.

use std::path::Path;
use std::{fs, future};

use agent_api::agent::{CopyFileRequest, CreateContainerRequest, CreateSandboxRequest, Device, Storage};
use agent_api::oci::{
    Hook, Hooks, Linux, LinuxCPU, LinuxCapabilities, LinuxDevice, LinuxIDMapping, LinuxMemory,
    LinuxNamespace, LinuxPids, LinuxResources, Mount, POSIXRlimit, Process, Root, Spec, User,
};
use agent_api::ports;
use protobuf::{Message, MessageField};
use tokio::io::{AsyncReadExt as _, DuplexStream};
use tokio_util::compat::TokioAsyncReadCompatExt as _;

/// Run it with `cargo test -p husk-agent binary_seeds -- --ignored` when the messages change.
#[test]
#[ignore = "writes files into the repository"]
fn binary_seeds_are_written_anew() {
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), bytes).unwrap();
    };
    for (name, spec) in [("plain", plain()), ("full", full())] {
        write("oci_spec", name, &create(spec).write_to_bytes().unwrap());
    }
    let requests = requests();
    write("messages", "all", &requests);
    write(
        "messages",
        "streams",
        &[frame(1, 1, 0, &[]), frame(1, 3, 5, b"data"), frame(3, 3, 1, &[])].concat(),
    );
    write("frames", "session", &session(&requests));
    write("frames", "refused", &session(b""));
}

/// A header of ttrpc's (length, stream, type, flags, in network order) and a payload.
fn frame(stream: u32, kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes().to_vec();
    bytes.extend(stream.to_be_bytes());
    bytes.extend([kind, flags]);
    bytes.extend(payload);
    bytes
}

fn requests() -> Vec<u8> {
    let call = |stream, service: &str, method: &str, payload: Vec<u8>| {
        let request = ttrpc::proto::Request {
            service: service.to_string(),
            method: method.to_string(),
            payload,
            timeout_nano: 1_000_000_000,
            ..Default::default()
        };
        frame(stream, 1, 0, &request.write_to_bytes().unwrap())
    };
    let agent = "grpc.AgentService";
    let sandbox = CreateSandboxRequest {
        hostname: "seed".to_string(),
        dns: vec!["nameserver 10.0.0.1".to_string()],
        storages: vec![storage()],
        sandbox_id: "sandbox".to_string(),
        ..Default::default()
    };
    let file = CopyFileRequest {
        path: "/run/kata-containers/shared/containers/c1-0123456789abcdef-hosts".to_string(),
        file_size: 4,
        file_mode: 0o100_644,
        dir_mode: 0o755,
        data: b"text".to_vec(),
        ..Default::default()
    };
    [
        call(1, "grpc.Health", "Check", Vec::new()),
        call(3, agent, "CreateSandbox", sandbox.write_to_bytes().unwrap()),
        call(5, agent, "CreateContainer", create(full()).write_to_bytes().unwrap()),
        call(7, agent, "CopyFile", file.write_to_bytes().unwrap()),
        call(9, agent, "GetOOMEvent", Vec::new()),
        call(10, "grpc.Nobody", "Nothing", Vec::new()),
    ]
    .concat()
}

fn create(spec: Spec) -> CreateContainerRequest {
    CreateContainerRequest {
        container_id: "c1".to_string(),
        exec_id: "c1".to_string(),
        storages: vec![storage()],
        devices: vec![Device {
            id: "02/01".to_string(),
            type_: "blk".to_string(),
            container_path: "/dev/xda".to_string(),
            ..Default::default()
        }],
        OCI: MessageField::some(spec),
        ..Default::default()
    }
}

fn storage() -> Storage {
    Storage {
        driver: "ephemeral".to_string(),
        source: "shm".to_string(),
        fstype: "tmpfs".to_string(),
        options: texts(&["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"]),
        mount_point: "/run/kata-containers/sandbox/shm".to_string(),
        ..Default::default()
    }
}

fn plain() -> Spec {
    Spec {
        Version: "1.1.0".to_string(),
        Process: MessageField::some(Process {
            Args: texts(&["/pause"]),
            Cwd: "/".to_string(),
            ..Default::default()
        }),
        Root: MessageField::some(Root { Path: "rootfs".to_string(), ..Default::default() }),
        ..Default::default()
    }
}

fn full() -> Spec {
    let namespace = |kind: &&str| LinuxNamespace { Type: (*kind).to_string(), ..Default::default() };
    let ids = || vec![LinuxIDMapping { HostID: 100_000, Size: 65_536, ..Default::default() }];
    let hook = Hook { Path: "/bin/hook".to_string(), Args: texts(&["hook", "start"]), ..Default::default() };
    let linux = Linux {
        UIDMappings: ids(),
        GIDMappings: ids(),
        Sysctl: [("net.core.somaxconn".to_string(), "256".to_string())].into(),
        Resources: MessageField::some(LinuxResources {
            Memory: MessageField::some(LinuxMemory { Limit: 64 << 20, Swap: -1, ..Default::default() }),
            CPU: MessageField::some(LinuxCPU {
                Shares: 512,
                Quota: 50_000,
                Period: 100_000,
                Cpus: "0".to_string(),
                ..Default::default()
            }),
            Pids: MessageField::some(LinuxPids { Limit: 100, ..Default::default() }),
            ..Default::default()
        }),
        CgroupsPath: "/kubepods/besteffort/pod1/c1".to_string(),
        Namespaces: ["mnt", "net", "ipc", "uts", "user", "cgroup"].iter().map(namespace).collect(),
        Devices: vec![LinuxDevice {
            Path: "/dev/xda".to_string(),
            Type: "b".to_string(),
            Major: 8,
            Minor: 1,
            FileMode: 0o660,
            ..Default::default()
        }],
        RootfsPropagation: "rslave".to_string(),
        MaskedPaths: texts(&["/proc/kcore", "/sys/firmware"]),
        ReadonlyPaths: texts(&["/proc/sys"]),
        ..Default::default()
    };
    let process = Process {
        Terminal: true,
        User: MessageField::some(User { UID: 1, GID: 2, AdditionalGids: vec![3], ..Default::default() }),
        Args: texts(&["sh", "-c", "true"]),
        Env: texts(&["PATH=/bin", "A="]),
        Cwd: "/tmp".to_string(),
        Capabilities: MessageField::some(LinuxCapabilities {
            Bounding: texts(&["CAP_CHOWN", "KILL", "\"CAP_SYS_ADMIN\"", "CAP_NOBODY_HAS"]),
            ..Default::default()
        }),
        Rlimits: vec![POSIXRlimit {
            Type: "RLIMIT_NOFILE".to_string(),
            Hard: 1024,
            Soft: 512,
            ..Default::default()
        }],
        NoNewPrivileges: true,
        OOMScoreAdj: -100,
        ..Default::default()
    };
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| Mount {
        destination: destination.to_string(),
        type_: kind.to_string(),
        source: source.to_string(),
        options: texts(options),
        ..Default::default()
    };
    Spec {
        Process: MessageField::some(process),
        Root: MessageField::some(Root { Path: "/r".to_string(), Readonly: true, ..Default::default() }),
        Hostname: "seed".to_string(),
        Mounts: vec![
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
            mount("/data", "local", "/run/data", &["rbind", "rprivate", "rro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro"]),
        ],
        Hooks: MessageField::some(Hooks { StartContainer: vec![hook], ..Default::default() }),
        Annotations: [("io.kubernetes.cri.container-type".to_string(), "container".to_string())].into(),
        Linux: MessageField::some(linux),
        ..plain()
    }
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// What a host says on the serial port that asks for the agent's port and then says `payload`; without one, a host that
/// asks for a port nobody serves.
fn session(payload: &[u8]) -> Vec<u8> {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        tokio::spawn(talk(ours, payload.to_vec()));
        // Nothing answers: what is said without being asked is the seed.
        let mut said = Vec::new();
        let mut theirs = theirs;
        let mut buffer = [0; 4096];
        let quiet = std::time::Duration::from_millis(200);
        while let Ok(Ok(read @ 1..)) = tokio::time::timeout(quiet, theirs.read(&mut buffer)).await {
            said.extend(&buffer[..read]);
        }
        said
    })
}

async fn talk(io: DuplexStream, payload: Vec<u8>) {
    use futures::AsyncWriteExt as _;
    let mut yamux = yamux::Connection::new(io.compat(), yamux::Config::default(), yamux::Mode::Client);
    let mut stream = future::poll_fn(|cx| yamux.poll_new_outbound(cx)).await.unwrap();
    tokio::spawn(async move {
        let port = if payload.is_empty() { 4711 } else { ports::AGENT };
        let _ = stream.write_all(agent_api::connect::request(port).as_bytes()).await;
        let _ = stream.write_all(&payload).await;
        let _ = stream.flush().await;
        future::pending::<()>().await;
    });
    // Drives the connection.
    while let Some(Ok(_)) = future::poll_fn(|cx| yamux.poll_next_inbound(cx)).await {}
}
