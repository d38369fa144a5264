//! Containers for tests: a plain spec to start from, changed call by call.

use std::fmt;

use agent_api::agent::{CreateContainerRequest, StatsContainerRequest, StatsContainerResponse};
use agent_api::oci::{
    Linux, LinuxCPU, LinuxCapabilities, LinuxMemory, LinuxNamespace, LinuxPids, LinuxResources, Mount,
    Process as Spawn, Root, Spec, User,
};
use agent_api::paths;
use husk::agent::Error;
use protobuf::MessageField;

use crate::machine::ROOTFS;
use crate::{Guest, Output, Process, ProcessBuilder};

/// A container to be made.
#[must_use]
pub struct ContainerBuilder<'g> {
    guest: &'g Guest,
    request: CreateContainerRequest,
}

impl<'g> ContainerBuilder<'g> {
    pub(crate) fn new(guest: &'g Guest, id: String) -> Self {
        let spec = plain_spec(&id);
        let request =
            CreateContainerRequest { container_id: id, OCI: MessageField::some(spec), ..Default::default() };
        Self { guest, request }
    }

    /// Runs this program.
    pub fn args(self, args: &[&str]) -> Self {
        self.process(|process| process.Args = strings(args))
    }

    /// Runs these lines of shell.
    pub fn sh(self, script: &str) -> Self {
        self.args(&["/bin/sh", "-c", script])
    }

    /// On a terminal.
    pub fn terminal(self) -> Self {
        self.process(|process| process.Terminal = true)
    }

    /// As this user and group.
    pub fn user(self, uid: u32, gid: u32) -> Self {
        self.process(|process| {
            process.User = MessageField::some(User { UID: uid, GID: gid, ..Default::default() });
        })
    }

    /// As the user that the container's own files say has this name.
    pub fn username(self, name: &str) -> Self {
        self.process(|process| {
            process.User = MessageField::some(User { Username: name.into(), ..Default::default() });
        })
    }

    /// With every capability.
    pub fn privileged(self) -> Self {
        self.process(|process| {
            let all = || agent_capabilities().iter().map(ToString::to_string).collect::<Vec<_>>();
            process.Capabilities = MessageField::some(LinuxCapabilities {
                Bounding: all(),
                Effective: all(),
                Permitted: all(),
                ..Default::default()
            });
        })
    }

    /// With at most this many bytes of memory.
    pub fn memory(self, bytes: i64) -> Self {
        self.resources(|all| {
            all.Memory = MessageField::some(LinuxMemory { Limit: bytes, ..Default::default() })
        })
    }

    /// With `quota` of every `period` microseconds on a processor.
    pub fn cpu(self, quota: i64, period: u64) -> Self {
        self.resources(|all| {
            all.CPU = MessageField::some(LinuxCPU { Quota: quota, Period: period, ..Default::default() });
        })
    }

    /// With at most this many tasks.
    pub fn pids(self, limit: i64) -> Self {
        self.resources(|all| all.Pids = MessageField::some(LinuxPids { Limit: limit, ..Default::default() }))
    }

    /// With one more mount.
    pub fn mount(self, destination: &str, fstype: &str, source: &str, options: &[&str]) -> Self {
        self.spec(|spec| spec.Mounts.push(mount(destination, fstype, source, options)))
    }

    /// With the guest itself, the agent included, to be seen below `/guest`.
    pub fn sees_guest(self) -> Self {
        self.privileged().mount("/guest/proc", "bind", "/proc", &["rbind", "ro"]).mount(
            "/guest/cgroup",
            "bind",
            "/sys/fs/cgroup",
            &["rbind", "ro"],
        )
    }

    /// With anything changed about its process.
    pub fn process(self, change: impl FnOnce(&mut Spawn)) -> Self {
        self.spec(|spec| change(spec.Process.mut_or_insert_default()))
    }

    /// With anything changed about its Linux part.
    pub fn linux(self, change: impl FnOnce(&mut Linux)) -> Self {
        self.spec(|spec| change(spec.Linux.mut_or_insert_default()))
    }

    /// With anything changed about its resources.
    pub fn resources(self, change: impl FnOnce(&mut LinuxResources)) -> Self {
        self.linux(|linux| change(linux.Resources.mut_or_insert_default()))
    }

    /// With anything changed about its spec.
    pub fn spec(self, change: impl FnOnce(&mut Spec)) -> Self {
        self.request(|request| change(request.OCI.mut_or_insert_default()))
    }

    /// With anything changed about the request.
    pub fn request(mut self, change: impl FnOnce(&mut CreateContainerRequest)) -> Self {
        change(&mut self.request);
        self
    }

    /// The request, for a test that sends it itself and removes what it makes.
    pub fn into_request(self) -> CreateContainerRequest {
        self.request
    }

