//! Against guests of the test's own making, over a real connection: one of ours, a peer's, a hostile one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent_api::agent::{ReadStreamRequest, ReadStreamResponse, WriteStreamRequest, WriteStreamResponse};
use agent_api::health::{CheckRequest, HealthCheckResponse, VersionCheckResponse};
use agent_api::husk::{GetTimelineRequest, RefreshRequest, RefreshResponse, Timeline};
use agent_api::stdio::INPUT_CREDIT;
use agent_api::{agent_ttrpc, health_ttrpc, husk_ttrpc};
use async_trait::async_trait;
use futures::stream;
use tokio::net::UnixStream;
use ttrpc::Result;
use ttrpc::r#async::transport::{Listener, Socket};
use ttrpc::r#async::{Server, ServerStream, TtrpcContext};

use super::*;

struct Guest {
    version: &'static str,
    /// How much it sends, and whether it minds its credit.
    output: usize,
    honest: bool,
    received: AtomicUsize,
    calls: AtomicUsize,
}

#[async_trait]
impl health_ttrpc::Health for Guest {
    async fn check(&self, _: &TtrpcContext, _: CheckRequest) -> Result<HealthCheckResponse> {
        Ok(HealthCheckResponse::new())
    }

    async fn version(&self, _: &TtrpcContext, _: CheckRequest) -> Result<VersionCheckResponse> {
        Ok(VersionCheckResponse { agent_version: self.version.into(), ..Default::default() })
    }
}

#[async_trait]
impl agent_ttrpc::AgentService for Guest {
    async fn read_stdout(&self, _: &TtrpcContext, _: ReadStreamRequest) -> Result<ReadStreamResponse> {
        let data = if self.calls.fetch_add(1, Ordering::Relaxed) == 0 { b"called".to_vec() } else { vec![] };
        Ok(ReadStreamResponse { data, ..Default::default() })
    }

    async fn write_stdin(
        &self,
        _: &TtrpcContext,
        request: WriteStreamRequest,
    ) -> Result<WriteStreamResponse> {
        self.received.fetch_add(request.data.len(), Ordering::Relaxed);
        Ok(WriteStreamResponse { len: request.data.len() as u32, ..Default::default() })
    }
}

#[async_trait]
impl husk_ttrpc::Agent for Guest {
    async fn output(
        &self,
        _: &TtrpcContext,
        mut stream: ServerStream<OutputChunk, OutputRequest>,
    ) -> Result<()> {
        let mut credit = stream.recv().await?.unwrap().credit as usize;
        let mut sent = 0;
        while sent < self.output {
            while self.honest && credit < MAX_CHUNK {
                let Some(more) = stream.recv().await? else { return Ok(()) };
                credit += more.credit as usize;
            }
            let data = vec![0; MAX_CHUNK.min(self.output - sent)];
            sent += data.len();
            credit = credit.saturating_sub(cost(data.len()));
            stream.send(&OutputChunk { data, ..Default::default() }).await?;
        }
        stream.send(&OutputChunk { end: true, ..Default::default() }).await?;
        while stream.recv().await?.is_some() {}
        Ok(())
    }

    async fn input(
        &self,
        _: &TtrpcContext,
        mut stream: ServerStream<InputCredit, InputRequest>,
    ) -> Result<()> {
        assert!(stream.recv().await?.unwrap().data.is_empty());
        stream.send(&InputCredit { credit: INPUT_CREDIT, ..Default::default() }).await?;
        let mut left = INPUT_CREDIT as usize;
        while let Some(request) = stream.recv().await? {
            let credit = cost(request.data.len());
            left = left.checked_sub(credit).expect("a host minds its credit");
            self.received.fetch_add(request.data.len(), Ordering::Relaxed);
            if left < INPUT_CREDIT as usize / 2 {
                let credit = INPUT_CREDIT - left as u32;
                left += credit as usize;
                stream.send(&InputCredit { credit, ..Default::default() }).await?;
            }
        }
        Ok(())
    }

    async fn get_timeline(&self, _: &TtrpcContext, _: GetTimelineRequest) -> Result<Timeline> {
        Ok(Timeline::new())
    }

    async fn refresh(&self, _: &TtrpcContext, _: RefreshRequest) -> Result<RefreshResponse> {
        Ok(RefreshResponse::new())
    }
}

const OURS: &str = "0.1.0+husk.agent.v1";

async fn serve(version: &'static str, output: usize, honest: bool) -> (Client, Arc<Guest>, Server) {
    let (received, calls) = Default::default();
    let guest = Arc::new(Guest { version, output, honest, received, calls });
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut server = Server::new()
        .add_listener(Listener::new(stream::iter([Ok(theirs)])))
        .register_service(health_ttrpc::create_health(guest.clone()))
        .register_service(agent_ttrpc::create_agent_service(guest.clone()));
    if version == OURS {
        server = server.register_service(husk_ttrpc::create_agent(guest.clone()));
    }
    server.start().await.unwrap();
    (Client::over(Socket::new(ours), None), guest, server)
}

fn target() -> Target {
    Target { container: "c1".into(), exec_id: String::new() }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it must not hang")
}

#[tokio::test]
async fn an_agent_of_ours_is_read_by_a_stream_and_keeps_to_what_was_taken() {
    const SIZE: usize = 5 * OUTPUT_CREDIT as usize + 17;
    let (client, guest, _server) = serve(OURS, SIZE, true).await;
    let mut reader = client.reader(&target(), Stream::Stdout).await.unwrap();
    let mut size = 0;
    loop {
        let data = soon(reader.next()).await.unwrap();
        if data.is_empty() {
            break;
        }
        size += data.len();
    }
    assert_eq!((size, guest.calls.load(Ordering::Relaxed)), (SIZE, 0));
    assert!(soon(reader.next()).await.unwrap().is_empty(), "the end is final");
}

#[tokio::test]
async fn a_guest_that_sends_more_than_it_may_is_cut_off() {
    let (client, _guest, _server) = serve(OURS, 64 << 20, false).await;
    let mut reader = client.reader(&target(), Stream::Stdout).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut size = 0;
    let error = loop {
        match soon(reader.next()).await {
            Ok(data) => size += data.len(),
            Err(error) => break error,
        }
    };
    assert!(size <= OUTPUT_CREDIT as usize, "{size} bytes were queued");
    assert!(error.to_string().contains("more than it was asked for"), "{error}");
}

#[tokio::test]
async fn a_peer_is_read_and_written_by_calls() {
    for version in ["4.1.0", "4.1.0+husk", ""] {
        let (client, guest, _server) = serve(version, 0, true).await;
        let mut reader = client.reader(&target(), Stream::Stdout).await.unwrap();
        assert_eq!(soon(reader.next()).await.unwrap(), b"called");
        assert!(soon(reader.next()).await.unwrap().is_empty());
        let mut writer = client.writer(&target()).await.unwrap();
        soon(writer.write(vec![1; 1000])).await.unwrap();
        assert_eq!(guest.received.load(Ordering::Relaxed), 1000);
    }
}

#[tokio::test]
async fn input_goes_out_as_far_as_its_credit_and_is_all_there_when_closed() {
    const SIZE: usize = 3 * INPUT_CREDIT as usize + 5;
    let (client, guest, _server) = serve(OURS, 0, true).await;
    let mut writer = client.writer(&target()).await.unwrap();
    for piece in vec![7; SIZE].chunks(100_000) {
        soon(writer.write(piece.to_vec())).await.unwrap();
    }
    soon(writer.close()).await.unwrap();
    assert_eq!(guest.received.load(Ordering::Relaxed), SIZE);
}
