//! Processes in the guest: their streams, signals and end.

use std::sync::atomic::{AtomicU32, Ordering};

use agent_api::agent::{ExecProcessRequest, ReadStreamRequest};
use agent_api::oci::{Process as Spawn, User};
use husk::agent::{Client, Error, Stream, Target};
use protobuf::MessageField;

use crate::container::strings;

/// What the most common peer asks for at a time.
const READ: u32 = 32 << 10;

/// One more process of a container, to be started.
#[must_use]
pub struct ProcessBuilder {
    agent: Client,
    request: ExecProcessRequest,
}

impl ProcessBuilder {
    pub(crate) fn new(agent: Client, container: &str, args: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let process = Spawn {
            Args: strings(args),
            Env: strings(&["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]),
            Cwd: "/".into(),
            ..Default::default()
        };
        let request = ExecProcessRequest {
            container_id: container.into(),
            exec_id: format!("exec-{}", COUNT.fetch_add(1, Ordering::Relaxed)),
            process: MessageField::some(process),
            ..Default::default()
        };
        Self { agent, request }
    }

    /// Under this id.
    pub fn id(mut self, id: &str) -> Self {
        self.request.exec_id = id.into();
        self
    }

    /// On a terminal.
    pub fn terminal(self) -> Self {
        self.process(|process| process.Terminal = true)
    }

    /// As this user and group.
    pub fn user(self, uid: u32, gid: u32) -> Self {
        self.process(|process| {
            process.User = MessageField::some(User { UID: uid, GID: gid, ..Default::default() });
        })
    }

    /// With anything changed about it.
    pub fn process(mut self, change: impl FnOnce(&mut Spawn)) -> Self {
        change(self.request.process.mut_or_insert_default());
        self
    }

    /// `ExecProcess`, or why not.
    pub async fn try_start(self) -> Result<Process, Error> {
        self.agent.exec_process(&self.request).await?;
        let terminal = self.request.process.Terminal;
        Ok(Process::new(self.agent, &self.request.container_id, &self.request.exec_id, terminal))
    }

    /// `ExecProcess`.
    pub async fn start(self) -> Process {
        self.try_start().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts it and stays until it has ended, with an empty stdin.
    pub async fn run(self) -> Output {
        let process = self.start().await;
        process.close_stdin().await;
        process.output().await
    }
}

/// A process of a container.
#[derive(Clone, Debug)]
pub struct Process {
    agent: Client,
    target: Target,
    terminal: bool,
}

/// What became of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit code, or 128 and the signal that killed it.
    pub status: i32,
    /// What it wrote to stdout or to its terminal.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Its stdout as text without the white space around it.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("stdout is text").trim()
    }

    /// Its stderr, likewise.
    pub fn error_text(&self) -> &str {
        std::str::from_utf8(&self.stderr).expect("stderr is text").trim()
    }

    /// Its stdout as text; panics if it failed.
    pub fn ok(&self) -> String {
        assert_eq!(self.status, 0, "stdout: {}\nstderr: {}", self.text(), self.error_text());
        self.text().into()
    }
}

impl Process {
    pub(crate) fn new(agent: Client, container: &str, exec_id: &str, terminal: bool) -> Self {
        Self { agent, target: Target { container: container.into(), exec_id: exec_id.into() }, terminal }
    }

    /// The same process, by another id it has.
    pub fn by_id(&self, exec_id: &str) -> Self {
        Self { target: Target { exec_id: exec_id.into(), ..self.target.clone() }, ..self.clone() }
    }

    /// What the agent knows it by.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// `WaitProcess`, or why not.
    pub async fn try_wait(&self) -> Result<i32, Error> {
        self.agent.wait(&self.target).await
    }

    /// `WaitProcess`.
    pub async fn wait(&self) -> i32 {
        self.try_wait().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// One `ReadStdout` or `ReadStderr` of at most `len` bytes, with the status if it is refused.
    pub async fn try_read(&self, stream: Stream, len: u32) -> ttrpc::Result<Vec<u8>> {
        let request = ReadStreamRequest {
            container_id: self.target.container.clone(),
            exec_id: self.target.exec_id.clone(),
            len,
            ..Default::default()
        };
        let (service, ctx) = (self.agent.service(), ttrpc::context::Context::default());
        let answer = match stream {
            Stream::Stdout => service.read_stdout(ctx, &request).await,
            Stream::Stderr => service.read_stderr(ctx, &request).await,
        };
        Ok(answer?.data)
    }

    /// One `ReadStdout` of at most `len` bytes; empty at the end.
    pub async fn read(&self, len: u32) -> Vec<u8> {
        self.try_read(Stream::Stdout, len).await.unwrap_or_else(|error| panic!("ReadStdout: {error}"))
    }

    /// Reads a stream to its end.
    pub async fn read_all(&self, stream: Stream) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let more = self.try_read(stream, READ).await;
            let more = more.unwrap_or_else(|error| panic!("{stream:?} of {:?}: {error}", self.target));
            if more.is_empty() {
                return all;
            }
            all.extend_from_slice(&more);
        }
    }

    /// Reads stdout until it holds `text`, and returns all that was read.
    pub async fn read_until(&self, text: &str) -> String {
        let mut all = Vec::new();
        loop {
            let so_far = String::from_utf8_lossy(&all);
            if so_far.contains(text) {
                return so_far.into_owned();
            }
            let more = self.read(8192).await;
            assert!(!more.is_empty(), "the output ended before {text:?}: {so_far:?}");
            all.extend_from_slice(&more);
        }
    }

    /// Reads everything to the end and waits, in the order in which runtimes do.
    pub async fn output(&self) -> Output {
        let stderr = async { if self.terminal { Vec::new() } else { self.read_all(Stream::Stderr).await } };
        let (stdout, stderr) = tokio::join!(self.read_all(Stream::Stdout), stderr);
        Output { status: self.wait().await, stdout, stderr }
    }

    /// `WriteStdin`, or why not.
    pub async fn try_write(&self, bytes: &[u8]) -> Result<u32, Error> {
        self.agent.write(&self.target, bytes.to_vec()).await
    }

    /// `WriteStdin` of all these bytes.
    pub async fn write(&self, bytes: &[u8]) {
        let written = self.try_write(bytes).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(written as usize, bytes.len(), "WriteStdin writes all");
    }

    /// `CloseStdin`.
    pub async fn close_stdin(&self) {
        self.agent.close_stdin(&self.target).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// `SignalProcess`, or why not.
    pub async fn try_signal(&self, signal: i32) -> Result<(), Error> {
        self.agent.signal(&self.target, signal as u32).await
    }

    /// `SignalProcess`.
    pub async fn signal(&self, signal: i32) {
        self.try_signal(signal).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// `TtyWinResize`, or why not.
    pub async fn try_resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        self.agent.resize(&self.target, rows, columns).await
    }
}
