//! Over a real connection: ttrpc's client on one end, its server with our service on the other, pipes behind it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use agent_api::husk::{GetTimelineRequest, RefreshRequest, RefreshResponse, Timeline};
use agent_api::husk_ttrpc::{self, AgentClient};
use agent_api::stdio::OUTPUT_CREDIT;
use async_trait::async_trait;
use nix::unistd::Pid;
use tokio::net::UnixStream;
use ttrpc::r#async::transport::Socket;
use ttrpc::r#async::{Client, ClientStream, Server, TtrpcContext};
use ttrpc::{Code, context};

use super::*;
use crate::process::Streams;
use crate::reaper::Reaper;

/// A process without one: the test has the other ends of its pipes, and says when it ends.
struct Fake {
    process: Arc<Process>,
    reaper: Reaper,
    stdin: OwnedFd,
    stdout: File,
    stderr: File,
}

const PID: i32 = 4242;

fn fake() -> Fake {
    let (streams, io) = Streams::pipes(None).unwrap();
    let reaper = Reaper::default();
    let exit = reaper.watch(PID);
    let process = Arc::new(Process::new(PID, File::open("/proc/self/stat").unwrap().into(), exit, streams));
    let [stdin, stdout, stderr] = [io.stdin, io.stdout, io.stderr].map(Option::unwrap);
    Fake { process, reaper, stdin, stdout: stdout.into(), stderr: stderr.into() }
}

/// Serves stdout and stderr of one process, whatever they are called.
struct Service(Arc<Process>);

#[async_trait]
impl husk_ttrpc::Agent for Service {
    async fn output(
        &self,
        _: &TtrpcContext,
        mut stream: ServerStream<OutputChunk, OutputRequest>,
    ) -> ttrpc::Result<()> {
        let request = stream.recv().await?.unwrap();
        // As in the agent, the handler holds on to its process.
        let process = self.0.clone();
        let streams = &process.streams;
        let from =
            if request.exec_id == "stderr" { streams.stderr.as_ref().unwrap() } else { &streams.stdout };
        output(&process, from, request.credit, stream).await.map_err(crate::service::status::streaming)
    }

    async fn input(
        &self,
        _: &TtrpcContext,
        mut stream: ServerStream<InputCredit, InputRequest>,
    ) -> ttrpc::Result<()> {
        stream.recv().await?.unwrap();
        input(&self.0, stream).await.map_err(crate::service::status::streaming)
    }

    async fn get_timeline(&self, _: &TtrpcContext, _: GetTimelineRequest) -> ttrpc::Result<Timeline> {
        Ok(Timeline::new())
    }

    async fn refresh(&self, _: &TtrpcContext, _: RefreshRequest) -> ttrpc::Result<RefreshResponse> {
        Ok(RefreshResponse::new())
    }
}

struct Host {
    client: AgentClient,
    server: Server,
    connections: mpsc::Sender<Box<dyn crate::transport::Connection>>,
}

async fn serve(process: &Arc<Process>) -> Host {
    let (connections, incoming) = mpsc::channel(1);
    let service = husk_ttrpc::create_agent(Arc::new(Service(process.clone())));
    let mut server =
        Server::new().add_listener(crate::transport::listener(incoming)).register_service(service);
    server.start().await.unwrap();
    let client = connect(&connections).await;
    Host { client, server, connections }
}

async fn connect(to: &mpsc::Sender<Box<dyn crate::transport::Connection>>) -> AgentClient {
    let (ours, theirs) = UnixStream::pair().unwrap();
    to.send(Box::new(theirs)).await.unwrap();
    AgentClient::new(Client::new(Socket::new(ours)))
}

async fn open(client: &AgentClient, name: &str, credit: u32) -> ClientStream<OutputRequest, OutputChunk> {
    let stream = client.output(context::Context::default()).await.unwrap();
    stream.send(&OutputRequest { exec_id: name.into(), credit, ..Default::default() }).await.unwrap();
    stream
}

