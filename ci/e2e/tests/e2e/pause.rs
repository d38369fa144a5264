//! `PauseContainer` and `ResumeContainer`.

use std::time::Duration;

use agent_api::agent::{PauseContainerRequest, ResumeContainerRequest};
use agent_api::oci::{LinuxPids, LinuxResources};
use e2e::{Guest, test};
use husk::agent::Stream;
use nix::sys::signal::Signal::{SIGKILL, SIGUSR1};
use protobuf::MessageField;
use ttrpc::{Code, context};

use crate::refusal;
use crate::update::update;

const TICKS: &str = "i=0; while :; do i=$((i+1)); echo $i > /tmp/tick; sleep 0.02; done";

#[test]
fn a_paused_container_stands_still_and_goes_on() {
    test(async |guest| {
        let container = guest.container("c1").sh("while :; do echo tick; sleep 0.05; done").start().await;
        container.init().read_until("tick").await;
        pause(guest, container.id()).await.unwrap();
        // What was written before is still there to be read; then nothing comes.
        let silence = Duration::from_millis(400);
        while let Ok(some) = tokio::time::timeout(silence, container.init().read(65_536)).await {
            assert!(!some.is_empty(), "it has not ended");
        }
        resume(guest, container.id()).await.unwrap();
        container.init().read_until("tick").await;
    });
}

#[test]
fn only_what_runs_is_paused_and_only_what_is_paused_resumes() {
    test(async |guest| {
        let wrong = |answer: ttrpc::Result<()>, state: &str| {
            let (code, text) = refusal(answer);
            assert!(code == Code::INTERNAL && text.contains(state), "{code:?} {text}");
        };
        let container = guest.container("c1").args(&["sleep", "1000"]).create().await;
        wrong(resume(guest, container.id()).await, "created");
        pause(guest, container.id()).await.unwrap();
        wrong(pause(guest, container.id()).await, "paused");
        let start = container.try_start().await.unwrap_err().to_string();
        assert!(start.contains("cannot start: it is paused"), "{start}");
        resume(guest, container.id()).await.unwrap();
        container.start().await;
        wrong(resume(guest, container.id()).await, "running");
        pause(guest, container.id()).await.unwrap();
        resume(guest, container.id()).await.unwrap();
        container.init().signal(SIGKILL as i32).await;
        container.init().wait().await;
        wrong(pause(guest, container.id()).await, "stopped");
        wrong(resume(guest, container.id()).await, "stopped");
        for answer in [pause(guest, "nobody").await, resume(guest, "nobody").await] {
            assert_eq!(refusal(answer).0, Code::INVALID_ARGUMENT);
        }
    });
}

#[test]
fn a_paused_container_takes_no_new_process_but_answers_for_itself() {
    test(async |guest| {
        let container = guest.container("c1").sh(&format!("trap 'echo usr1' USR1; {TICKS}")).start().await;
        container.sh("until [ -s /tmp/tick ]; do sleep 0.02; done").await;
        pause(guest, container.id()).await.unwrap();
        let exec = container.exec(&["true"]).try_start().await.unwrap_err().to_string();
        assert!(exec.contains("cannot exec: it is paused"), "{exec}");
        assert!(container.stats().await.cgroup_stats.pids_stats.current >= 1);
        let mut limits = LinuxResources::new();
        limits.Pids = MessageField::some(LinuxPids { Limit: 77, ..Default::default() });
        update(guest, &container, Some(limits)).await.unwrap();
        assert_eq!(container.stats().await.cgroup_stats.pids_stats.limit, 77);
        // A signal waits for it.
        container.init().signal(SIGUSR1 as i32).await;
        resume(guest, container.id()).await.unwrap();
        container.init().read_until("usr1").await;
        assert_eq!(container.sh("echo again").await, "again");
    });
}

#[test]
fn a_paused_container_can_be_killed() {
    test(async |guest| {
        // Once as "all", and once as its first process by the container's id.
        for by_id in [false, true] {
            let container = guest.container(if by_id { "c1" } else { "c2" }).sh(TICKS).start().await;
            let more = container.exec(&["sleep", "1000"]).start().await;
            pause(guest, container.id()).await.unwrap();
            let init = if by_id { container.init().by_id(container.id()) } else { container.init().clone() };
            init.signal(SIGKILL as i32).await;
            let ends = async { (init.wait().await, more.wait().await) };
            let ended = tokio::time::timeout(Duration::from_secs(20), ends).await.expect("it dies");
            assert_eq!(ended, (137, 137));
            assert!(container.init().try_read(Stream::Stdout, 10).await.is_err(), "nobody knows it any more");
        }
    });
}

#[test]
fn a_paused_container_can_be_removed() {
    test(async |guest| {
        let container = guest.container("c1").sh(TICKS).start().await;
        let waiting = container.init().clone();
        pause(guest, container.id()).await.unwrap();
        let removal = async { container.remove().await };
        tokio::time::timeout(Duration::from_secs(20), removal).await.expect("it goes");
        assert!(waiting.try_wait().await.is_err(), "waiting for one that is removed ends at once");
        // Nothing of it stands in the way of the next one of this name.
        guest.container("c1").sh("echo fresh").run().await.ok();
    });
}

async fn pause(guest: &Guest, id: &str) -> ttrpc::Result<()> {
    let request = PauseContainerRequest { container_id: id.into(), ..Default::default() };
    guest.agent().service().pause_container(context::with_timeout(60_000_000_000), &request).await.map(drop)
}

async fn resume(guest: &Guest, id: &str) -> ttrpc::Result<()> {
    let request = ResumeContainerRequest { container_id: id.into(), ..Default::default() };
    guest.agent().service().resume_container(context::with_timeout(60_000_000_000), &request).await.map(drop)
}
