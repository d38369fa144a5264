//! The agent's client: one ttrpc connection, typed calls, a deadline on each, errors that name call and object.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_api::agent::{
    CloseStdinRequest, CreateContainerRequest, CreateSandboxRequest, DestroySandboxRequest,
    ExecProcessRequest, ReadStreamRequest, RemoveContainerRequest, SignalProcessRequest,
    StartContainerRequest, TtyWinResizeRequest, WaitProcessRequest, WriteStreamRequest,
};
use agent_api::agent_ttrpc::AgentServiceClient;
use agent_api::health::CheckRequest;
use agent_api::health_ttrpc::HealthClient;
use agent_api::husk_ttrpc;
use agent_api::{ports, stdio};
use tokio::sync::OnceCell;
use ttrpc::r#async::transport::Socket;
use ttrpc::context::{self, Context};

use crate::log::printable;
use crate::transport;
use crate::vm::fate::{Fate, Gone};

/// For calls that only touch the agent's own tables.
const QUICK: Duration = Duration::from_secs(15);
/// For calls that set up or tear down: under emulation on a loaded machine these take seconds.
const SLOW: Duration = Duration::from_secs(60);

/// The most output asked for at once; far below a frame's limit of 4 MiB.
const READ: u32 = 512 << 10;

/// What a call can end in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error("connect")]
    Connect(#[source] transport::Error),
    /// The agent said no.
    #[error("{call}: {object}: {message}")]
    Refused {
        /// The method.
        call: &'static str,
        /// What it was called for.
        object: String,
        /// The status code.
        code: ttrpc::Code,
        /// The agent's words.
        message: String,
    },
    /// No answer in time.
    #[error("{call}: {object}: no answer within {} s", .limit.as_secs())]
    Late {
        /// The method.
        call: &'static str,
        /// What it was called for.
        object: String,
        /// The deadline.
        limit: Duration,
    },
    /// The connection broke, or carried something that is not an answer.
    #[error("{call}: {object}: {cause}")]
    Lost {
        /// The method.
        call: &'static str,
        /// What it was called for.
        object: String,
        /// What ttrpc said.
        cause: String,
    },
    /// The VM ended.
    #[error("{call}: {object}: {gone}")]
    Gone {
        /// The method.
        call: &'static str,
        /// What it was called for.
        object: String,
        /// Why.
        gone: Gone,
    },
}

impl Error {
    /// Whether the agent does not know the process (any more).
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Refused { code: ttrpc::Code::NOT_FOUND, .. })
    }

    /// The exit code shells and engines expect where the command itself could not be executed.
    pub(crate) fn exec_code(&self) -> Option<u8> {
        let Error::Refused { message, .. } = self else { return None };
        let (_, failure) = message.rsplit_once("exec: ")?;
        if failure.ends_with("permission denied") {
            Some(126)
        } else if failure.ends_with("no such file or directory") {
            Some(127)
        } else {
            None
        }
    }
}

/// One process in the guest, by the names the agent knows it by. The init process has an empty `exec_id`.
#[derive(Clone, Debug)]
pub struct Target {
    /// The container's name.
    pub container: String,
    /// The process in it.
    pub exec_id: String,
}

/// Which output of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A connection to the agent. Clones share it.
#[derive(Clone)]
pub struct Client {
    agent: AgentServiceClient,
    health: HealthClient,
    husk: husk_ttrpc::AgentClient,
    /// Whether the agent serves `husk.agent.v1`, once somebody wanted to know.
    is_husk: Arc<OnceCell<bool>>,
    fate: Option<Fate>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Connects through the VM's socket. With a `fate`, every wait ends when the VM does.
    pub async fn connect(socket: &Path, fate: Option<Fate>) -> Result<Client, Error> {
        let stream = transport::connect(socket, ports::AGENT).await.map_err(Error::Connect)?;
        Ok(Client::over(Socket::new(stream), fate))
    }

    /// A client on a connection that is there.
    pub(crate) fn over(connection: Socket, fate: Option<Fate>) -> Client {
        let client = ttrpc::r#async::Client::new(connection);
        Client {
            agent: AgentServiceClient::new(client.clone()),
            health: HealthClient::new(client.clone()),
            husk: husk_ttrpc::AgentClient::new(client),
            is_husk: Arc::default(),
            fate,
        }
    }

    /// The generated client, for calls that have no method here.
    pub fn service(&self) -> &AgentServiceClient {
        &self.agent
    }

    /// The generated health client.
    pub fn health(&self) -> &HealthClient {
        &self.health
    }

