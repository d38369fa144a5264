//! `husk.agent.v1.Agent`: what our own host asks for beyond the protocol of peers.

use std::sync::Arc;
use std::time::Duration;

use agent_api::husk::*;
use agent_api::husk_ttrpc;
use async_trait::async_trait;
use ttrpc::Result;
use ttrpc::r#async::{ServerStream, TtrpcContext};

use super::status::{internal, invalid_argument, lookup, refreshing, streaming};
use crate::container;
use crate::guest::Guest;
use crate::process::Process;
use crate::{refresh, stdio, timeline};

/// How long a new stream may take to say what it is for.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);

pub(super) struct HuskService {
    guest: Arc<Guest>,
}

impl HuskService {
    pub(super) fn new(guest: Arc<Guest>) -> Self {
        Self { guest }
    }

    fn process(&self, container: &str, id: &str) -> std::result::Result<Arc<Process>, container::Error> {
        let found = self.guest.containers.get(container);
        found.ok_or_else(|| container::Error::Unknown(container.to_string()))?.process(id)
    }
}

#[async_trait]
impl husk_ttrpc::Agent for HuskService {
    async fn output(
        &self,
        _: &TtrpcContext,
        mut stream: ServerStream<OutputChunk, OutputRequest>,
    ) -> Result<()> {
        let request = first(stream.recv()).await?;
        let process = self.process(&request.container_id, &request.exec_id).map_err(lookup)?;
        let output = match request.stream.enum_value() {
            Ok(Stream::STDOUT) => &process.streams.stdout,
            Ok(Stream::STDERR) => process
                .streams
                .stderr
                .as_ref()
                .ok_or_else(|| internal("stderr: a process with a terminal has none"))?,
            Err(number) => return Err(invalid_argument(format!("stream: {number} is not one"))),
        };
        stdio::output(&process, output, request.credit, stream).await.map_err(streaming)
    }

    async fn input(
        &self,
        _: &TtrpcContext,
        mut stream: ServerStream<InputCredit, InputRequest>,
    ) -> Result<()> {
        let request = first(stream.recv()).await?;
        let process = self.process(&request.container_id, &request.exec_id).map_err(lookup)?;
        stdio::input(&process, stream).await.map_err(streaming)
    }

    async fn get_timeline(&self, _: &TtrpcContext, _: GetTimelineRequest) -> Result<Timeline> {
        let stamps = timeline::stamps().into_iter().map(|stamp| Stamp {
            step: stamp.step.to_string(),
            nanoseconds: stamp.nanoseconds,
            ..Default::default()
        });
        Ok(Timeline { stamps: stamps.collect(), ..Default::default() })
    }

    async fn refresh(&self, _: &TtrpcContext, request: RefreshRequest) -> Result<RefreshResponse> {
        let applied = tokio::task::spawn_blocking(move || refresh::apply(&request)).await;
        let applied = applied.map_err(internal)?.map_err(refreshing)?;
        let applied = applied.into_iter().map(str::to_string).collect();
        Ok(RefreshResponse { applied, ..Default::default() })
    }
}

/// The message that says what a stream is for.
async fn first<T>(message: impl Future<Output = Result<Option<T>>>) -> Result<T> {
    let message = tokio::time::timeout(FIRST_MESSAGE, message).await;
    message
        .ok()
        .transpose()?
        .flatten()
        .ok_or_else(|| invalid_argument("the stream's first message is missing"))
}
