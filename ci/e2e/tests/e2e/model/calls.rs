//! The calls a sequence is made of, how they are drawn, and how they are made.

use std::time::{Duration, Instant};

use agent_api::agent::*;
use agent_api::oci::{LinuxMemory, LinuxResources, Process};
use e2e::Guest;
use proptest::prelude::*;
use protobuf::MessageField;
use ttrpc::context::{self, Context};

/// Containers of a sequence; one more name is nobody's.
pub(super) const CONTAINERS: usize = 3;
/// Further processes of each container.
pub(super) const PROCESSES: usize = 2;

/// For calls that answer, and for those that wait until the caller gives up.
pub(super) const LONG: Duration = Duration::from_secs(30);
pub(super) const SHORT: Duration = Duration::from_millis(60);

/// A call to the agent.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Create { container: usize, program: Program, storage: Option<usize> },
    CreateBadly { container: usize, fault: Fault },
    Start(usize),
    Exec { container: usize, process: usize, program: Program },
    Signal { container: usize, target: Target, signal: u32 },
    Wait { container: usize, target: Target },
    Read { container: usize, target: Target },
    CloseStdin { container: usize, target: Target },
    Pause(usize),
    Resume(usize),
    Update { container: usize, resources: bool },
    Stats(usize),
    Remove { container: usize, timeout: u32 },
    CopyFile(Copied),
    CreateSandbox,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// Nothing, for long.
    Sleep,
    /// Ends at once, with [`FAILURE`].
    Fail,
    /// There is no such program.
    Missing,
}

/// The status of [`Program::Fail`].
pub(super) const FAILURE: i32 = 7;

/// Which process of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The first, by the empty id.
    Empty,
    /// The first, by the container's id.
    Container,
    /// A further one.
    Process(usize),
}

/// What is wrong with a container.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Id,
    NoSpec,
    NoRoot,
    Driver,
    MountPoint,
    MountSource,
    FileSystem,
    /// After a storage that is mounted, one that cannot be.
    SecondStorage,
}

/// Where a file is copied to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Copied {
    Inside,
    Outside,
    Up,
}

/// Any call, the more usual ones more often.
pub(super) fn call() -> impl Strategy<Value = Call> {
    let one = || 0..=CONTAINERS;
    let program =
        || prop_oneof![4 => Just(Program::Sleep), 2 => Just(Program::Fail), 1 => Just(Program::Missing)];
    let process = || 0..PROCESSES;
    let target = || {
        prop_oneof![
            2 => Just(Target::Empty),
            1 => Just(Target::Container),
            2 => process().prop_map(Target::Process),
        ]
    };
    let fault = prop_oneof![
        Just(Fault::Id),
        Just(Fault::NoSpec),
        Just(Fault::NoRoot),
        Just(Fault::Driver),
        Just(Fault::MountPoint),
        Just(Fault::MountSource),
        Just(Fault::FileSystem),
        Just(Fault::SecondStorage),
    ];
    let copied = prop_oneof![Just(Copied::Inside), Just(Copied::Outside), Just(Copied::Up)];
    prop_oneof![
        6 => (0..CONTAINERS, program(), proptest::option::of(0..2_usize))
            .prop_map(|(container, program, storage)| Call::Create { container, program, storage }),
        2 => (0..CONTAINERS, fault).prop_map(|(container, fault)| Call::CreateBadly { container, fault }),
        6 => one().prop_map(Call::Start),
        6 => (one(), process(), program())
            .prop_map(|(container, process, program)| Call::Exec { container, process, program }),
        5 => (one(), target(), prop_oneof![Just(9), Just(15), Just(0)])
            .prop_map(|(container, target, signal)| Call::Signal { container, target, signal }),
        5 => (one(), target()).prop_map(|(container, target)| Call::Wait { container, target }),
        2 => (one(), target()).prop_map(|(container, target)| Call::Read { container, target }),
        1 => (one(), target()).prop_map(|(container, target)| Call::CloseStdin { container, target }),
        2 => one().prop_map(Call::Pause),
        2 => one().prop_map(Call::Resume),
        2 => (one(), any::<bool>()).prop_map(|(container, resources)| Call::Update { container, resources }),
        1 => one().prop_map(Call::Stats),
        3 => (one(), 0..2_u32).prop_map(|(container, timeout)| Call::Remove { container, timeout: timeout * 30 }),
        1 => copied.prop_map(Call::CopyFile),
        1 => Just(Call::CreateSandbox),
    ]
}

