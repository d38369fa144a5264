//! The multiplexer against guests in this process: one that behaves, and some that do not.

use std::path::PathBuf;
use std::sync::Arc;

use agent_api::agent::{ReadStreamRequest, ReadStreamResponse};
use agent_api::agent_ttrpc::{AgentService, create_agent_service};
use agent_api::health::{CheckRequest, HealthCheckResponse, health_check_response::ServingStatus};
use agent_api::health_ttrpc::{Health, create_health};
use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use ttrpc::r#async::{Server, TtrpcContext};

use super::*;
use crate::agent::{self, Client, Target};
use crate::transport::{self, connect as dial};

struct Guest {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    mux: Mux,
}

/// A multiplexer whose serial port ends in `guest`.
fn with_guest<F: Future<Output = ()> + Send + 'static>(guest: impl FnOnce(UnixStream) -> F) -> Guest {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let (host, end) = UnixStream::pair().unwrap();
    tokio::spawn(guest(end));
    let mux = Mux::start(host, &socket).unwrap();
    Guest { _dir: dir, socket, mux }
}

/// Accepts yamux streams as the agent does and hands those for port 1024 to `serve`.
async fn accept_streams<F: Future<Output = ()> + Send + 'static>(
    serial: UnixStream,
    serve: impl Fn(u32, tokio_util::compat::Compat<Stream>) -> F,
) {
    let mut connection = Connection::new(serial.compat(), Config::default(), Mode::Server);
    while let Some(Ok(stream)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {
        let mut stream = stream.compat();
        let handler = &serve;
        let Line::Text(line) = drive_while(&mut connection, read_line(&mut stream)).await.unwrap() else {
            continue;
        };
        match connect::parse_request(&line) {
            Some(port @ (1024 | 7)) => {
                drive_while(&mut connection, stream.write_all(connect::grant(port).as_bytes()))
                    .await
                    .unwrap();
                tokio::spawn(handler(port, stream));
            }
            _ => drop(stream),
        }
    }
}

/// yamux moves bytes only while its connection is polled.
async fn drive_while<T, C>(connection: &mut Connection<C>, work: impl Future<Output = T>) -> T
where
    C: futures::AsyncRead + futures::AsyncWrite + Unpin,
{
    tokio::pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        let _ = connection.poll_next_inbound(cx);
        Poll::Pending
    })
    .await
}

async fn echo(_port: u32, mut stream: tokio_util::compat::Compat<Stream>) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        stream.write_all(&buffer[..read]).await.unwrap();
        stream.flush().await.unwrap();
    }
    let _ = stream.shutdown().await;
}

struct Agent;

