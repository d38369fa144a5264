//! The protocol itself: unknown services and methods, status codes, many calls at once.

use std::time::Duration;

use agent_api::agent::SetPolicyRequest;
use agent_api::ports;
use e2e::{Guest, test};
use ttrpc::r#async::Client;
use ttrpc::r#async::transport::Socket;
use ttrpc::{Code, context};

#[test]
fn an_agent_without_policies_takes_none() {
    test(async |guest| {
        let (agent, ctx) = (guest.agent(), context::with_duration(Duration::from_secs(20)));
        let request = SetPolicyRequest { policy: "package agent_policy".into(), ..Default::default() };
        let (code, message) = status(agent.service().set_policy(ctx, &request).await);
        assert_eq!(code, Code::NOT_FOUND, "{message}");
        assert!(message.contains("without policies"), "{message}");
    });
}

#[test]
fn unknown_methods_and_services_are_told_apart() {
    test(async |guest| {
        let client = raw(guest).await;
        let ask = async |service: &str, method: &str| {
            let request = ttrpc::proto::Request {
                service: service.into(),
                method: method.into(),
                timeout_nano: 20_000_000_000,
                ..Default::default()
            };
            let answer = client.request(request).await;
            status(answer)
        };
        let (code, message) = ask("grpc.AgentService", "NoSuchMethod").await;
        assert_eq!(code, Code::UNIMPLEMENTED);
        assert!(message.contains("NoSuchMethod"), "{message}");
        assert_eq!(ask("grpc.NoSuchService", "Check").await.0, Code::INVALID_ARGUMENT);
        guest.agent().check().await.unwrap();
    });
}

#[test]
fn connections_that_come_and_go_harm_nobody() {
    test(async |guest| {
        for _ in 0..20 {
            drop(guest.vm().connect(ports::AGENT).await.unwrap());
        }
        assert!(guest.vm().connect(4711).await.is_err(), "a port that nobody serves");
        guest.agent().check().await.unwrap();
    });
}

#[test]
fn garbage_on_one_connection_harms_no_other() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    test(async |guest| {
        let mut bad = guest.vm().connect(ports::AGENT).await.unwrap();
        // A header that announces a message of almost 4 GiB, then anything.
        bad.write_all(&[0xff; 64 << 10]).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), bad.read_to_end(&mut rest)).await;
        assert!(rest.len() < 4096, "{} bytes of answer, {ended:?}", rest.len());
        guest.agent().check().await.unwrap();
        guest.container("c1").sh("true").run().await.ok();
    });
}

#[test]
fn a_caller_that_goes_away_takes_only_its_calls_along() {
    test(async |guest| {
        let container = guest.container("c1").args(&["cat"]).start().await;
        let second = guest.connect().await;
        let waiting =
            tokio::time::timeout(Duration::from_millis(200), second.wait(container.init().target())).await;
        assert!(waiting.is_err());
        drop(second);
        container.init().write(b"here").await;
        assert_eq!(container.init().read(10).await, b"here");
        container.init().close_stdin().await;
        assert_eq!(container.init().wait().await, 0);
    });
}

async fn raw(guest: &Guest) -> Client {
    Client::new(Socket::new(guest.vm().connect(ports::AGENT).await.unwrap()))
}

fn status<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> (Code, String) {
    match result {
        Err(ttrpc::Error::RpcStatus(status)) => (status.code(), status.message().into()),
        other => panic!("expected a refusal, got {other:?}"),
    }
}
