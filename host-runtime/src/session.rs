//! One process of the guest with our stdin, stdout, stderr, terminal and signals, until it has ended.
//!
//! Output is read to its end before the exit code is asked for: the agent forgets a process once its code was given.
//! Our own descriptors are read and written by plain threads, since they may be files, pipes, or a terminal shared
//! with others that must not be switched to non-blocking mode.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::agent::{Client, Error, Stream, Target};
use crate::signals::{Signals, Told};
use crate::terminal::{self, RawMode};

/// Bytes of stdin per write: large for throughput, well below a frame's limit.
const WRITE: usize = 512 << 10;
/// Bytes per read of our own stdin.
const CHUNK: usize = 64 << 10;
/// Chunks under way between a thread and a call.
const QUEUE: usize = 8;

/// How a process is attached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attach {
    /// It has a terminal.
    pub(crate) terminal: bool,
    /// It gets our stdin.
    pub(crate) interactive: bool,
}

/// A task that does not outlive its handle.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Attaches to a process that runs, or is about to, and stays until it has ended. Returns its exit code.
pub(crate) async fn attend(
    client: &Client,
    target: &Target,
    attach: Attach,
    signals: &mut Signals,
) -> Result<i32, Error> {
    let raw = if attach.terminal && attach.interactive { RawMode::enter().ok().flatten() } else { None };
    let stdin = Task(tokio::spawn(feed(client.clone(), target.clone(), attach)));
    let mut stdout = Task(tokio::spawn(drain(client.clone(), target.clone(), Stream::Stdout)));
    let mut stderr =
        (!attach.terminal).then(|| Task(tokio::spawn(drain(client.clone(), target.clone(), Stream::Stderr))));

    let ended = async {
        finished(&mut stdout).await?;
        if let Some(stderr) = &mut stderr {
            finished(stderr).await?;
        }
        client.wait(target).await
    };
    tokio::pin!(ended);
    let code = loop {
        tokio::select! {
            code = &mut ended => break code,
            told = signals.next() => forward(client, target, attach, told).await?,
        }
    };
    drop(stdin);
    drop(raw);
    code
}

/// Hands a signal or a new size on. A process that has just ended needs neither.
async fn forward(client: &Client, target: &Target, attach: Attach, told: Told) -> Result<(), Error> {
    let done = match told {
        Told::Forward(signal) => client.signal(target, signal).await,
        Told::Resized if attach.terminal => match terminal::size() {
            Some((rows, columns)) => client.resize(target, rows, columns).await,
            None => Ok(()),
        },
        Told::Resized => Ok(()),
    };
    match done {
        Ok(()) | Err(Error::Refused { .. }) => Ok(()),
        Err(e) => Err(e),
    }
}

async fn finished(task: &mut Task<Result<(), Error>>) -> Result<(), Error> {
    match (&mut task.0).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Guest output to ours, to its end. A reader of ours that went away is told to the workload as a pipe would.
async fn drain(client: Client, target: Target, stream: Stream) -> Result<(), Error> {
    let (chunks, written) = writer(stream);
    let mut reader = client.reader(&target, stream).await?;
    let mut open = true;
    loop {
        let data = reader.next().await?;
        if data.is_empty() {
            break;
        }
        if open && chunks.send(data).await.is_err() {
            open = false;
            let _ = client.signal(&target, Signal::SIGPIPE as u32).await;
            // The first process of a container ignores what it has no handler for, SIGTERM excepted.
            if target.exec_id.is_empty() {
                let _ = client.signal(&target, Signal::SIGTERM as u32).await;
            }
        }
    }
    drop(chunks);
    let _ = written.await;
    Ok(())
}

/// A thread that writes to our stdout or stderr; the receiver resolves when all is written.
fn writer(stream: Stream) -> (mpsc::Sender<Vec<u8>>, oneshot::Receiver<()>) {
    let (chunks, mut inbox) = mpsc::channel::<Vec<u8>>(QUEUE);
    let (done, written) = oneshot::channel();
    std::thread::spawn(move || {
        let fd = match stream {
            Stream::Stdout => io::stdout().as_fd().try_clone_to_owned(),
            Stream::Stderr => io::stderr().as_fd().try_clone_to_owned(),
        };
        if let Ok(fd) = fd {
            let mut out = File::from(fd);
            while let Some(chunk) = inbox.blocking_recv() {
                if write_all(&mut out, &chunk).is_err() {
                    break;
                }
            }
        }
        let _ = done.send(());
    });
    (chunks, written)
}

/// Like `Write::write_all`, but patient with a descriptor somebody else has made non-blocking.
fn write_all(out: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Our stdin to the guest's, then its end. A process that does not read any more, or has gone, ends it early.
async fn feed(client: Client, target: Target, attach: Attach) {
    if attach.interactive {
        let Ok(mut writer) = client.writer(&target).await else { return };
        let mut chunks = reader();
        while let Some(mut data) = chunks.recv().await {
            while data.len() < WRITE - CHUNK
                && let Ok(more) = chunks.try_recv()
            {
                data.extend_from_slice(&more);
            }
            if writer.write(data).await.is_err() {
                return;
            }
        }
        let _ = writer.close().await;
        return;
    } else if attach.terminal {
        // Nobody will type; the terminal stays open all the same.
        return;
    }
    let _ = client.close_stdin(&target).await;
}

/// A thread that reads our stdin until its end or until nobody listens.
fn reader() -> mpsc::Receiver<Vec<u8>> {
    let (chunks, inbox) = mpsc::channel(QUEUE);
    std::thread::spawn(move || {
        let Ok(fd) = io::stdin().as_fd().try_clone_to_owned() else { return };
        let mut input = File::from(fd);
        let mut buffer = vec![0; CHUNK];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => {
                    if chunks.blocking_send(buffer[..read].to_vec()).is_err() {
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(5))
                }
                Err(_) => return,
            }
        }
    });
    inbox
}
