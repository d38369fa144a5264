//! Many streams over one serial port: yamux towards the guest, the hybrid handshake towards our own clients.
//!
//! One task owns the yamux connection. A client of the unix socket asks for a port; we open a stream, ask the guest
//! in the same words, and splice. What a hostile guest can make us hold is bounded: it may not open streams, a frame
//! is at most 1 MiB, all windows together at most [`WINDOW`], a handshake line at most 32 bytes.

use std::io;
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use agent_api::connect;
use futures::future::poll_fn;
use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, Mode, Stream};

use super::{HANDSHAKE, Line, read_line};

/// The most streams at a time: a handful per `husk exec`.
const STREAMS: usize = 128;
/// Bytes we may have to hold for slow readers, over all streams.
const WINDOW: usize = 64 << 20;
const COPY_BUFFER: usize = 64 << 10;

/// A running multiplexer. Dropping it ends every stream.
#[derive(Debug)]
pub(crate) struct Mux {
    task: JoinHandle<()>,
    ended: watch::Receiver<Option<String>>,
}

impl Mux {
    /// Serves `socket` with streams over `serial`.
    pub(crate) fn start(serial: UnixStream, socket: &Path) -> io::Result<Mux> {
        let listener = UnixListener::bind(socket)?;
        let (end, ended) = watch::channel(None);
        let task = tokio::spawn(async move {
            let reason = run(serial, listener).await;
            end.send_replace(Some(reason));
        });
        Ok(Mux { task, ended })
    }

    /// Waits for the end of the channel to the guest and says why it ended.
    pub(crate) fn ended(&self) -> impl Future<Output = String> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            let reason = match ended.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or_default(),
                Err(_) => "stopped".into(),
            };
            format!("channel to the guest: {reason}")
        }
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Request = oneshot::Sender<yamux::Result<Stream>>;

async fn run(serial: UnixStream, listener: UnixListener) -> String {
    let (requests, inbox) = mpsc::channel(STREAMS);
    let mut clients = JoinSet::new();
    let driver = drive(serial, inbox);
    tokio::pin!(driver);
    loop {
        tokio::select! {
            reason = &mut driver => return reason,
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => { clients.spawn(serve(client, requests.clone())); }
                // Out of descriptors, most likely: the client in the queue waits for better times.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

/// Owns the connection: moves its frames, opens what is asked for, refuses what the guest opens.
async fn drive(serial: UnixStream, mut inbox: mpsc::Receiver<Request>) -> String {
    let mut config = Config::default();
    config.set_max_num_streams(STREAMS);
    config.set_max_connection_receive_window(Some(WINDOW));
    let mut connection = Connection::new(serial.compat(), config, Mode::Client);
    let mut waiting: Option<Request> = None;
    poll_fn(move |cx| {
        loop {
            match connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(uninvited))) => {
                    drop(uninvited);
                    continue;
                }
                Poll::Ready(Some(Err(e))) => return Poll::Ready(e.to_string()),
                Poll::Ready(None) => return Poll::Ready("closed by the guest".into()),
                Poll::Pending => {}
            }
            if waiting.is_none() {
                match inbox.poll_recv(cx) {
                    Poll::Ready(Some(request)) => waiting = Some(request),
                    Poll::Ready(None) | Poll::Pending => return Poll::Pending,
                }
            }
            match connection.poll_new_outbound(cx) {
                Poll::Ready(opened) => {
                    if let Some(request) = waiting.take() {
                        let _ = request.send(opened);
                    }
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// One client of the unix socket. Every failure ends in closing it, which is how a port is refused.
async fn serve(mut client: UnixStream, requests: mpsc::Sender<Request>) -> io::Result<()> {
    let shake = async {
        let Line::Text(line) = read_line(&mut client).await? else { return Ok(None) };
        let Some(port) = connect::parse_request(&line) else { return Ok(None) };
        let (request, opened) = oneshot::channel();
        requests.send(request).await.map_err(io::Error::other)?;
        let mut stream = opened.await.map_err(io::Error::other)?.map_err(io::Error::other)?.compat();
        stream.write_all(connect::request(port).as_bytes()).await?;
        stream.flush().await?;
        match read_line(&mut stream).await? {
            Line::Text(answer) if connect::is_grant(&answer) => {
                client.write_all(connect::grant(port).as_bytes()).await?;
                Ok(Some(stream))
            }
            _ => Ok(None),
        }
    };
    let shaken: io::Result<_> = tokio::time::timeout(HANDSHAKE, shake).await?;
    let Some(mut stream) = shaken? else { return Ok(()) };
    copy_bidirectional_with_sizes(&mut client, &mut stream, COPY_BUFFER, COPY_BUFFER).await?;
    Ok(())
}

#[cfg(test)]
#[path = "mux_tests.rs"]
mod tests;
