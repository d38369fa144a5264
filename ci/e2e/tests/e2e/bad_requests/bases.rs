//! What each method is given before it is spoilt: a request that makes sense.

use std::time::{SystemTime, UNIX_EPOCH};

use agent_api::agent::*;
use agent_api::oci::*;
use agent_api::types::{ARPNeighbor, IPAddress, Interface, Route};
use protobuf::{Message, MessageField};

use super::table::Table;

/// A container that is there, and one that is not yet.
pub(super) const VICTIM: &str = "bad-victim";
pub(super) const FRESH: &str = "bad-fresh";
/// One whose limits may be anything.
pub(super) const UPDATED: &str = "bad-updated";
/// A further process of the first.
pub(super) const EXEC: &str = "bad-exec";

/// A method and its request.
pub(super) struct Base {
    pub(super) method: &'static str,
    pub(super) bytes: Vec<u8>,
    /// Whether it may wait for something that never comes.
    pub(super) waits: bool,
}

impl Base {
    fn of(method: &'static str, request: &impl Message) -> Self {
        let waits = ["WaitProcess", "ReadStdout", "ReadStderr", "WriteStdin", "GetOOMEvent", "OnlineCPUMem"]
            .contains(&method);
        Self { method, bytes: request.write_to_bytes().expect("it can be written"), waits }
    }

    /// The request once more, or what puts right what its spoilt forms did.
    pub(super) fn last(&self) -> Vec<u8> {
        match self.method {
            "SetGuestDateTime" => date_now().write_to_bytes().expect("it can be written"),
            _ => self.bytes.clone(),
        }
    }
}

/// `CreateSandbox`.
pub(super) fn sandbox() -> Base {
    let request = CreateSandboxRequest {
        hostname: "bad".into(),
        dns: vec!["nameserver 10.0.0.1".into()],
        storages: vec![tmpfs("sandbox")],
        sandbox_id: "sandbox".into(),
        guest_hook_path: "/no/such/hooks".into(),
        kernel_modules: vec![KernelModule {
            name: "loop".into(),
            parameters: texts(&["a=b"]),
            ..Default::default()
        }],
        ..Default::default()
    };
    Base::of("CreateSandbox", &request)
}