    /// `CreateContainer`, or why not.
    pub async fn try_create(self) -> Result<Container<'g>, Error> {
        let Self { guest, request } = self;
        guest.agent().create_container(&request).await?;
        guest.remember(&request.container_id);
        let terminal = request.OCI.Process.Terminal;
        let init = Process::new(guest.agent(), &request.container_id, "", terminal);
        Ok(Container { guest, init, id: request.container_id })
    }

    /// `CreateContainer`.
    pub async fn create(self) -> Container<'g> {
        self.try_create().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// `CreateContainer` and `StartContainer`, or why not.
    pub async fn try_start(self) -> Result<Container<'g>, Error> {
        let container = self.try_create().await?;
        container.try_start().await?;
        Ok(container)
    }

    /// `CreateContainer` and `StartContainer`.
    pub async fn start(self) -> Container<'g> {
        self.try_start().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts it and stays until it has ended, with an empty stdin.
    pub async fn run(self) -> Output {
        let container = self.start().await;
        container.init().close_stdin().await;
        let output = container.init().output().await;
        container.remove().await;
        output
    }
}

/// A container that was made.
pub struct Container<'g> {
    guest: &'g Guest,
    init: Process,
    id: String,
}

impl fmt::Debug for Container<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Container").field(&self.id).finish()
    }
}

impl Container<'_> {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its first process.
    pub fn init(&self) -> &Process {
        &self.init
    }

    /// `StartContainer`, or why not.
    pub async fn try_start(&self) -> Result<(), Error> {
        self.guest.agent().start_container(&self.id).await
    }

    /// `StartContainer`.
    pub async fn start(&self) {
        self.try_start().await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// One more process, to be started.
    pub fn exec(&self, args: &[&str]) -> ProcessBuilder {
        ProcessBuilder::new(self.guest.agent(), &self.id, args)
    }

    /// Runs lines of shell in it and returns what they print; panics if they fail.
    pub async fn sh(&self, script: &str) -> String {
        self.exec(&["/bin/sh", "-c", script]).run().await.ok()
    }

    /// `StatsContainer`.
    pub async fn stats(&self) -> StatsContainerResponse {
        let request = StatsContainerRequest { container_id: self.id.clone(), ..Default::default() };
        let agent = self.guest.agent();
        let answer =
            agent.service().stats_container(ttrpc::context::with_duration(crate::LIMIT), &request).await;
        answer.unwrap_or_else(|error| panic!("StatsContainer: {}: {error}", self.id))
    }

    /// Leaves it alone when the test ends: it went with its VM.
    pub fn abandon(self) {
        self.guest.forget(&self.id);
    }

    /// `RemoveContainer`.
    pub async fn remove(self) {
        self.guest.forget(&self.id);
        self.guest.agent().remove_container(&self.id).await.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// What every runtime sends, and no more: tests add what they are about.
fn plain_spec(id: &str) -> Spec {
    let namespace = |kind: &&str| LinuxNamespace { Type: kind.to_string(), ..Default::default() };
    Spec {
        Version: "1.1.0".into(),
        Process: MessageField::some(Spawn {
            Args: strings(&["/bin/sh"]),
            Env: strings(&["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]),
            Cwd: "/".into(),
            ..Default::default()
        }),
        Root: MessageField::some(Root {
            Path: format!("{}/{ROOTFS}", paths::SHARE_ROOT),
            ..Default::default()
        }),
        Mounts: vec![
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
            mount(
                "/dev/pts",
                "devpts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            ),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
            mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
        ],
        Linux: MessageField::some(Linux {
            CgroupsPath: format!("/e2e/{id}"),
            Namespaces: ["ipc", "uts", "mount", "cgroup"].iter().map(namespace).collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn mount(destination: &str, fstype: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        type_: fstype.into(),
        source: source.into(),
        options: strings(options),
        ..Default::default()
    }
}

pub(crate) fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// Every capability of Linux 6.12.
fn agent_capabilities() -> [&'static str; 41] {
    [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_DAC_READ_SEARCH",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETPCAP",
        "CAP_LINUX_IMMUTABLE",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_BROADCAST",
        "CAP_NET_ADMIN",
        "CAP_NET_RAW",
        "CAP_IPC_LOCK",
        "CAP_IPC_OWNER",
        "CAP_SYS_MODULE",
        "CAP_SYS_RAWIO",
        "CAP_SYS_CHROOT",
        "CAP_SYS_PTRACE",
        "CAP_SYS_PACCT",
        "CAP_SYS_ADMIN",
        "CAP_SYS_BOOT",
        "CAP_SYS_NICE",
        "CAP_SYS_RESOURCE",
        "CAP_SYS_TIME",
        "CAP_SYS_TTY_CONFIG",
        "CAP_MKNOD",
        "CAP_LEASE",
        "CAP_AUDIT_WRITE",
        "CAP_AUDIT_CONTROL",
        "CAP_SETFCAP",
        "CAP_MAC_OVERRIDE",
        "CAP_MAC_ADMIN",
        "CAP_SYSLOG",
        "CAP_WAKE_ALARM",
        "CAP_BLOCK_SUSPEND",
        "CAP_AUDIT_READ",
        "CAP_PERFMON",
        "CAP_BPF",
        "CAP_CHECKPOINT_RESTORE",
    ]
}
