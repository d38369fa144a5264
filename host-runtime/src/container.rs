//! The OCI spec of a container: what the image and the flags say, in the frame every engine gives its containers.

use agent_api::oci::{
    Linux, LinuxCapabilities, LinuxNamespace, Mount, POSIXRlimit, Process, Root, Spec, User,
};
use agent_api::paths;
use protobuf::MessageField;

use crate::name::Name;

/// What runs, and as whom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `KEY=value` words.
    pub env: Vec<String>,
    /// Working directory; empty means `/`.
    pub cwd: String,
    /// `name`, `uid`, `name:group` or `uid:gid`, looked up in the container; empty means root.
    pub user: String,
    /// Whether it gets a terminal.
    pub terminal: bool,
}

/// Where the container's root appears in the guest.
pub fn rootfs(name: &Name) -> String {
    format!("{}/{name}/rootfs", paths::SHARE_ROOT)
}

/// The whole spec of a container whose root is at [`rootfs`].
pub fn spec(name: &Name, workload: &Workload) -> Spec {
    let namespaces = ["pid", "mount", "ipc", "uts", "cgroup"];
    Spec {
        Version: "1.2.0".into(),
        Process: MessageField::some(process(workload)),
        Root: MessageField::some(Root { Path: rootfs(name), ..Default::default() }),
        Hostname: name.to_string(),
        Mounts: MOUNTS.iter().map(mount).collect(),
        Linux: MessageField::some(Linux {
            CgroupsPath: format!("/husk/{name}"),
            Namespaces: namespaces
                .iter()
                .map(|kind| LinuxNamespace { Type: kind.to_string(), ..Default::default() })
                .collect(),
            MaskedPaths: strings(&MASKED),
            ReadonlyPaths: strings(&READ_ONLY),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The process part of a spec, for the first process of a container and for later ones.
pub fn process(workload: &Workload) -> Process {
    let capabilities = || strings(&CAPABILITIES);
    Process {
        Terminal: workload.terminal,
        // Names are looked up by the jail, in the container's own files: the host reads none of them.
        User: MessageField::some(User { Username: workload.user.clone(), ..Default::default() }),
        Args: workload.args.clone(),
        Env: workload.env.clone(),
        Cwd: if workload.cwd.is_empty() { "/".into() } else { workload.cwd.clone() },
        Capabilities: MessageField::some(LinuxCapabilities {
            Bounding: capabilities(),
            Effective: capabilities(),
            Permitted: capabilities(),
            ..Default::default()
        }),
        Rlimits: vec![POSIXRlimit {
            Type: "RLIMIT_NOFILE".into(),
            Soft: 1024,
            Hard: 524_288,
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// `base` with `more` on top: a later word replaces an earlier one of the same key.
pub fn merge_env(base: &[String], more: &[String]) -> Vec<String> {
    let mut merged: Vec<String> = Vec::new();
    for word in base.iter().chain(more) {
        let key = word.split('=').next().unwrap_or_default();
        match merged.iter_mut().find(|other| other.split('=').next() == Some(key)) {
            Some(other) => other.clone_from(word),
            None => merged.push(word.clone()),
        }
    }
    merged
}

/// What every environment begins with.
pub fn base_env(name: &Name, terminal: bool) -> Vec<String> {
    let mut env = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_string(),
        format!("HOSTNAME={name}"),
    ];
    if terminal {
        env.push("TERM=xterm".into());
    }
    env
}

type Row = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// Destination, type, source, options.
const MOUNTS: [Row; 7] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
];

/// What a container may do by default: the set docker and podman settled on.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn mount((destination, kind, source, options): &Row) -> Mount {
    Mount {
        destination: destination.to_string(),
        type_: kind.to_string(),
        source: source.to_string(),
        options: strings(options),
        ..Default::default()
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        strings(words)
    }

    #[test]
    fn later_words_replace_earlier_ones_in_place() {
        let merged = merge_env(&words(&["PATH=/bin", "A=1", "AB=2"]), &words(&["A=x=y", "C=", "PATH=/x"]));
        assert_eq!(merged, words(&["PATH=/x", "A=x=y", "AB=2", "C="]));
    }

    #[test]
    fn a_spec_is_a_container_of_its_own() {
        let name: Name = "web".parse().unwrap();
        let workload = Workload { args: words(&["sh"]), user: "nobody".into(), ..Default::default() };
        let spec = spec(&name, &workload);
        assert_eq!(spec.Root.Path, "/run/kata-containers/shared/containers/web/rootfs");
        assert_eq!(spec.Linux.CgroupsPath, "/husk/web");
        assert_eq!(spec.Process.Cwd, "/");
        assert_eq!(spec.Process.User.Username, "nobody");
        let kinds: Vec<&str> = spec.Linux.Namespaces.iter().map(|n| n.Type.as_str()).collect();
        assert_eq!(kinds, ["pid", "mount", "ipc", "uts", "cgroup"]);
        assert!(!spec.Process.Capabilities.Bounding.iter().any(|c| c == "CAP_SYS_ADMIN"));
        assert!(
            spec.Mounts.iter().any(|m| m.destination == "/sys/fs/cgroup" && m.options.contains(&"ro".into()))
        );
    }
}
