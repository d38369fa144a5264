//! Streaming stdio: a process's output and input as long streams instead of a call for each piece.
//!
//! Credit decides who may send. ttrpc itself sets no limit: its client queues whatever arrives, and its server holds
//! each message that a handler has not taken in a task of its own. So the receiver of data says how much it will hold
//! (`agent_api::stdio`), a sender without credit waits, and its process with it, while all other streams of the
//! connection go on. The agent has at most one chunk of each output in its hands, and of each input as much as it
//! granted.
//!
//! ttrpc does not tell a handler that its connection is gone either: only sending fails. A stream with nothing to send
//! therefore sends an empty message now and then.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent_api::husk::{InputCredit, InputRequest, OutputChunk, OutputRequest};
use agent_api::stdio::{INPUT_CREDIT, MAX_CHUNK, MIN_COST, cost};
use tokio::sync::mpsc;
use ttrpc::r#async::{SSReceiver, ServerStream};

use crate::process::Process;
use crate::stream::{Output, WriteError};

/// How often a silent stream looks whether its client is still there.
const PROBE: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(10) };

/// A stream ended before its data did.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("stdin: a message of {size} bytes came where credit for {left} was left")]
    Overrun { size: usize, left: usize },
    #[error("read: {0}")]
    Read(#[source] io::Error),
    #[error("stdin: {0}")]
    Write(#[from] WriteError),
    #[error("stdin: close: {0}")]
    Close(#[source] io::Error),
    #[error("stream: {0}")]
    Stream(#[from] ttrpc::Error),
}

/// Sends what a process writes, as far as the client's credit goes, until the output ends or the client leaves.
pub(crate) async fn output(
    process: &Process,
    output: &Output,
    credit: u32,
    stream: ServerStream<OutputChunk, OutputRequest>,
) -> Result<(), Error> {
    let (chunks, mut requests) = stream.split();
    let mut credit = credit as usize;
    loop {
        let data = tokio::select! {
            // First of all: a client that leaves must not be sent what somebody else could still read.
            biased;
            request = requests.recv() => match request? {
                Some(request) => {
                    credit = credit.saturating_add(request.credit as usize);
                    continue;
                }
                None => return Ok(()),
            },
            data = output.read(credit.min(MAX_CHUNK), &process.exit), if credit >= MIN_COST => {
                data.map_err(Error::Read)?
            }
            () = tokio::time::sleep(PROBE) => {
                chunks.send(&OutputChunk::new()).await?;
                continue;
            }
        };
        if data.is_empty() {
            chunks.send(&OutputChunk { end: true, ..Default::default() }).await?;
            return closed(requests).await;
        }
        credit -= cost(data.len());
        let chunk = OutputChunk { data, ..Default::default() };
        if let Err(error) = chunks.send(&chunk).await {
            output.unread(chunk.data);
            return Err(error.into());
        }
    }
}

/// Waits until the client has closed its side, for as long as one may reasonably take.
async fn closed(mut requests: SSReceiver<OutputRequest>) -> Result<(), Error> {
    let closed = async {
        while requests.recv().await?.is_some() {}
        Ok(())
    };
    tokio::time::timeout(PROBE, closed).await.unwrap_or(Ok(()))
}

/// Writes what the client sends to a process, until the client closes its side, the process ends or the stream breaks.
pub(crate) async fn input(
    process: &Process,
    stream: ServerStream<InputCredit, InputRequest>,
) -> Result<(), Error> {
    let (credits, requests) = stream.split();
    let grant = async |credit: u32| credits.send(&InputCredit { credit, ..Default::default() }).await;
    let left = AtomicUsize::new(INPUT_CREDIT as usize);
    // Bounded by the credit, which counts messages too.
    let (queue, mut queued) = mpsc::unbounded_channel();
    let stdin = &process.streams.stdin;
    let write = async {
        grant(INPUT_CREDIT).await?;
        loop {
            let Ok(data) = tokio::time::timeout(PROBE, queued.recv()).await else {
                grant(0).await?;
                continue;
            };
            let Some(data): Option<Vec<u8>> = data else { break };
            stdin.write(&data, &process.exit).await?;
            let credit = cost(data.len());
            left.fetch_add(credit, Ordering::Relaxed);
            grant(credit as u32).await?;
        }
        stdin.close(&process.exit).await.map_err(Error::Close)
    };
    tokio::select! {
        done = async { tokio::try_join!(receive(requests, queue, &left), write) } => done.map(drop),
        _ = process.exit.wait() => Err(WriteError::Ended.into()),
    }
}

/// Takes the client's messages as they come, whether the process reads or not.
async fn receive(
    mut requests: SSReceiver<InputRequest>,
    queue: mpsc::UnboundedSender<Vec<u8>>,
    left: &AtomicUsize,
) -> Result<(), Error> {
    while let Some(InputRequest { data, .. }) = requests.recv().await? {
        if data.is_empty() {
            continue;
        }
        let (size, credit) = (data.len(), left.load(Ordering::Relaxed));
        let rest = credit.checked_sub(cost(size)).ok_or(Error::Overrun { size, left: credit })?;
        left.store(rest, Ordering::Relaxed);
        // The writer has ended: its own error says why.
        if queue.send(data).is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "stdio_tests.rs"]
mod tests;
