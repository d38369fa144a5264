//! Kills for lack of memory, and `GetOOMEvent`.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_api::agent::GetOOMEventRequest;
use e2e::{Boot, Guest};
use husk::agent::Client;
use ttrpc::{Code, context};

use crate::refusal;

const MIB: i64 = 1 << 20;

/// Takes memory until it is killed.
const GREEDY: &[&str] = &["tail", "-n", "1", "/dev/zero"];

#[test]
fn each_kill_is_one_event() {
    Boot::new().test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).memory(16 * MIB).start().await;
        for _ in 0..3 {
            assert_eq!(container.exec(GREEDY).run().await.status, 137);
            assert_eq!(next(&guest.agent()).await.unwrap(), container.id());
        }
        assert_eq!(next_within(&guest.agent(), 300).await, None);
        // Three at a time are three all the same.
        let greedy = [container.exec(GREEDY).start().await, container.exec(GREEDY).start().await];
        for process in greedy {
            assert_eq!(process.wait().await, 137);
            assert_eq!(next(&guest.agent()).await.unwrap(), container.id());
        }
        assert_eq!(next_within(&guest.agent(), 300).await, None);
    });
}

#[test]
fn an_event_outlives_its_container() {
    Boot::new().test(async |guest| {
        let container = guest.container("c1").args(GREEDY).memory(16 * MIB).start().await;
        let id = container.id().to_string();
        assert_eq!(container.init().wait().await, 137);
        container.remove().await;
        assert_eq!(next(&guest.agent()).await.unwrap(), id);
    });
}

#[test]
fn the_pods_own_container_is_not_told_of() {
    Boot::new().test(async |guest| {
        let own = guest.container("own").args(&["sleep", "1000"]).memory(16 * MIB);
        let own = own.request(|request| request.container_id = "sandbox".into()).start().await;
        assert_eq!(own.exec(GREEDY).run().await.status, 137);
        assert_eq!(next_within(&guest.agent(), 500).await, None);
    });
}

#[test]
fn callers_that_go_away_take_no_event_along() {
    Boot::new().test(async |guest| {
        // One whose time is up, one whose connection breaks, one that forgets it has asked.
        assert_eq!(next_within(&guest.agent(), 100).await, None);
        let broken = guest.connect().await;
        let asked = tokio::time::timeout(Duration::from_millis(200), forever(&broken)).await;
        assert!(asked.is_err());
        drop(broken);
        let agent = guest.agent();
        let forgotten = tokio::time::timeout(Duration::from_millis(200), forever(&agent)).await;
        assert!(forgotten.is_err());
        let container = guest.container("c1").args(&["sleep", "1000"]).memory(16 * MIB).start().await;
        let asking = async { next(&guest.agent()).await };
        let (event, killed) = tokio::join!(asking, async { container.exec(GREEDY).run().await.status });
        assert_eq!((event.unwrap().as_str(), killed), (container.id(), 137));
    });
}

#[test]
fn the_end_of_the_sandbox_ends_the_wait() {
    Boot::new().test(async |guest| {
        let agent = guest.agent();
        let waiting = async { forever(&agent).await };
        let ending = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            guest.agent().destroy_sandbox().await.unwrap();
        };
        let (answer, ()) = tokio::join!(waiting, ending);
        assert_eq!(refusal(answer).0, Code::INTERNAL);
    });
}

#[test]
fn a_storm_of_a_hundred_containers_loses_no_event_and_no_call() {
    Boot::new().memory(512).cpus(2).test(async |guest| {
        let mut wanted = BTreeMap::new();
        for batch in 0..20 {
            let life = async |number: u32| greedy(guest, &format!("storm{batch}x{number}")).await;
            let (a, b, c, d, e) = tokio::join!(life(0), life(1), life(2), life(3), life(4));
            wanted.extend([a, b, c, d, e].map(|id| (id, 1)));
        }
        let mut got = BTreeMap::new();
        for _ in 0..100 {
            *got.entry(next(&guest.agent()).await.unwrap()).or_insert(0) += 1;
        }
        assert_eq!(got, wanted);
        assert_eq!(next_within(&guest.agent(), 300).await, None);
        guest.agent().check().await.unwrap();
    });
}

#[test]
fn the_agent_is_the_last_to_be_killed() {
    Boot::new().test(async |guest| {
        let container = guest.container("c1").sees_guest().args(&["sleep", "1000"]).start().await;
        let scores = container.sh("cat /guest/proc/1/oom_score_adj /proc/1/oom_score_adj").await;
        assert_eq!(scores, "-997\n0");
        let own = guest.container("c2").process(|process| process.OOMScoreAdj = 500).args(&["sleep", "1000"]);
        let own = own.start().await;
        assert_eq!(own.sh("cat /proc/1/oom_score_adj /proc/self/oom_score_adj").await, "500\n500");
        let protected = container.sh("cat /guest/cgroup/@husk-agent/memory.min").await;
        assert!(protected.parse::<u64>().unwrap() >= 8 << 20);
        assert!(container.sh("cat /guest/proc/1/cgroup").await.ends_with("/@husk-agent"));
        // All the memory of the guest, without any limit.
        assert_eq!(container.exec(GREEDY).run().await.status, 137);
        guest.agent().check().await.unwrap();
        assert_eq!(next(&guest.agent()).await.unwrap(), container.id());
        assert_eq!(container.sh("echo up").await, "up");
    });
}

/// One container that takes more than it may, from its making to its removal.
async fn greedy(guest: &Guest, id: &str) -> String {
    let container = guest.container(id).args(GREEDY).memory(8 * MIB).start().await;
    let id = container.id().to_string();
    guest.agent().check().await.unwrap();
    assert_eq!(container.init().wait().await, 137);
    container.remove().await;
    id
}

async fn next(agent: &Client) -> ttrpc::Result<String> {
    ask(agent, context::with_timeout(60_000_000_000)).await
}

/// The next event, if it comes within this many milliseconds.
async fn next_within(agent: &Client, milliseconds: i64) -> Option<String> {
    ask(agent, context::with_timeout(milliseconds * 1_000_000)).await.ok()
}

/// Like the peers ask: without a limit.
async fn forever(agent: &Client) -> ttrpc::Result<String> {
    ask(agent, context::Context::default()).await
}

async fn ask(agent: &Client, context: context::Context) -> ttrpc::Result<String> {
    Ok(agent.service().get_oom_event(context, &GetOOMEventRequest::new()).await?.container_id)
}