/// The next chunk with something in it; `None` at the end.
async fn next(stream: &mut ClientStream<OutputRequest, OutputChunk>) -> Option<Vec<u8>> {
    loop {
        match soon(stream.recv()).await {
            Ok(chunk) if chunk.end => {
                stream.close_send().await.unwrap();
                let ended = soon(stream.recv()).await;
                assert!(matches!(ended, Err(ttrpc::Error::Eof)), "{ended:?}");
                return None;
            }
            Ok(chunk) if chunk.data.is_empty() => {}
            Ok(chunk) => return Some(chunk.data),
            Err(error) => panic!("{error}"),
        }
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it must not hang")
}

fn end(reaper: &Reaper) {
    reaper.ended(Pid::from_raw(PID), 0);
}

#[tokio::test]
async fn a_reader_that_never_reads_stalls_no_other_and_costs_no_more_than_its_credit() {
    const SIZE: usize = 64 << 20;
    const LITTLE_CREDIT: u32 = 100_000;
    let Fake { process, reaper, mut stdout, mut stderr, .. } = fake();
    let host = serve(&process).await;
    let mut never_read = open(&host.client, "stderr", LITTLE_CREDIT).await;
    // Ends when the other end of the pipe is closed.
    std::thread::spawn(move || while stderr.write_all(&[b'e'; 4096]).is_ok() {});
    let writing = std::thread::spawn(move || {
        for index in 0..SIZE / 4096 {
            stdout.write_all(&[index as u8; 4096]).unwrap();
        }
    });
    let mut read = open(&host.client, "stdout", OUTPUT_CREDIT).await;
    let mut size = 0;
    while size < SIZE {
        let data = next(&mut read).await.expect("there is more to come");
        for (offset, byte) in data.iter().enumerate() {
            assert_eq!(*byte, ((size + offset) / 4096) as u8);
        }
        size += data.len();
        let credit = cost(data.len()) as u32;
        read.send(&OutputRequest { credit, ..Default::default() }).await.unwrap();
    }
    assert_eq!(size, SIZE);
    writing.join().unwrap();
    end(&reaper);
    assert_eq!(next(&mut read).await, None);
    // What the other one was sent waited at the client, and was no more than it had asked for.
    let mut sent = 0;
    while sent + MIN_COST <= LITTLE_CREDIT as usize {
        sent += next(&mut never_read).await.expect("as much as there is credit for").len();
        assert!(sent <= LITTLE_CREDIT as usize, "{sent}");
    }
    let more = tokio::time::timeout(PROBE * 3, async { next(&mut never_read).await }).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn a_client_that_leaves_leaves_the_rest_to_the_next() {
    let Fake { process, reaper, mut stdout, .. } = fake();
    let host = serve(&process).await;
    stdout.write_all(&[b'x'; 5000]).unwrap();
    let mut first = open(&host.client, "stdout", 2000).await;
    assert_eq!(next(&mut first).await.unwrap().len(), 2000);
    first.close_send().await.unwrap();
    let ended = soon(first.recv()).await;
    assert!(matches!(ended, Err(ttrpc::Error::Eof)), "{ended:?}");
    let mut second = open(&host.client, "stdout", OUTPUT_CREDIT).await;
    assert_eq!(next(&mut second).await.unwrap().len(), 3000);
    end(&reaper);
    assert_eq!(next(&mut second).await, None);
}

#[tokio::test]
async fn a_lost_connection_ends_its_streams_and_what_was_not_sent_is_read_again() {
    let Fake { process, reaper, mut stdout, .. } = fake();
    let Host { client, server: _server, connections } = serve(&process).await;
    let silent = open(&client, "stdout", OUTPUT_CREDIT).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(Arc::strong_count(&process) > 2);
    drop((silent, client));
    stdout.write_all(b"for somebody else").unwrap();
    let gone = async {
        while Arc::strong_count(&process) > 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PROBE * 20, gone).await.expect("the stream notices");
    let client = connect(&connections).await;
    let mut next_one = open(&client, "stdout", OUTPUT_CREDIT).await;
    assert_eq!(next(&mut next_one).await.unwrap(), b"for somebody else");
    end(&reaper);
    assert_eq!(next(&mut next_one).await, None);
}

async fn open_input(client: &AgentClient) -> ClientStream<InputRequest, InputCredit> {
    let stream = client.input(context::Context::default()).await.unwrap();
    stream.send(&InputRequest::new()).await.unwrap();
    stream
}

fn data(size: usize) -> InputRequest {
    InputRequest { data: vec![b'i'; size], ..Default::default() }
}

#[tokio::test]
async fn input_is_written_as_the_process_reads_and_closed_with_its_stream() {
    const SIZE: usize = 8 << 20;
    let Fake { process, stdin, reaper: _reaper, .. } = fake();
    let host = serve(&process).await;
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        File::from(stdin).read_to_end(&mut all).unwrap();
        all.len()
    });
    let mut stream = open_input(&host.client).await;
    let (mut credit, mut sent) = (0, 0);
    while sent < SIZE {
        credit += soon(stream.recv()).await.unwrap().credit as usize;
        assert!(credit <= INPUT_CREDIT as usize, "{credit}");
        while credit >= MAX_CHUNK && sent < SIZE {
            stream.send(&data(MAX_CHUNK)).await.unwrap();
            (credit, sent) = (credit - MAX_CHUNK, sent + MAX_CHUNK);
        }
    }
    stream.close_send().await.unwrap();
    let ended = loop {
        match soon(stream.recv()).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(ended, ttrpc::Error::Eof), "{ended}");
    assert_eq!(reading.join().unwrap(), SIZE);
}

#[tokio::test]
async fn more_input_than_was_granted_is_refused() {
    let Fake { process, stdin: _stdin, reaper: _reaper, .. } = fake();
    let host = serve(&process).await;
    let mut stream = open_input(&host.client).await;
    // Nobody reads: the pipe takes 64 KiB of the first, the rest stays in the agent.
    for _ in 0..INPUT_CREDIT as usize / MAX_CHUNK + 2 {
        stream.send(&data(MAX_CHUNK)).await.unwrap();
    }
    let ended = loop {
        match soon(stream.recv()).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let ttrpc::Error::RpcStatus(status) = ended else { panic!("{ended}") };
    assert_eq!(status.code(), Code::INVALID_ARGUMENT, "{status:?}");
}

#[tokio::test]
async fn an_input_that_is_not_read_ends_with_the_process() {
    let Fake { process, stdin: _stdin, reaper, .. } = fake();
    let host = serve(&process).await;
    let mut stream = open_input(&host.client).await;
    stream.send(&data(200_000)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    end(&reaper);
    let ended = loop {
        match soon(stream.recv()).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let ttrpc::Error::RpcStatus(status) = ended else { panic!("{ended}") };
    assert!(status.message().contains("the process has ended"), "{status:?}");
}
