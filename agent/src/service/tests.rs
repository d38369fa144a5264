//! Handlers that misbehave and bytes that are no requests, against a real server on a unix socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_api::agent::*;
use agent_api::health::CheckRequest;
use agent_api::health_ttrpc::HealthClient;
use agent_api::{Empty, agent_ttrpc};
use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use ttrpc::r#async::transport::Socket;
use ttrpc::r#async::{Client, TtrpcContext};
use ttrpc::{Code, context};

use super::*;

/// Handlers as no agent should have them.
struct Misbehaving {
    dropped: Arc<AtomicBool>,
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl agent_ttrpc::AgentService for Misbehaving {
    async fn get_metrics(&self, _: &TtrpcContext, _: GetMetricsRequest) -> ttrpc::Result<Metrics> {
        panic!("at once")
    }

    async fn pause_container(
        &self,
        _: &TtrpcContext,
        request: PauseContainerRequest,
    ) -> ttrpc::Result<Empty> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        panic!("after a while, with {:?}", request.container_id)
    }

    async fn resume_container(&self, _: &TtrpcContext, _: ResumeContainerRequest) -> ttrpc::Result<Empty> {
        std::panic::panic_any(7)
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        _: WaitProcessRequest,
    ) -> ttrpc::Result<WaitProcessResponse> {
        let _guard = SetOnDrop(self.dropped.clone());
        std::future::pending().await
    }
}

/// A server that goes with the test.
struct Served {
    socket: PathBuf,
    dropped: Arc<AtomicBool>,
    _server: Server,
}

impl Served {
    async fn new(name: &str) -> Self {
        let socket = std::env::temp_dir().join(format!("husk-service-{name}-{}", std::process::id()));
        let dropped = Arc::<AtomicBool>::default();
        let agent = Misbehaving { dropped: dropped.clone() };
        let mut services = agent_ttrpc::create_agent_service(Arc::new(agent));
        services.extend(health_ttrpc::create_health(Arc::new(health::Health)));
        let incoming = transport::on_unix_socket(&socket).unwrap();
        Self { socket, dropped, _server: start(guard::guard(services), incoming).await.unwrap() }
    }

    async fn stream(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }

    async fn client(&self) -> Client {
        Client::new(Socket::new(self.stream().await))
    }

