//! Containers as the shims send them, after what they drop, empty and rewrite.

use std::path::Path;

use agent_api::agent::{CreateContainerRequest, Storage};
use agent_api::oci::{
    Hook, Hooks, Linux, LinuxCPU, LinuxCapabilities, LinuxMemory, LinuxNamespace, LinuxResources, Mount,
    POSIXRlimit, Process, Root, Spec, User,
};
use agent_api::paths;
use protobuf::MessageField;

/// What one shim spells differently from the other.
pub(super) struct Dialect {
    /// Names of the namespaces it leaves in, all to be made anew.
    pub(super) namespaces: &'static [&'static str],
    /// How it writes a capability.
    pub(super) capability: fn(&str) -> String,
    /// What it calls a container's first process when it creates the container.
    pub(super) exec_id: fn(&str) -> String,
    /// Where it keeps root file systems and files below the share.
    pub(super) below: &'static str,
    /// Annotations of its own.
    pub(super) annotations: fn(&str, &str) -> Vec<(String, String)>,
    pub(super) keeps_start_hook: bool,
}

/// A container of a pod: the pod's own if `kind` is `sandbox`.
pub(super) fn create(dialect: &Dialect, id: &str, kind: &str, args: &[&str]) -> CreateContainerRequest {
    let namespace = |kind: &&str| LinuxNamespace { Type: (*kind).into(), ..Default::default() };
    let share = Path::new(paths::SHARE_ROOT).join(dialect.below);
    let file = |name: &str| share.join(format!("{id}-0123456789abcdef-{name}")).display().to_string();
    let capabilities = || ["CHOWN", "KILL", "NET_RAW", "NOBODY_KNOWS"].map(dialect.capability).to_vec();
    let cri = |key: &str, value: &str| (format!("io.kubernetes.cri.{key}"), value.to_string());
    let mut annotations = vec![cri("container-type", kind), cri("sandbox-id", "pod")];
    annotations.extend((dialect.annotations)(id, kind));
    let mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        mount("/dev/shm", "bind", "/run/kata-containers/sandbox/shm", &["rbind"]),
        mount("/etc/hosts", "bind", &file("hosts"), &["rbind", "rprivate", "rw"]),
        // An emptyDir: typed by what the shim knows, bound by its options.
        mount("/cache", "local", "/run/kata-containers/sandbox/ephemeral/cache", &["rbind", "rprivate"]),
    ];
    let process = Process {
        User: MessageField::some(User { AdditionalGids: vec![10], ..Default::default() }),
        Args: texts(args),
        Env: texts(&["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=pod", "EMPTY="]),
        Cwd: "/".into(),
        Capabilities: MessageField::some(LinuxCapabilities {
            Bounding: capabilities(),
            Effective: capabilities(),
            Permitted: capabilities(),
            ..Default::default()
        }),
        Rlimits: vec![POSIXRlimit {
            Type: "RLIMIT_NOFILE".into(),
            Hard: 1024,
            Soft: 1024,
            ..Default::default()
        }],
        NoNewPrivileges: true,
        OOMScoreAdj: if kind == "sandbox" { -998 } else { 1000 },
        ..Default::default()
    };
    // What is left when the shim has cleared devices, pids, blockIO, network and cpusets.
    let resources = LinuxResources {
        Memory: MessageField::some(LinuxMemory { Limit: 64 << 20, ..Default::default() }),
        CPU: MessageField::some(LinuxCPU {
            Shares: 102,
            Quota: 50_000,
            Period: 100_000,
            ..Default::default()
        }),
        ..Default::default()
    };
    let linux = Linux {
        Resources: MessageField::some(resources),
        CgroupsPath: format!("/kubepods/burstable/pod0123/{id}"),
        Namespaces: dialect.namespaces.iter().map(namespace).collect(),
        MaskedPaths: texts(&["/proc/acpi", "/proc/kcore", "/proc/keys", "/sys/firmware"]),
        ReadonlyPaths: texts(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
        ..Default::default()
    };
    let start_hook = || {
        let hook =
            Hook { Path: "/bin/touch".into(), Args: texts(&["touch", "/tmp/hook"]), ..Default::default() };
        MessageField::some(Hooks { StartContainer: vec![hook], ..Default::default() })
    };
    let spec = Spec {
        Version: "1.1.0".into(),
        Process: MessageField::some(process),
        Root: MessageField::some(Root { Path: rootfs(dialect, id), ..Default::default() }),
        Hostname: "pod".into(),
        Mounts: mounts,
        Hooks: if dialect.keeps_start_hook { start_hook() } else { MessageField::none() },
        Annotations: annotations.into_iter().collect(),
        Linux: MessageField::some(linux),
        ..Default::default()
    };
    CreateContainerRequest {
        container_id: id.into(),
        exec_id: (dialect.exec_id)(id),
        storages: vec![cache()],
        OCI: MessageField::some(spec),
        ..Default::default()
    }
}

/// The emptyDir, which every container asks for and the first one gets mounted.
fn cache() -> Storage {
    Storage {
        driver: "ephemeral".into(),
        source: "tmpfs".into(),
        fstype: "tmpfs".into(),
        options: texts(&["fsgid=10"]),
        mount_point: "/run/kata-containers/sandbox/ephemeral/cache".into(),
        ..Default::default()
    }
}

/// The storages of a sandbox, the share aside.
pub(super) fn shm() -> Storage {
    Storage {
        driver: "ephemeral".into(),
        source: "shm".into(),
        fstype: "tmpfs".into(),
        options: texts(&["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"]),
        mount_point: "/run/kata-containers/sandbox/shm".into(),
        ..Default::default()
    }
}

fn rootfs(dialect: &Dialect, id: &str) -> String {
    let root = Path::new(paths::SHARE_ROOT).join(dialect.below).join(id).join("rootfs");
    root.display().to_string()
}

/// Puts a container's root file system and files where this shim's host would.
pub(super) fn share(dialect: &Dialect, host: &Path, id: &str) {
    let below = host.join(dialect.below);
    std::fs::create_dir_all(below.join(id)).unwrap();
    let copied = std::process::Command::new("cp")
        .args(["-al".as_ref(), host.join("rootfs").as_os_str(), below.join(id).join("rootfs").as_os_str()])
        .status();
    assert!(copied.unwrap().success());
    std::fs::write(
        below.join(format!("{id}-0123456789abcdef-hosts")),
        "127.0.0.1 localhost\n10.88.0.2 pod\n",
    )
    .unwrap();
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        type_: kind.into(),
        source: source.into(),
        options: texts(options),
        ..Default::default()
    }
}

pub(super) fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}