/// All other methods but `DestroySandbox`, which has no field and ends the guest. A method that is not among them would
/// be one that nobody spoils.
pub(super) fn with_containers() -> Vec<Base> {
    let id = || VICTIM.to_string();
    let none = String::new;
    let mut bases = vec![
        Base::of("CreateContainer", &create()),
        Base::of("StartContainer", &StartContainerRequest { container_id: id(), ..Default::default() }),
        Base::of(
            "RemoveContainer",
            &RemoveContainerRequest { container_id: "bad-nobody".into(), timeout: 1, ..Default::default() },
        ),
        Base::of("ExecProcess", &exec()),
        Base::of(
            "SignalProcess",
            &SignalProcessRequest { container_id: id(), exec_id: none(), signal: 0, ..Default::default() },
        ),
        Base::of(
            "WaitProcess",
            &WaitProcessRequest { container_id: id(), exec_id: id(), ..Default::default() },
        ),
        Base::of(
            "UpdateContainer",
            &UpdateContainerRequest {
                container_id: UPDATED.into(),
                resources: MessageField::some(resources()),
                ..Default::default()
            },
        ),
        Base::of(
            "UpdateEphemeralMounts",
            &UpdateEphemeralMountsRequest { storages: vec![tmpfs("update")], ..Default::default() },
        ),
        Base::of("StatsContainer", &StatsContainerRequest { container_id: id(), ..Default::default() }),
        Base::of(
            "PauseContainer",
            &PauseContainerRequest { container_id: "bad-nobody".into(), ..Default::default() },
        ),
        Base::of("ResumeContainer", &ResumeContainerRequest { container_id: id(), ..Default::default() }),
        Base::of("RemoveStaleVirtiofsShareMounts", &RemoveStaleVirtiofsShareMountsRequest::new()),
        Base::of(
            "GetDiagnosticData",
            &GetDiagnosticDataRequest {
                log_type: "termination_log".into(),
                container_id: id(),
                ..Default::default()
            },
        ),
        Base::of(
            "WriteStdin",
            &WriteStreamRequest {
                container_id: id(),
                exec_id: none(),
                data: b"x".to_vec(),
                ..Default::default()
            },
        ),
        Base::of(
            "ReadStdout",
            &ReadStreamRequest { container_id: id(), exec_id: none(), len: 10, ..Default::default() },
        ),
        Base::of(
            "ReadStderr",
            &ReadStreamRequest { container_id: id(), exec_id: none(), len: 10, ..Default::default() },
        ),
        Base::of(
            "CloseStdin",
            &CloseStdinRequest { container_id: id(), exec_id: none(), ..Default::default() },
        ),
        Base::of(
            "TtyWinResize",
            &TtyWinResizeRequest {
                container_id: id(),
                exec_id: none(),
                row: 25,
                column: 80,
                ..Default::default()
            },
        ),
        Base::of("ListInterfaces", &ListInterfacesRequest::new()),
        Base::of("ListRoutes", &ListRoutesRequest::new()),
        Base::of("GetIPTables", &GetIPTablesRequest::new()),
        Base::of(
            "SetIPTables",
            &SetIPTablesRequest { data: b"*filter\nCOMMIT\n".to_vec(), ..Default::default() },
        ),
        Base::of("GetMetrics", &GetMetricsRequest::new()),
        Base::of("MemAgentMemcgSet", &MemAgentMemcgConfig { disabled: Some(true), ..Default::default() }),
        Base::of("MemAgentCompactSet", &MemAgentCompactConfig { disabled: Some(true), ..Default::default() }),
        Base::of("OnlineCPUMem", &OnlineCPUMemRequest { nb_cpus: 1, ..Default::default() }),
        Base::of("ReseedRandomDev", &ReseedRandomDevRequest { data: vec![7; 512], ..Default::default() }),
        Base::of(
            "GetGuestDetails",
            &GuestDetailsRequest { mem_block_size: true, mem_hotplug_probe: true, ..Default::default() },
        ),
        Base::of(
            "MemHotplugByProbe",
            &MemHotplugByProbeRequest { memHotplugProbeAddr: vec![1 << 40], ..Default::default() },
        ),
        Base::of("SetGuestDateTime", &date_now()),
        Base::of("CopyFile", &copy()),
        Base::of("GetOOMEvent", &GetOOMEventRequest::new()),
        Base::of("AddSwap", &AddSwapRequest { PCIPath: vec![0x1f, 0x1f], ..Default::default() }),
        Base::of("AddSwapPath", &AddSwapPathRequest { path: "/no/such/swap".into(), ..Default::default() }),
        Base::of(
            "GetVolumeStats",
            &VolumeStatsRequest { volume_guest_path: "/run".into(), ..Default::default() },
        ),
        Base::of(
            "ResizeVolume",
            &ResizeVolumeRequest { volume_guest_path: "/run".into(), size: 1 << 20, ..Default::default() },
        ),
        Base::of(
            "SetPolicy",
            &SetPolicyRequest { policy: "package agent_policy".into(), ..Default::default() },
        ),
        // Refused: there are containers.
        sandbox(),
    ];
    bases.extend(network());
    let table = Table::read();
    let mut here: Vec<_> = bases.iter().map(|base| base.method).chain(["DestroySandbox"]).collect();
    let mut all = table.methods();
    here.sort_unstable();
    all.sort_unstable();
    assert_eq!(here, all);
    bases
}

fn network() -> Vec<Base> {
    let address =
        |text: &str, mask: &str| IPAddress { address: text.into(), mask: mask.into(), ..Default::default() };
    let interface = Interface {
        device: "eth9".into(),
        name: "eth9".into(),
        IPAddresses: vec![address("10.9.0.2", "24")],
        mtu: 1400,
        hwAddr: "02:00:00:00:00:09".into(),
        ..Default::default()
    };
    let route = Route {
        dest: "10.8.0.0/16".into(),
        gateway: "10.9.0.1".into(),
        device: "eth9".into(),
        ..Default::default()
    };
    let neighbour = ARPNeighbor {
        toIPAddress: MessageField::some(address("10.9.0.3", "24")),
        device: "eth9".into(),
        lladdr: "02:00:00:00:00:10".into(),
        ..Default::default()
    };
    let routes = Routes { Routes: vec![route], ..Default::default() };
    let neighbours = ARPNeighbors { ARPNeighbors: vec![neighbour], ..Default::default() };
    vec![
        Base::of(
            "UpdateInterface",
            &UpdateInterfaceRequest { interface: MessageField::some(interface), ..Default::default() },
        ),
        Base::of(
            "UpdateRoutes",
            &UpdateRoutesRequest { routes: MessageField::some(routes), ..Default::default() },
        ),
        Base::of(
            "AddARPNeighbors",
            &AddARPNeighborsRequest { neighbors: MessageField::some(neighbours), ..Default::default() },
        ),
    ]
}

