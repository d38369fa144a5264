//! Many clients at once, and a part of the guest that is stuck: what is stuck holds up nobody else.
//!
//! Thirty-two clients on one emulated processor wait for each other whatever the agent does, and under their load no call
//! can be as quick as in an idle guest. What the agent can be held to is that the stuck part adds nothing. So the same
//! load is measured twice in one VM, without it and beside it, and for each kind of call the median beside it is at most
//! three times the median without. What an idle guest answers in is printed with them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use agent_api::agent::{
    ExecProcessRequest, RemoveContainerRequest, SignalProcessRequest, StartContainerRequest,
    StatsContainerRequest, VolumeStatsRequest, WaitProcessRequest,
};
use agent_api::oci::{LinuxDevice, LinuxDeviceCgroup, Process};
use e2e::{Boot, Guest, Watch};
use futures::future::join_all;
use husk::agent::Client;
use protobuf::MessageField;
use ttrpc::context::{self, Context};

const CLIENTS: usize = 32;

/// Containers of the load beside the stuck part, and of the one without, which needs fewer for its medians.
const CONTAINERS: usize = 200;
const ALONE: usize = 96;

/// How much slower than without the stuck part.
const FACTOR: u32 = 3;

/// How long each call of a kind took.
#[derive(Default)]
struct Times(RefCell<BTreeMap<&'static str, Vec<Duration>>>);

#[test]
fn a_first_process_that_ignores_everything_and_a_reader_that_never_reads_slow_nobody_down() {
    Boot::new().memory(1024).limit(Duration::from_secs(400)).test(async |guest| {
        let watch = guest.watch().await;
        let idle = Times::default();
        for _ in 0..20 {
            bystander(guest.agent(), &watch, &idle).await;
        }
        the_load(guest, &watch, 1, 1).await; // What the first one makes once and for all is made.
        let before = watch.look().await;
        let alone = the_load(guest, &watch, CLIENTS, ALONE).await;

        let ignorant = guest.container("ignorant").sh(IGNORES_EVERYTHING).start().await;
        // Before it says so, a SIGTERM would be the end of it.
        ignorant.init().read_until("deaf").await;
        let unread = ignorant.exec(&["sh", "-c", "yes >&2 & yes"]).start().await;
        let unfed = ignorant.exec(&["sleep", "100000"]).start().await;
        let signals = async {
            let client = guest.connect().await;
            loop {
                client.signal(ignorant.init().target(), 15).await.expect("it is sent, whatever becomes of it");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let other = guest.connect().await;
        let load = async {
            let busy = busy(&watch).await;
            assert!(busy < 25, "the agent is busy {busy} % of the time with what is stuck");
            the_load(guest, &watch, CLIENTS, CONTAINERS).await
        };
        let beside = tokio::select! {
            times = load => times,
            () = signals => unreachable!("it goes on for ever"),
            status = ignorant.init().try_wait() => panic!("it ended: {status:?}"),
            written = other.write(unfed.target(), vec![0; 1 << 20]) => panic!("somebody read it: {written:?}"),
        };
        unread.signal(9).await;
        ignorant.remove().await;
        watch.nothing_is_left(&before).await;
        settle(guest, &watch, [idle, alone, beside], CLIENTS, ALONE).await;
    });
}

/// SIGTERM to a first process that does not say that it minds it would be SIGKILL.
const IGNORES_EVERYTHING: &str =
    "trap '' HUP INT QUIT USR1 USR2 TERM; echo deaf; while :; do sleep 1000; done";

#[test]
fn a_file_system_that_never_answers_blocks_its_own_container_only() {
    Boot::new().limit(Duration::from_secs(240)).test(async |guest| {
        let watch = guest.watch().await;
        let idle = Times::default();
        for _ in 0..20 {
            bystander(guest.agent(), &watch, &idle).await;
        }
        the_load(guest, &watch, 1, 1).await;
        let before = watch.look().await;
        let alone = the_load(guest, &watch, 2, 12).await;

        let server = silent_file_system(guest).await;
        let silent = format!("/proc/{}/root/tmp/silent", number_of(&watch, "42424[2]").await);
        // Its lookup never ends; a bind mount of what lies in it is somebody's first step.
        let stuck = guest.container("stuck").mount("/stuck", "bind", &format!("{silent}/below"), &["bind"]);
        let stuck = stuck.into_request();
        let creating = async {
            let (client, begun) = (guest.connect().await, Instant::now());
            let answer = client.service().create_container(limit(200), &stuck).await;
            (answer, begun.elapsed())
        };
        let volume =
            VolumeStatsRequest { volume_guest_path: format!("{silent}/below"), ..Default::default() };
        let looking = async {
            let client = guest.connect().await;
            client.service().get_volume_stats(limit(2), &volume).await
        };
        let others = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let times = the_load(guest, &watch, 2, 12).await;
            // The end of the file system is the end of all who wait for it.
            server.remove().await;
            times
        };
        let ((answer, took), looked, beside) = tokio::join!(creating, looking, others);
        assert!(answer.is_err(), "it cannot have been mounted");
        assert!(took > Duration::from_secs(1), "it was not stuck: {took:?}, {answer:?}");
        assert!(looked.is_err(), "it cannot have been looked at: {looked:?}");
        watch.nothing_is_left(&before).await;
        settle(guest, &watch, [idle, alone, beside], 2, 12).await;
    });
}

/// Mounts a FUSE whose server never reads a request. The agent can reach it through the process that has it.
async fn silent_file_system(guest: &Guest) -> e2e::Container<'_> {
    let script = "exec 3<>/dev/fuse; mkdir /tmp/silent
        mount -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none /tmp/silent && echo mounted
        exec sleep 424242";
    let (major, minor) = (10, 229);
    let container = guest.container("silent").privileged().sh(script).linux(|linux| {
        let (path, kind) = ("/dev/fuse".into(), "c".into());
        linux.Devices.push(LinuxDevice {
            Path: path,
            Type: kind,
            Major: major,
            Minor: minor,
            ..Default::default()
        });
        let resources = linux.Resources.mut_or_insert_default();
        resources.Devices.push(LinuxDeviceCgroup {
            Allow: true,
            Type: "c".into(),
            Major: major,
            Minor: minor,
            Access: "rwm".into(),
            ..Default::default()
        });
    });
    let container = container.start().await;
    container.init().read_until("mounted").await;
    container
}

/// The number in the guest of the process whose command line matches.
async fn number_of(watch: &Watch<'_>, pattern: &str) -> String {
    let found = watch.container().sh(&format!("grep -l '{pattern}' /guest/proc/[0-9]*/cmdline")).await;
    found.lines().next().and_then(|path| path.split('/').nth(3)).expect("a path of a process").into()
}

/// How much of a processor the agent uses, in percent: whoever waits for a pipe that nobody empties must not ask all the
/// time. What the watch itself costs is in it.
async fn busy(watch: &Watch<'_>) -> u64 {
    let ticks = "read -r stat < /guest/proc/1/stat; set -- ${stat##*)}; echo $((${12} + ${13}))";
    let script = format!("{ticks}; sleep 4; {ticks}");
    let said = watch.container().sh(&script).await;
    let ticks: Vec<u64> = said.lines().map(|line| line.parse().expect("a number")).collect();
    (ticks[1] - ticks[0]) / 4
}

/// Containers by many clients at once, while a bystander asks for Health and for figures.
async fn the_load(guest: &Guest, watch: &Watch<'_>, clients: usize, containers: usize) -> Times {
    let times = Times::default();
    let clients = (0..clients).map(|first| {
        let times = &times;
        async move {
            let client = guest.connect().await;
            for number in (first..containers).step_by(clients) {
                life(guest, &client, number, times).await;
            }
        }
    });
    let bystander = async {
        loop {
            bystander(guest.agent(), watch, &times).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        _ = join_all(clients) => {}
        () = bystander => unreachable!("it goes on for ever"),
    }
    times
}

/// A container is created, started, entered, killed, waited for and removed.
async fn life(guest: &Guest, client: &Client, number: usize, times: &Times) {
    let agent = client.service();
    let mut create = guest.container("load").args(&["sleep", "100000"]).into_request();
    let id = format!("load-{number}");
    create.container_id = id.clone();
    create.OCI.mut_or_insert_default().Linux.mut_or_insert_default().CgroupsPath = format!("/load/{number}");
    times.of("create", agent.create_container(limit(120), &create)).await;
    let start = StartContainerRequest { container_id: id.clone(), ..Default::default() };
    times.of("start", agent.start_container(limit(120), &start)).await;
    let exec = ExecProcessRequest {
        container_id: id.clone(),
        exec_id: "exec".into(),
        process: MessageField::some(Process {
            Args: vec!["/bin/true".into()],
            Cwd: "/".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    times.of("exec", agent.exec_process(limit(120), &exec)).await;
    let kill = SignalProcessRequest { container_id: id.clone(), signal: 9, ..Default::default() };
    times.of("kill", agent.signal_process(limit(120), &kill)).await;
    let wait = WaitProcessRequest { container_id: id.clone(), ..Default::default() };
    let status = times.of("wait", agent.wait_process(limit(120), &wait)).await.status;
    assert_eq!(status, 137);
    let remove = RemoveContainerRequest { container_id: id, ..Default::default() };
    times.of("remove", agent.remove_container(limit(120), &remove)).await;
}

/// Calls that touch nothing the load is about.
async fn bystander(client: Client, watch: &Watch<'_>, times: &Times) {
    let check = agent_api::health::CheckRequest::new();
    times.of("Health.Check", client.health().check(limit(120), &check)).await;
    let id = watch.container().id().into();
    let stats = StatsContainerRequest { container_id: id, ..Default::default() };
    times.of("stats", client.service().stats_container(limit(120), &stats)).await;
}

fn limit(seconds: u64) -> Context {
    context::with_duration(Duration::from_secs(seconds))
}

impl Times {
    async fn of<T>(&self, call: &'static str, answer: impl Future<Output = ttrpc::Result<T>>) -> T {
        let begun = Instant::now();
        let answer = answer.await.unwrap_or_else(|error| panic!("{call}: {error}"));
        self.0.borrow_mut().entry(call).or_default().push(begun.elapsed());
        answer
    }

    fn median(&self, call: &str) -> Duration {
        let all = self.0.borrow();
        let mut times = all.get(call).cloned().unwrap_or_default();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

/// Fails if the load took much longer beside what was stuck. Before that, it is measured without once more: the host may
/// have got busy in between, and then that is slow by now as well.
async fn settle(
    guest: &Guest,
    watch: &Watch<'_>,
    [idle, alone, beside]: [Times; 3],
    clients: usize,
    containers: usize,
) {
    if let Err(slower) = compare(&idle, &alone, &beside) {
        println!("{slower}");
        let again = the_load(guest, watch, clients, containers).await;
        compare(&idle, &again, &beside).unwrap_or_else(|slower| panic!("{slower}"));
    }
}

fn compare(idle: &Times, alone: &Times, beside: &Times) -> Result<(), String> {
    let mut table = String::new();
    let mut slower = Vec::new();
    for (call, times) in &*beside.0.borrow() {
        let (without, with) = (alone.median(call), beside.median(call));
        writeln!(
            table,
            "{call:<14} idle {:>9.2?}, load {without:>9.2?}, beside what is stuck {with:>9.2?} (n={})",
            idle.median(call),
            times.len()
        )
        .expect("a String takes everything");
        if with > without * FACTOR {
            slower.push(*call);
        }
    }
    println!("{table}");
    if slower.is_empty() {
        return Ok(());
    }
    Err(format!("{slower:?} took more than {FACTOR} times as long:\n{table}"))
}