#[async_trait]
impl Health for Agent {
    async fn check(&self, _ctx: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<HealthCheckResponse> {
        Ok(HealthCheckResponse { status: ServingStatus::SERVING.into(), ..Default::default() })
    }
}

#[async_trait]
impl AgentService for Agent {
    async fn read_stdout(
        &self,
        _ctx: &TtrpcContext,
        r: ReadStreamRequest,
    ) -> ttrpc::Result<ReadStreamResponse> {
        Ok(ReadStreamResponse { data: vec![b'x'; r.len as usize], ..Default::default() })
    }
}

/// Serves ttrpc on one stream, through a unix socket since the server wants a listener.
async fn serve_ttrpc(_port: u32, stream: tokio_util::compat::Compat<Stream>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let once = futures::StreamExt::chain(
        futures::stream::once(async { Ok::<_, io::Error>(theirs) }),
        futures::stream::pending(),
    );
    let mut server = Server::new()
        .register_service(create_health(Arc::new(Agent)))
        .register_service(create_agent_service(Arc::new(Agent)))
        .add_listener(ttrpc::r#async::transport::Listener::new(once));
    server.start().await.unwrap();
    let (mut ours, mut stream) = (ours, stream);
    let _ = tokio::io::copy_bidirectional(&mut ours, &mut stream).await;
}

fn target() -> Target {
    Target { container: "c1".into(), exec_id: String::new() }
}

#[tokio::test]
async fn rpcs_cross_the_serial_port() {
    let guest = with_guest(|serial| accept_streams(serial, serve_ttrpc));
    let client = Client::connect(&guest.socket, None).await.unwrap();
    client.check().await.unwrap();
    let data = client.read(&target(), agent::Stream::Stdout).await.unwrap();
    assert!(data.len() >= 256 << 10 && data.iter().all(|b| *b == b'x'));
    let missing = client.wait(&target()).await.unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
}

#[tokio::test]
async fn megabytes_survive_both_ways_on_two_streams_at_once() {
    let guest = with_guest(|serial| accept_streams(serial, echo));
    let one = |seed: u8| {
        let socket = guest.socket.clone();
        async move {
            let (mut read, mut write) = dial(&socket, 7).await.unwrap().into_split();
            let data: Vec<u8> = (0..3 << 20).map(|i: u32| (i >> 3) as u8 ^ seed).collect();
            let sent = data.clone();
            let writer = tokio::spawn(async move {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let mut back = Vec::new();
            read.read_to_end(&mut back).await.unwrap();
            writer.await.unwrap();
            assert!(back == data, "{} bytes came back of {}", back.len(), data.len());
        }
    };
    tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(one(1), one(2)) }).await.unwrap();
}

#[tokio::test]
async fn a_port_nobody_serves_is_refused() {
    let guest = with_guest(|serial| accept_streams(serial, echo));
    assert!(matches!(dial(&guest.socket, 99).await, Err(transport::Error::Refused(99))));
    dial(&guest.socket, 7).await.unwrap();
}

#[tokio::test]
async fn garbage_on_the_channel_ends_it_and_nothing_else() {
    let guest = with_guest(|mut serial| async move {
        let _ = serial.write_all(&b"Kernel panic or worse\n".repeat(100_000)).await;
    });
    let reason = tokio::time::timeout(Duration::from_secs(10), guest.mux.ended()).await.unwrap();
    assert!(reason.contains("unknown version: 75"), "{reason}");
    assert!(dial(&guest.socket, 1024).await.is_err());
}

#[tokio::test]
async fn a_frame_that_claims_gigabytes_ends_the_channel() {
    // version 0, data, no flags, stream 1, length 2 GiB
    let header = [0, 0, 0, 0, 0, 0, 0, 1, 0x80, 0, 0, 0];
    let guest = with_guest(move |mut serial| async move {
        serial.write_all(&header).await.unwrap();
        let _ = serial.write_all(&vec![0; 4 << 20]).await;
        std::future::pending().await
    });
    let ended = tokio::time::timeout(Duration::from_secs(10), guest.mux.ended()).await;
    assert!(ended.is_ok(), "the channel is still up");
}

#[tokio::test]
async fn an_endless_handshake_line_is_refused() {
    let guest = with_guest(|serial| async move {
        let mut connection = Connection::new(serial.compat(), Config::default(), Mode::Server);
        let mut stream = poll_fn(|cx| connection.poll_next_inbound(cx)).await.unwrap().unwrap().compat();
        let endless = async { while stream.write_all(&[b'O'; 1000]).await.is_ok() {} };
        drive_while(&mut connection, endless).await;
    });
    let answer = tokio::time::timeout(Duration::from_secs(5), dial(&guest.socket, 1024)).await.unwrap();
    assert!(matches!(answer, Err(transport::Error::Refused(1024))), "{answer:?}");
}

#[tokio::test]
async fn an_oversized_answer_fails_the_call_and_not_the_host() {
    let guest = with_guest(|serial| {
        accept_streams(serial, |_, mut stream| async move {
            let mut header = [0; 10];
            stream.read_exact(&mut header).await.unwrap();
            // The same stream id, type response, 1 GiB to come.
            header[..4].copy_from_slice(&(1u32 << 30).to_be_bytes());
            header[8] = 2;
            let _ = stream.write_all(&header).await;
            while stream.write_all(&[0; 4096]).await.is_ok() {}
        })
    });
    let client = Client::connect(&guest.socket, None).await.unwrap();
    let call = tokio::time::timeout(Duration::from_secs(30), client.check())
        .await
        .expect("the deadline of the call");
    assert!(call.unwrap_err().to_string().contains("exceed maximum message size"));
}

#[tokio::test]
async fn streams_a_guest_opens_are_dropped() {
    let (seen, mut opened) = tokio::sync::mpsc::channel(1);
    let _guest = with_guest(move |serial| async move {
        let mut connection = Connection::new(serial.compat(), Config::default(), Mode::Server);
        let mut stream = poll_fn(|cx| connection.poll_new_outbound(cx)).await.unwrap().compat();
        let talk = async {
            let _ = stream.write_all(b"let me in").await;
            let mut byte = [0];
            stream.read(&mut byte).await
        };
        let answer = drive_while(&mut connection, talk).await;
        let _ = seen.send(matches!(answer, Ok(0) | Err(_))).await;
    });
    let refused = tokio::time::timeout(Duration::from_secs(10), opened.recv()).await.unwrap();
    assert_eq!(refused, Some(true));
}
