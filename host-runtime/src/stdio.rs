//! A process's output and input, by the best way that the agent in the guest offers.
//!
//! An agent of ours has a long stream for each (`husk.agent.v1`), any other a call for each piece. What a stream may
//! have on its way is bounded by credit, which the guest has to keep to and is cut off if it does not: ttrpc's client
//! would queue whatever comes. So each stream has a task that takes everything at once, and counts.

use agent_api::husk::{InputCredit, InputRequest, OutputChunk, OutputRequest, Stream as Which};
use agent_api::stdio::{MAX_CHUNK, MIN_COST, OUTPUT_CREDIT, cost};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use ttrpc::r#async::{CSReceiver, CSSender};
use ttrpc::context::Context;

use crate::agent::{Client, Error, Stream, Target};

/// How much a reader takes before the guest hears of it: fewer messages, and the stream never runs dry.
const RENEW: usize = OUTPUT_CREDIT as usize / 4;

impl Client {
    /// A reader of an output of a process.
    pub async fn reader(&self, target: &Target, stream: Stream) -> Result<Reader, Error> {
        if !self.is_husk().await? {
            return Ok(Reader::Calls { client: self.clone(), target: target.clone(), stream });
        }
        let requests =
            self.call("Output", &target.container, None, |_| self.husk().output(Context::default())).await?;
        let first = OutputRequest {
            container_id: target.container.clone(),
            exec_id: target.exec_id.clone(),
            stream: match stream {
                Stream::Stdout => Which::STDOUT,
                Stream::Stderr => Which::STDERR,
            }
            .into(),
            credit: OUTPUT_CREDIT,
            ..Default::default()
        };
        let (requests, replies) = requests.split();
        let (chunks, inbox) = mpsc::unbounded_channel();
        let (taken, takings) = mpsc::unbounded_channel();
        let (credits, grants) = mpsc::unbounded_channel();
        let (client, object) = (self.clone(), target.container.clone());
        tokio::spawn(async move {
            let receiving = Receiving { client, object, replies, chunks, takings };
            tokio::join!(receiving.run(credits), grant(requests, first, grants));
        });
        Ok(Reader::Stream { inbox, taken })
    }

    /// A writer to a process's input.
    pub async fn writer(&self, target: &Target) -> Result<Writer, Error> {
        if !self.is_husk().await? {
            return Ok(Writer::Calls { client: self.clone(), target: target.clone() });
        }
        let object = target.container.clone();
        let stream = self.call("Input", &object, None, |_| self.husk().input(Context::default())).await?;
        let (requests, replies) = stream.split();
        let first = InputRequest {
            container_id: target.container.clone(),
            exec_id: target.exec_id.clone(),
            ..Default::default()
        };
        self.call("Input", &object, None, |_| requests.send(&first)).await?;
        let (total, granted) = watch::channel(0);
        let ended = tokio::spawn(credited(self.clone(), object.clone(), replies, total));
        Ok(Writer::Stream(InputStream { client: self.clone(), object, requests, granted, used: 0, ended }))
    }
}

/// Reads what a process writes.
#[derive(Debug)]
pub enum Reader {
    /// From a stream, whose task hears what was taken.
    Stream {
        /// What came.
        inbox: mpsc::UnboundedReceiver<Result<Vec<u8>, Error>>,
        /// What was taken of it.
        taken: mpsc::UnboundedSender<usize>,
    },
    /// By `ReadStdout` and `ReadStderr`.
    Calls {
        /// Of this agent.
        client: Client,
        /// Whose output.
        target: Target,
        /// Which.
        stream: Stream,
    },
}

impl Reader {
    /// The next output; empty at the end.
    pub async fn next(&mut self) -> Result<Vec<u8>, Error> {
        match self {
            Reader::Calls { client, target, stream } => client.read(target, *stream).await,
            Reader::Stream { inbox, taken } => {
                let Some(chunk) = inbox.recv().await else { return Ok(Vec::new()) };
                let data = chunk?;
                // Its end is known by then: the next read says so.
                let _ = taken.send(cost(data.len()));
                Ok(data)
            }
        }
    }
}

/// The side of an output's stream that hears the guest.
struct Receiving {
    client: Client,
    object: String,
    replies: CSReceiver<OutputChunk>,
    chunks: mpsc::UnboundedSender<Result<Vec<u8>, Error>>,
    takings: mpsc::UnboundedReceiver<usize>,
}

