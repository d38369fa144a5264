//! The two decoders a host's bytes meet first: yamux on the serial port, and ttrpc on every connection.
//!
//! Both run with the services' own message types behind them, but without a guest: a method answers NOT_FOUND once its
//! request was decoded. A request must not be carried out on the machine that fuzzes.

use std::sync::Arc;
use std::time::Duration;

use agent_api::agent_ttrpc::{self, AgentService};
use agent_api::health::CheckRequest;
use agent_api::health_ttrpc::{self, Health, HealthClient};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use ttrpc::r#async::Server;
use ttrpc::r#async::transport::Socket;

use crate::transport::{self, Connection};

/// How long anything may take once the host has closed its end: far more than it should.
const SOON: Duration = Duration::from_secs(10);

/// How often everything that can go on does so between a host's last word and its end.
const TURNS: usize = 64;

/// Room for what a session says while nobody reads.
const BUFFER: usize = 1 << 20;

struct Decoded;

#[async_trait::async_trait]
impl AgentService for Decoded {}

#[async_trait::async_trait]
impl Health for Decoded {}

/// A session of the serial port: yamux frames, the handshake, and ttrpc in the streams that pass it. However it goes, it
/// ends with its input, and the services answer the next client.
pub fn frames(bytes: &[u8]) {
    answers_in_session(bytes);
}

/// What the guest's end of the port says meanwhile, in frames of its own.
pub(super) fn answers_in_session(bytes: &[u8]) -> Vec<u8> {
    run(async |agent| {
        let (host, guest) = tokio::io::duplex(BUFFER);
        let session = transport::serve_session(guest, agent.clone());
        tokio::join!(session, feed(host, bytes)).1
    })
}

/// A connection of ttrpc's: headers, requests, and the messages of every method.
pub fn messages(bytes: &[u8]) {
    answers(bytes);
}

/// What the server says meanwhile.
pub(super) fn answers(bytes: &[u8]) -> Vec<u8> {
    run(async |agent| {
        let (host, guest) = tokio::io::duplex(BUFFER);
        agent.send(Box::new(guest)).await.expect("the server takes connections");
        feed(host, bytes).await
    })
}

/// Says all of it, closes that half, and listens until the other side has closed too.
async fn feed(host: DuplexStream, bytes: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = tokio::io::split(host);
    let write = async {
        // A side that has hung up early has refused us, which is its right.
        let _ = write.write_all(bytes).await;
        // The end of a session drops what its streams still hold: everything that was said is worked off first. One
        // thread runs all tasks, each of which gets its turns here.
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        let _ = write.shutdown().await;
    };
    let read = async {
        let mut answers = Vec::new();
        let _ = read.read_to_end(&mut answers).await;
        answers
    };
    tokio::join!(write, read).1
}

fn run<T>(attack: impl AsyncFnOnce(&mpsc::Sender<Box<dyn Connection>>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let (connections, incoming) = mpsc::channel(16);
        let mut server = Server::new()
            .add_listener(transport::listener(incoming))
            .register_service(agent_ttrpc::create_agent_service(Arc::new(Decoded)))
            .register_service(health_ttrpc::create_health(Arc::new(Decoded)));
        server.start().await.expect("it has a listener");
        let done = tokio::time::timeout(SOON, attack(&connections)).await.expect("it ends with its input");
        let (near, far) = tokio::io::duplex(BUFFER);
        connections.send(Box::new(far)).await.expect("the server takes one more connection");
        let client = HealthClient::new(ttrpc::r#async::Client::new(Socket::new(near)));
        let answer = client.check(ttrpc::context::with_duration(SOON), &CheckRequest::new()).await;
        assert!(
            matches!(&answer, Err(ttrpc::Error::RpcStatus(status)) if status.code() == ttrpc::Code::NOT_FOUND),
            "the next client hears {answer:?}"
        );
        done
    })
}