/// The id of a container.
fn id(container: usize) -> String {
    format!("model-{container}")
}

impl Target {
    fn id(self, container: usize) -> String {
        match self {
            Target::Empty => String::new(),
            Target::Container => id(container),
            Target::Process(process) => format!("process-{process}"),
        }
    }
}

impl Program {
    fn args(self) -> Vec<String> {
        let words: &[&str] = match self {
            Program::Sleep => &["sleep", "100000"],
            Program::Fail => &["sh", "-c", "exit 7"],
            Program::Missing => &["no-such-program"],
        };
        words.iter().map(ToString::to_string).collect()
    }
}

impl Call {
    /// Makes it; a status is what it answers with, if any.
    pub(super) async fn make(&self, guest: &Guest, limit: Duration) -> ttrpc::Result<Option<i32>> {
        let (client, ctx) = (guest.agent(), context::with_duration(limit));
        let agent = client.service();
        match self.clone() {
            Call::Create { container, program, storage } => {
                let request = create(guest, container, program, storage);
                agent.create_container(ctx, &request).await.map(|_| None)
            }
            Call::CreateBadly { container, fault } => {
                let mut request = create(guest, container, Program::Sleep, None);
                spoil(&mut request, fault);
                agent.create_container(ctx, &request).await.map(|_| None)
            }
            Call::Start(container) => {
                let request = StartContainerRequest { container_id: id(container), ..Default::default() };
                agent.start_container(ctx, &request).await.map(|_| None)
            }
            Call::Exec { container, process, program } => {
                let request = ExecProcessRequest {
                    container_id: id(container),
                    exec_id: Target::Process(process).id(container),
                    process: MessageField::some(Process {
                        Args: program.args(),
                        Env: vec!["PATH=/bin:/usr/bin".into()],
                        Cwd: "/".into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                };
                agent.exec_process(ctx, &request).await.map(|_| None)
            }
            Call::Signal { container, target, signal } => {
                let request = SignalProcessRequest {
                    container_id: id(container),
                    exec_id: target.id(container),
                    signal,
                    ..Default::default()
                };
                agent.signal_process(ctx, &request).await.map(|_| None)
            }
            Call::Wait { container, target } => {
                let request = WaitProcessRequest {
                    container_id: id(container),
                    exec_id: target.id(container),
                    ..Default::default()
                };
                agent.wait_process(ctx, &request).await.map(|answer| Some(answer.status))
            }
            Call::Read { container, target } => {
                let request = ReadStreamRequest {
                    container_id: id(container),
                    exec_id: target.id(container),
                    len: 100,
                    ..Default::default()
                };
                agent.read_stdout(ctx, &request).await.map(|_| None)
            }
            Call::CloseStdin { container, target } => {
                let request = CloseStdinRequest {
                    container_id: id(container),
                    exec_id: target.id(container),
                    ..Default::default()
                };
                agent.close_stdin(ctx, &request).await.map(|_| None)
            }
            Call::Pause(container) => {
                let request = PauseContainerRequest { container_id: id(container), ..Default::default() };
                agent.pause_container(ctx, &request).await.map(|_| None)
            }
            Call::Resume(container) => {
                let request = ResumeContainerRequest { container_id: id(container), ..Default::default() };
                agent.resume_container(ctx, &request).await.map(|_| None)
            }
            Call::Update { container, resources } => {
                let memory = LinuxMemory { Limit: 64 << 20, ..Default::default() };
                let resources = resources
                    .then(|| LinuxResources { Memory: MessageField::some(memory), ..Default::default() });
                let request = UpdateContainerRequest {
                    container_id: id(container),
                    resources: MessageField::from_option(resources),
                    ..Default::default()
                };
                agent.update_container(ctx, &request).await.map(|_| None)
            }
            Call::Stats(container) => stats(guest, container, ctx).await.map(|_| None),
            Call::Remove { container, timeout } => {
                let request =
                    RemoveContainerRequest { container_id: id(container), timeout, ..Default::default() };
                agent.remove_container(ctx, &request).await.map(|_| None)
            }
            Call::CopyFile(copied) => agent.copy_file(ctx, &copy(copied)).await.map(|_| None),
            Call::CreateSandbox => {
                let request = CreateSandboxRequest { sandbox_id: "other".into(), ..Default::default() };
                agent.create_sandbox(ctx, &request).await.map(|_| None)
            }
        }
    }
}

fn create(
    guest: &Guest,
    container: usize,
    program: Program,
    storage: Option<usize>,
) -> CreateContainerRequest {
    let storages = storage.iter().map(|number| tmpfs(&format!("v{number}"))).collect();
    let mut request = guest.container("model").into_request();
    request.container_id = id(container);
    request.exec_id = id(container);
    request.storages = storages;
    let spec = request.OCI.mut_or_insert_default();
    spec.Process.mut_or_insert_default().Args = program.args();
    spec.Linux.mut_or_insert_default().CgroupsPath = format!("/model/{container}");
    request
}

fn tmpfs(volume: &str) -> Storage {
    Storage {
        driver: "ephemeral".into(),
        source: "tmpfs".into(),
        fstype: "tmpfs".into(),
        mount_point: format!("/run/kata-containers/sandbox/ephemeral/{volume}"),
        ..Default::default()
    }
}

fn spoil(request: &mut CreateContainerRequest, fault: Fault) {
    let spec = request.OCI.mut_or_insert_default();
    let mount = spec.Mounts.first_mut().expect("a plain spec has mounts");
    match fault {
        Fault::Id => request.container_id = "../model".into(),
        Fault::NoSpec => request.OCI = MessageField::none(),
        Fault::NoRoot => spec.Root = MessageField::none(),
        Fault::Driver => request.storages = vec![Storage { driver: "floppy".into(), ..tmpfs("bad") }],
        Fault::MountPoint => request.storages = vec![tmpfs("../../../../etc/bad")],
        Fault::MountSource => {
            (mount.type_, mount.source) = ("bind".into(), "/no/such/source".into());
            mount.options = vec!["rbind".into()];
        }
        Fault::FileSystem => mount.type_ = "nosuchfs".into(),
        Fault::SecondStorage => {
            let options = vec!["no_such_option=1".into()];
            request.storages = vec![tmpfs("first"), Storage { options, ..tmpfs("second") }];
            request.storages[1].fstype = "nosuchfs".into();
        }
    }
}

fn copy(copied: Copied) -> CopyFileRequest {
    let path = match copied {
        Copied::Inside => "/run/kata-containers/shared/containers/model-copied",
        Copied::Outside => "/run/kata-containers/sandbox/model-copied",
        Copied::Up => "/run/kata-containers/shared/containers/../../sandbox/model-copied",
    };
    CopyFileRequest {
        path: path.into(),
        file_size: 4,
        file_mode: 0o100_644,
        dir_mode: 0o755,
        data: b"text".to_vec(),
        ..Default::default()
    }
}

async fn stats(guest: &Guest, container: usize, ctx: Context) -> ttrpc::Result<StatsContainerResponse> {
    let request = StatsContainerRequest { container_id: id(container), ..Default::default() };
    guest.agent().service().stats_container(ctx, &request).await
}

/// Waits until as many processes live in a container's cgroup as should: a process that was killed is gone a moment
/// after the call that killed it.
pub(super) async fn settle(guest: &Guest, container: usize, processes: u64) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let answer = stats(guest, container, context::with_duration(LONG)).await;
        let answer = answer.map_err(|error| format!("StatsContainer: {error}"))?;
        let now = answer.cgroup_stats.pids_stats.current;
        if now == processes {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(10) {
            return Err(format!("container {container} has {now} processes, and should have {processes}"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