impl Receiving {
    /// Takes what comes until the end, an error, or the reader's leaving.
    async fn run(mut self, credits: mpsc::UnboundedSender<u32>) {
        let (mut left, mut owed) = (OUTPUT_CREDIT as usize, 0);
        loop {
            tokio::select! {
                chunk = self.client.call("Output", &self.object, None, |_| self.replies.recv()) => {
                    let chunk = match chunk {
                        Ok(chunk) if chunk.end => return,
                        Ok(chunk) if chunk.data.is_empty() => continue,
                        Ok(chunk) => match left.checked_sub(cost(chunk.data.len())) {
                            Some(rest) => {
                                left = rest;
                                Ok(chunk.data)
                            }
                            None => Err(self.too_much()),
                        },
                        Err(error) => Err(error),
                    };
                    let over = chunk.is_err();
                    if self.chunks.send(chunk).is_err() || over {
                        return;
                    }
                }
                size = self.takings.recv() => {
                    let Some(size) = size else { return };
                    owed += size;
                    if owed >= RENEW {
                        let _ = credits.send(owed as u32);
                        left += std::mem::take(&mut owed);
                    }
                }
            }
        }
    }

    fn too_much(&self) -> Error {
        let cause = "the agent sent more than it was asked for".into();
        Error::Lost { call: "Output", object: self.object.clone(), cause }
    }
}

/// The side of an output's stream that the guest hears. It is apart, so that a guest that does not listen cannot keep
/// us from counting what it sends. The stream is closed when there are no more credits to come.
async fn grant(
    requests: CSSender<OutputRequest>,
    first: OutputRequest,
    mut credits: mpsc::UnboundedReceiver<u32>,
) {
    let mut sent = requests.send(&first).await;
    while let (Ok(()), Some(credit)) = (&sent, credits.recv().await) {
        sent = requests.send(&OutputRequest { credit, ..Default::default() }).await;
    }
    // The connection is gone if this fails, and the stream with it.
    let _ = requests.close_send().await;
}

/// Writes what a process reads.
#[derive(Debug)]
pub enum Writer {
    /// To a stream.
    Stream(InputStream),
    /// By `WriteStdin`.
    Calls {
        /// Of this agent.
        client: Client,
        /// Whose input.
        target: Target,
    },
}

/// A process's input as one stream.
#[derive(Debug)]
pub struct InputStream {
    client: Client,
    object: String,
    requests: CSSender<InputRequest>,
    /// All credit so far.
    granted: watch::Receiver<u64>,
    used: u64,
    ended: JoinHandle<Result<(), Error>>,
}

impl Writer {
    /// Writes all of it, waiting while the process does not read.
    pub async fn write(&mut self, data: Vec<u8>) -> Result<(), Error> {
        match self {
            Writer::Stream(stream) => stream.write(&data).await,
            Writer::Calls { client, target } => match client.write(target, data.clone()).await? {
                written if written as usize == data.len() => Ok(()),
                written => {
                    let cause = format!("{written} of {} bytes were written", data.len());
                    Err(Error::Lost { call: "WriteStdin", object: target.container.clone(), cause })
                }
            },
        }
    }

    /// Ends the process's input.
    pub async fn close(self) -> Result<(), Error> {
        match self {
            Writer::Stream(stream) => stream.close().await,
            Writer::Calls { client, target } => client.close_stdin(&target).await,
        }
    }
}

impl InputStream {
    async fn write(&mut self, mut data: &[u8]) -> Result<(), Error> {
        while !data.is_empty() {
            let used = self.used;
            let enough = self.granted.wait_for(|granted| granted.saturating_sub(used) >= MIN_COST as u64);
            let granted = enough.await.map(|granted| *granted).ok();
            let Some(granted) = granted else { return Err(self.why_ended().await) };
            let credit = usize::try_from(granted - used).unwrap_or(usize::MAX);
            let (piece, rest) = data.split_at(data.len().min(credit).min(MAX_CHUNK));
            let request = InputRequest { data: piece.to_vec(), ..Default::default() };
            self.client.call("Input", &self.object, None, |_| self.requests.send(&request)).await?;
            self.used += cost(piece.len()) as u64;
            data = rest;
        }
        Ok(())
    }

    async fn close(mut self) -> Result<(), Error> {
        self.client.call("Input", &self.object, None, |_| self.requests.close_send()).await?;
        match (&mut self.ended).await {
            Ok(ended) => ended,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    async fn why_ended(&mut self) -> Error {
        match (&mut self.ended).await {
            Ok(Err(error)) => error,
            _ => Error::Lost {
                call: "Input",
                object: self.object.clone(),
                cause: "the stream is closed".into(),
            },
        }
    }
}

impl Drop for InputStream {
    fn drop(&mut self) {
        self.ended.abort();
    }
}

/// Adds up what the guest grants, until it ends the stream.
async fn credited(
    client: Client,
    object: String,
    mut replies: CSReceiver<InputCredit>,
    total: watch::Sender<u64>,
) -> Result<(), Error> {
    loop {
        let reply = client.call("Input", &object, None, |_| async {
            match replies.recv().await {
                Err(ttrpc::Error::Eof) => Ok(None),
                reply => reply.map(Some),
            }
        });
        match reply.await? {
            Some(reply) => {
                total.send_modify(|granted| *granted = granted.saturating_add(reply.credit.into()))
            }
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "stdio_tests.rs"]
mod tests;
