//! A VM's way up and down: Health, Version, details, logs, power-off.

use std::time::Duration;

use agent_api::API_VERSION;
use agent_api::agent::{DestroySandboxRequest, GuestDetailsRequest};
use agent_api::health::CheckRequest;
use agent_api::health::health_check_response::ServingStatus;
use e2e::{Boot, code, test};
use serde_json::Value;
use ttrpc::{Code, context};

#[test]
fn the_agent_is_healthy_and_tells_its_version() {
    Boot::new().bare().test(async |guest| {
        let agent = guest.agent();
        let (ctx, request) = (context::with_duration(Duration::from_secs(10)), CheckRequest::new());
        let health = agent.health().check(ctx.clone(), &request).await.unwrap();
        assert_eq!(health.status.enum_value(), Ok(ServingStatus::SERVING));
        let version = agent.health().version(ctx, &request).await.unwrap();
        assert_eq!(version.grpc_version, API_VERSION);
        assert!(version.agent_version.starts_with(|first: char| first.is_ascii_digit()), "{version:?}");
    });
}

#[test]
fn a_container_needs_a_sandbox() {
    Boot::new().bare().test(async |guest| {
        let early = guest.container("c1").sh("true").try_create().await;
        assert_eq!(code(&early), Code::INTERNAL);
        assert!(early.unwrap_err().to_string().contains("sandbox"));
        guest.create_sandbox().await.unwrap();
        guest.container("c1").sh("true").run().await.ok();
    });
}

#[test]
fn a_container_runs_with_either_kind_of_share() {
    use husk::share::Kind;
    for (kind, fstype) in [(Kind::NineP, "9p"), (Kind::Virtiofs, "virtiofs")] {
        Boot::new().share(kind).test(async |guest| {
            let mounts = guest.container("c1").args(&["cat", "/proc/mounts"]).run().await.ok();
            let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).unwrap();
            assert_eq!(root.split(' ').nth(2), Some(fstype), "{root}");
        });
    }
}

#[test]
fn the_guest_tells_what_it_is() {
    test(async |guest| {
        let request = GuestDetailsRequest { mem_block_size: true, ..Default::default() };
        let ctx = context::with_duration(Duration::from_secs(10));
        let details = guest.agent().service().get_guest_details(ctx, &request).await.unwrap().agent_details;
        assert!(details.init_daemon, "the agent is the guest's first process");
        assert!(!details.version.is_empty());
        for driver in ["9p", "virtio-fs"] {
            assert!(details.storage_handlers.iter().any(|handler| handler == driver), "{details:?}");
        }
    });
}

#[test]
fn every_line_of_the_log_is_a_record() {
    test(async |guest| {
        let container = guest.container("logged").args(&["true"]).create().await;
        // The log travels beside the calls: the line about this container may come a moment after the answer.
        let text = loop {
            let text = std::fs::read_to_string(guest.vm().agent_log()).unwrap_or_default();
            if text.contains(container.id()) && text.ends_with('\n') {
                break text;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            for key in ["msg", "level", "ts", "pid", "version", "subsystem"] {
                assert!(record[key].is_string(), "{key} in {line}");
            }
            assert_eq!(
                (&record["name"], &record["source"]),
                (&"kata-agent".into(), &"agent".into()),
                "{line}"
            );
        }
    });
}

#[test]
fn health_is_answered_whatever_else_waits() {
    test(async |guest| {
        let container = guest.container("busy").args(&["sleep", "1000"]).start().await;
        let second = guest.connect().await;
        let waiting = [container.init().clone(), container.init().by_id(container.id())];
        let waits = async { tokio::join!(waiting[0].wait(), waiting[1].read(10)) };
        let checks = async {
            for _ in 0..20 {
                guest.agent().check().await.unwrap();
                second.check().await.unwrap();
            }
            container.init().signal(9).await;
        };
        let ((status, output), ()) = tokio::join!(waits, checks);
        assert_eq!((status, output), (137, vec![]));
    });
}

#[test]
fn destroying_the_sandbox_ends_containers_and_vm_once() {
    Boot::new().test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let destroy = async || {
            let (agent, ctx) = (guest.agent(), context::with_duration(Duration::from_secs(30)));
            agent.service().destroy_sandbox(ctx, &DestroySandboxRequest::new()).await
        };
        let (first, second) = tokio::join!(destroy(), destroy());
        assert!(first.is_ok() != second.is_ok(), "one of them is the first: {first:?}, {second:?}");
        match first.and(second) {
            Err(ttrpc::Error::RpcStatus(status)) => assert_eq!(status.code(), Code::INTERNAL),
            other => panic!("the second call is refused, not {other:?}"),
        }
        let gone = tokio::time::timeout(Duration::from_secs(20), guest.vm().fate().gone()).await;
        let gone = gone.expect("QEMU exits by itself").to_string();
        assert!(!gone.contains("panic"), "{gone}");
        container.abandon();
    });
}