    /// The generated client of our own service.
    pub fn husk(&self) -> &husk_ttrpc::AgentClient {
        &self.husk
    }

    /// Whether the agent is one of ours and serves `husk.agent.v1`: its version says so.
    pub async fn is_husk(&self) -> Result<bool, Error> {
        let ask = async || {
            let request = CheckRequest::new();
            let version = self
                .call("Version", "agent", Some(QUICK), |ctx| async {
                    self.health.version(ctx, &request).await
                })
                .await?;
            Ok(stdio::is_announced(&version.agent_version))
        };
        self.is_husk.get_or_try_init(ask).await.copied()
    }

    /// `Health.Check`.
    pub async fn check(&self) -> Result<(), Error> {
        let request = CheckRequest::new();
        self.call("Check", "agent", Some(QUICK), |ctx| async { self.health.check(ctx, &request).await })
            .await?;
        Ok(())
    }

    /// `CreateSandbox`.
    pub async fn create_sandbox(&self, request: &CreateSandboxRequest) -> Result<(), Error> {
        let object = &request.sandbox_id;
        self.call("CreateSandbox", object, Some(SLOW), |ctx| self.agent.create_sandbox(ctx, request)).await?;
        Ok(())
    }

    /// `DestroySandbox`: the guest powers off after its answer, so a lost connection is an answer too.
    pub async fn destroy_sandbox(&self) -> Result<(), Error> {
        let request = DestroySandboxRequest::new();
        let call = self
            .call("DestroySandbox", "sandbox", Some(SLOW), |ctx| self.agent.destroy_sandbox(ctx, &request));
        match call.await {
            Ok(_) | Err(Error::Gone { .. } | Error::Lost { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// `CreateContainer`.
    pub async fn create_container(&self, request: &CreateContainerRequest) -> Result<(), Error> {
        let object = &request.container_id;
        self.call("CreateContainer", object, Some(SLOW), |ctx| self.agent.create_container(ctx, request))
            .await?;
        Ok(())
    }

    /// `StartContainer`.
    pub async fn start_container(&self, container: &str) -> Result<(), Error> {
        let request = StartContainerRequest { container_id: container.into(), ..Default::default() };
        self.call("StartContainer", container, Some(SLOW), |ctx| self.agent.start_container(ctx, &request))
            .await?;
        Ok(())
    }

    /// `RemoveContainer`.
    pub async fn remove_container(&self, container: &str) -> Result<(), Error> {
        let request = RemoveContainerRequest { container_id: container.into(), ..Default::default() };
        self.call("RemoveContainer", container, Some(SLOW), |ctx| self.agent.remove_container(ctx, &request))
            .await?;
        Ok(())
    }

    /// `ExecProcess`.
    pub async fn exec_process(&self, request: &ExecProcessRequest) -> Result<(), Error> {
        let object = &request.container_id;
        self.call("ExecProcess", object, Some(SLOW), |ctx| self.agent.exec_process(ctx, request)).await?;
        Ok(())
    }

    /// `SignalProcess`.
    pub async fn signal(&self, target: &Target, signal: u32) -> Result<(), Error> {
        let request = SignalProcessRequest {
            container_id: target.container.clone(),
            exec_id: target.exec_id.clone(),
            signal,
            ..Default::default()
        };
        let object = &target.container;
        self.call("SignalProcess", object, Some(QUICK), |ctx| self.agent.signal_process(ctx, &request))
            .await?;
        Ok(())
    }

    /// `WaitProcess`: as long as it takes. The exit code, or 128 and the signal.
    pub async fn wait(&self, target: &Target) -> Result<i32, Error> {
        let request = WaitProcessRequest {
            container_id: target.container.clone(),
            exec_id: target.exec_id.clone(),
            ..Default::default()
        };
        let answer = self
            .call("WaitProcess", &target.container, None, |ctx| self.agent.wait_process(ctx, &request))
            .await?;
        Ok(answer.status)
    }

    /// `ReadStdout` or `ReadStderr`: as long as it takes. Empty at the end.
    pub async fn read(&self, target: &Target, stream: Stream) -> Result<Vec<u8>, Error> {
        let request = ReadStreamRequest {
            container_id: target.container.clone(),
            exec_id: target.exec_id.clone(),
            len: READ,
            ..Default::default()
        };
        let object = &target.container;
        let answer = match stream {
            Stream::Stdout => {
                self.call("ReadStdout", object, None, |ctx| self.agent.read_stdout(ctx, &request)).await
            }
            Stream::Stderr => {
                self.call("ReadStderr", object, None, |ctx| self.agent.read_stderr(ctx, &request)).await
            }
        };
        Ok(answer?.data)
    }

    /// `WriteStdin`: blocks while the process does not read.
    pub async fn write(&self, target: &Target, data: Vec<u8>) -> Result<u32, Error> {
        let request = WriteStreamRequest {
            container_id: target.container.clone(),
            exec_id: target.exec_id.clone(),
            data,
            ..Default::default()
        };
        let answer = self
            .call("WriteStdin", &target.container, None, |ctx| self.agent.write_stdin(ctx, &request))
            .await?;
        Ok(answer.len)
    }

    /// `CloseStdin`.
    pub async fn close_stdin(&self, target: &Target) -> Result<(), Error> {
        let request = CloseStdinRequest {
            container_id: target.container.clone(),
            exec_id: target.exec_id.clone(),
            ..Default::default()
        };
        let object = &target.container;
        self.call("CloseStdin", object, Some(QUICK), |ctx| self.agent.close_stdin(ctx, &request)).await?;
        Ok(())
    }

    /// `TtyWinResize`.
    pub async fn resize(&self, target: &Target, rows: u16, columns: u16) -> Result<(), Error> {
        let request = TtyWinResizeRequest {
            container_id: target.container.clone(),
            exec_id: target.exec_id.clone(),
            row: rows.into(),
            column: columns.into(),
            ..Default::default()
        };
        let object = &target.container;
        self.call("TtyWinResize", object, Some(QUICK), |ctx| self.agent.tty_win_resize(ctx, &request))
            .await?;
        Ok(())
    }

    /// One call with its deadline, ended by the VM's end.
    pub(crate) async fn call<T, F>(
        &self,
        call: &'static str,
        object: &str,
        limit: Option<Duration>,
        send: impl FnOnce(Context) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = ttrpc::Result<T>>,
    {
        let ctx = limit.map_or_else(Context::default, context::with_duration);
        let answer = send(ctx);
        let object = || printable(object);
        // The RPC's own deadline answers first; this one also covers a writer that is stuck.
        let limited = async {
            match limit {
                Some(limit) => tokio::time::timeout(limit + Duration::from_secs(1), answer).await.ok(),
                None => Some(answer.await),
            }
        };
        let done = match &self.fate {
            Some(fate) => {
                fate.guard(limited).await.map_err(|gone| Error::Gone { call, object: object(), gone })?
            }
            None => limited.await,
        };
        let late = |limit| Error::Late { call, object: object(), limit };
        let error = match done {
            Some(Ok(answer)) => return Ok(answer),
            None => return Err(late(limit.unwrap_or_default())),
            Some(Err(error)) => error,
        };
        match (error, limit) {
            (ttrpc::Error::RpcStatus(status), _) => Err(Error::Refused {
                call,
                object: object(),
                code: status.code(),
                message: printable(status.message()),
            }),
            (ttrpc::Error::Others(text), Some(limit)) if text.contains("deadline elapsed") => {
                Err(late(limit))
            }
            (error, _) => Err(self.lost(call, object(), error).await),
        }
    }

    /// A broken connection is often the first sign of a VM that is dying: its own reason says more.
    async fn lost(&self, call: &'static str, object: String, error: ttrpc::Error) -> Error {
        if let Some(fate) = &self.fate
            && let Ok(gone) = tokio::time::timeout(Duration::from_secs(3), fate.gone()).await
        {
            return Error::Gone { call, object, gone };
        }
        let cause = match error {
            ttrpc::Error::RemoteClosed | ttrpc::Error::LocalClosed | ttrpc::Error::Eof => {
                "the connection is closed".into()
            }
            other => printable(&other.to_string()),
        };
        Error::Lost { call, object, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(message: &str) -> Error {
        let message = message.to_string();
        Error::Refused { call: "CreateContainer", object: "c1".into(), code: ttrpc::Code::INTERNAL, message }
    }

    #[test]
    fn a_command_that_cannot_run_has_its_shell_code() {
        let cases = [
            ("exec: \"nosuch\": no such file or directory", Some(127)),
            ("process: exec: \"/etc/passwd\": permission denied", Some(126)),
            ("mount /proc: permission denied", None),
            ("exec: \"x\": exec format error", None),
        ];
        for (message, code) in cases {
            assert_eq!(refused(message).exec_code(), code, "{message}");
        }
    }

    #[test]
    fn an_error_names_call_and_object() {
        assert_eq!(refused("exec: \"x\": no").to_string(), "CreateContainer: c1: exec: \"x\": no");
    }
}