fn date_now() -> SetGuestDateTimeRequest {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    SetGuestDateTimeRequest { Sec: now.as_secs().cast_signed(), Usec: 0, ..Default::default() }
}

fn copy() -> CopyFileRequest {
    CopyFileRequest {
        path: "/run/kata-containers/shared/containers/bad-copied".into(),
        file_size: 4,
        file_mode: 0o100_644,
        dir_mode: 0o755,
        data: b"text".to_vec(),
        ..Default::default()
    }
}

fn tmpfs(name: &str) -> Storage {
    Storage {
        driver: "ephemeral".into(),
        driver_options: texts(&["a=b"]),
        source: "tmpfs".into(),
        fstype: "tmpfs".into(),
        options: texts(&["nodev"]),
        mount_point: format!("/run/kata-containers/sandbox/ephemeral/bad-{name}"),
        fs_group: MessageField::some(FSGroup { group_id: 5, ..Default::default() }),
        ..Default::default()
    }
}

fn create() -> CreateContainerRequest {
    CreateContainerRequest {
        container_id: FRESH.into(),
        exec_id: FRESH.into(),
        storages: vec![tmpfs("container")],
        OCI: MessageField::some(spec()),
        ..Default::default()
    }
}

/// One that uses as many fields as can be had without anything else in place.
fn spec() -> Spec {
    let mount = |destination: &str, kind: &str, options: &[&str]| Mount {
        destination: destination.into(),
        source: kind.into(),
        type_: kind.into(),
        options: texts(options),
        ..Default::default()
    };
    let namespace = |kind: &&str| LinuxNamespace { Type: (*kind).into(), ..Default::default() };
    Spec {
        Version: "1.1.0".into(),
        Process: MessageField::some(process()),
        Root: MessageField::some(Root {
            Path: "/run/kata-containers/shared/containers/rootfs".into(),
            ..Default::default()
        }),
        Hostname: "bad".into(),
        Mounts: vec![mount("/proc", "proc", &["nosuid"]), mount("/dev", "tmpfs", &["mode=755", "size=1m"])],
        Annotations: [("a".to_string(), "b".to_string())].into(),
        Linux: MessageField::some(Linux {
            Sysctl: [("net.ipv4.ip_forward".to_string(), "0".to_string())].into(),
            Resources: MessageField::some(resources()),
            CgroupsPath: "/bad/fresh".into(),
            Namespaces: ["mount", "ipc", "uts"].iter().map(namespace).collect(),
            Devices: vec![LinuxDevice {
                Path: "/dev/bad".into(),
                Type: "c".into(),
                Major: 1,
                Minor: 3,
                FileMode: 0o666,
                ..Default::default()
            }],
            RootfsPropagation: "rprivate".into(),
            MaskedPaths: texts(&["/proc/kcore"]),
            ReadonlyPaths: texts(&["/proc/sys"]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn process() -> Process {
    Process {
        User: MessageField::some(User { AdditionalGids: vec![5], ..Default::default() }),
        Args: texts(&["true"]),
        Env: texts(&["PATH=/bin"]),
        Cwd: "/".into(),
        Capabilities: MessageField::some(LinuxCapabilities {
            Bounding: texts(&["CAP_CHOWN"]),
            Effective: texts(&["CAP_CHOWN"]),
            Permitted: texts(&["CAP_CHOWN"]),
            ..Default::default()
        }),
        Rlimits: vec![POSIXRlimit {
            Type: "RLIMIT_NOFILE".into(),
            Hard: 100,
            Soft: 50,
            ..Default::default()
        }],
        OOMScoreAdj: 5,
        ..Default::default()
    }
}

fn resources() -> LinuxResources {
    LinuxResources {
        Memory: MessageField::some(LinuxMemory { Limit: 64 << 20, ..Default::default() }),
        CPU: MessageField::some(LinuxCPU {
            Shares: 512,
            Quota: 50_000,
            Period: 100_000,
            ..Default::default()
        }),
        Pids: MessageField::some(LinuxPids { Limit: 100, ..Default::default() }),
        ..Default::default()
    }
}

fn exec() -> ExecProcessRequest {
    ExecProcessRequest {
        container_id: VICTIM.into(),
        exec_id: EXEC.into(),
        process: MessageField::some(process()),
        ..Default::default()
    }
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}