    async fn is_healthy(&self) {
        let health = HealthClient::new(self.client().await);
        health.check(seconds(5), &CheckRequest::new()).await.unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn seconds(seconds: u64) -> context::Context {
    context::with_duration(Duration::from_secs(seconds))
}

fn refusal<T: std::fmt::Debug>(answer: ttrpc::Result<T>) -> (Code, String) {
    match answer {
        Err(ttrpc::Error::RpcStatus(status)) => (status.code(), status.message().to_string()),
        other => panic!("not a refusal: {other:?}"),
    }
}

#[tokio::test]
async fn a_panic_is_answered_and_harms_nobody_else() {
    let served = Served::new("panic").await;
    let agent = agent_ttrpc::AgentServiceClient::new(served.client().await);
    let waiting = {
        let agent = agent.clone();
        tokio::spawn(async move { agent.wait_process(seconds(2), &WaitProcessRequest::new()).await })
    };
    for _ in 0..3 {
        let answer = agent.get_metrics(seconds(5), &GetMetricsRequest::new()).await;
        assert_eq!(refusal(answer), (Code::INTERNAL, "GetMetrics: the agent panicked: at once".into()));
        let request = PauseContainerRequest { container_id: "c1".into(), ..Default::default() };
        let (code, message) = refusal(agent.pause_container(seconds(5), &request).await);
        assert_eq!(code, Code::INTERNAL);
        assert_eq!(message, "PauseContainer: the agent panicked: after a while, with \"c1\"");
        let answer = agent.resume_container(seconds(5), &ResumeContainerRequest::new()).await;
        assert!(refusal(answer).1.ends_with("it gave no reason"));
    }
    // A call that was under way all the time is still under way, on the same connection.
    match waiting.await.unwrap() {
        Err(ttrpc::Error::Others(reason)) if reason.contains("deadline") => {}
        other => panic!("the client's own deadline ends it, and not {other:?}"),
    }
    served.is_healthy().await;
}

#[tokio::test]
async fn a_deadline_that_passes_in_the_server_drops_the_handler() {
    let served = Served::new("deadline").await;
    // Not the generated client: that one has a deadline of its own, and answers before the server does.
    let mut stream = served.stream().await;
    let request = ttrpc::proto::Request {
        service: "grpc.AgentService".into(),
        method: "WaitProcess".into(),
        timeout_nano: 50_000_000,
        ..Default::default()
    };
    stream.write_all(&frame(1, 1, &ttrpc::proto::Codec::encode(&request).unwrap())).await.unwrap();
    let answer = response(&mut stream).await;
    assert_eq!(answer.status().code(), Code::DEADLINE_EXCEEDED);
    assert!(served.dropped.load(Ordering::SeqCst));
    // No deadline, and one that no clock can tell.
    for (stream_id, timeout_nano) in [(3, 0), (5, -1)] {
        let request = ttrpc::proto::Request {
            service: "grpc.Health".into(),
            method: "Check".into(),
            timeout_nano,
            ..Default::default()
        };
        stream
            .write_all(&frame(stream_id, 1, &ttrpc::proto::Codec::encode(&request).unwrap()))
            .await
            .unwrap();
        assert_eq!(response(&mut stream).await.status().code(), Code::OK);
    }
}

#[tokio::test]
async fn a_caller_that_leaves_takes_its_handlers_along() {
    let served = Served::new("leaves").await;
    let agent = agent_ttrpc::AgentServiceClient::new(served.client().await);
    let request = WaitProcessRequest::new();
    let call = agent.wait_process(seconds(60), &request);
    assert!(tokio::time::timeout(Duration::from_millis(100), call).await.is_err());
    assert!(!served.dropped.load(Ordering::SeqCst));
    drop(agent);
    for _ in 0..500 {
        if served.dropped.load(Ordering::SeqCst) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the handler is still there");
}

#[tokio::test]
async fn frames_that_are_none_cost_their_connection_at_most() {
    let served = Served::new("frames").await;
    // Too long by a byte: refused, and the connection goes on.
    let mut stream = served.stream().await;
    let long = agent_api::MAX_MESSAGE + 1;
    stream.write_all(&frame(1, 1, &vec![b'x'; long])).await.unwrap();
    assert_eq!(response(&mut stream).await.status().code(), Code::INVALID_ARGUMENT);
    // No request inside, an even stream, data of a stream that is none, a type that is none.
    stream.write_all(&frame(3, 1, &[0xff; 64])).await.unwrap();
    assert_eq!(response(&mut stream).await.status().code(), Code::INVALID_ARGUMENT);
    stream.write_all(&frame(2, 1, b"")).await.unwrap();
    assert_eq!(response(&mut stream).await.status().code(), Code::INVALID_ARGUMENT);
    stream.write_all(&frame(5, 3, b"data")).await.unwrap();
    assert_eq!(response(&mut stream).await.status().code(), Code::INVALID_ARGUMENT);
    stream.write_all(&frame(7, 99, b"?")).await.unwrap();
    let request =
        ttrpc::proto::Request { service: "grpc.Health".into(), method: "Check".into(), ..Default::default() };
    stream.write_all(&frame(9, 1, &ttrpc::proto::Codec::encode(&request).unwrap())).await.unwrap();
    assert_eq!(response(&mut stream).await.status().code(), Code::OK);

    // Half a header, half a message, nothing at all, and one that announces 4 GiB; some stay, some leave.
    let mut open = Vec::new();
    for bytes in [&b""[..], &[0, 0, 0], &frame(1, 1, &[0; 100])[..50], &[0xff; 10]] {
        for stays in [true, false] {
            let mut stream = served.stream().await;
            stream.write_all(bytes).await.unwrap();
            if stays {
                open.push(stream);
            }
        }
    }
    served.is_healthy().await;
}

#[tokio::test]
async fn thousands_of_connections_come_and_go() {
    let served = Served::new("thousands").await;
    for _ in 0..3000 {
        drop(served.stream().await);
    }
    served.is_healthy().await;
}

fn frame(stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes().to_vec();
    frame.extend(stream.to_be_bytes());
    frame.extend([kind, 0]);
    frame.extend(payload);
    frame
}

async fn response(stream: &mut UnixStream) -> ttrpc::proto::Response {
    let mut header = [0; 10];
    stream.read_exact(&mut header).await.unwrap();
    let mut payload = vec![0; u32::from_be_bytes(header[..4].try_into().unwrap()) as usize];
    stream.read_exact(&mut payload).await.unwrap();
    ttrpc::proto::Codec::decode(payload).unwrap()
}
