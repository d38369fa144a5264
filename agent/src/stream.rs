//! The standard streams of one process: the agent's ends of its pipes or of its terminal.
//!
//! The end of output is what callers depend on most: they ask for the exit status only after both streams have ended.
//! So a stream ends when the process has ended and what it wrote is read, even if a background child keeps the pipe
//! open, and once it has ended it stays so. Nothing is timed: after the exit a read that would block *is* the end,
//! because a pipe holds all that was written to it, and the read of a terminal's master first pushes through what its
//! slave side has written (`n_tty_read` in the kernel's `drivers/tty/n_tty.c`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::termios::{LocalFlags, SpecialCharacterIndices, tcgetattr};
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;

use crate::reaper::Exit;

/// A descriptor that both directions of a terminal share.
#[derive(Clone)]
pub(crate) struct Channel(Arc<AsyncFd<OwnedFd>>);

impl Channel {
    /// Takes the agent's end of a pipe or the master of a terminal.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self(Arc::new(crate::sys::watch(fd)?)))
    }

    /// Sets the window size, if this is a terminal.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> nix::Result<()> {
        crate::sys::set_window_size(self.0.get_ref().as_fd(), rows, columns)
    }
}

/// What a process writes.
pub(crate) struct Output {
    channel: Channel,
    ended: AtomicBool,
    /// What was read and reached nobody.
    unread: StdMutex<Vec<u8>>,
}

/// The least that is made room for: a terminal may have output on its way that it does not count yet.
const LITTLE: usize = 4096;

impl Output {
    pub(crate) fn new(channel: Channel) -> Self {
        Self { channel, ended: AtomicBool::new(false), unread: StdMutex::default() }
    }

    /// The next output, at most `limit` bytes; empty at the end. Waits while the process lives and is silent.
    pub(crate) async fn read(&self, limit: usize, exit: &Exit) -> io::Result<Vec<u8>> {
        if limit == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a read of 0 bytes would look like the end",
            ));
        }
        loop {
            if let Some(unread) = self.take_unread(limit) {
                return Ok(unread);
            }
            if self.ended.load(Ordering::Relaxed) {
                return Ok(Vec::new());
            }
            // In this order: output that a process wrote before its exit is in the pipe by the time the exit is known.
            let exited = exit.status().is_some();
            let fd = self.channel.0.get_ref();
            // Room for what is there: callers ask for far more than most processes write at a time.
            let size = limit.min(crate::sys::readable_bytes(fd.as_fd()).max(LITTLE));
            let mut buffer = vec![0; size];
            match nix::unistd::read(fd, &mut buffer) {
                // EIO: every slave side of the terminal is closed.
                Ok(0) | Err(Errno::EIO) => self.ended.store(true, Ordering::Relaxed),
                Ok(count) => {
                    buffer.truncate(count);
                    return Ok(buffer);
                }
                Err(Errno::EAGAIN) if exited => self.ended.store(true, Ordering::Relaxed),
                Err(Errno::EAGAIN) => self.wait(exit).await?,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes back what was read and could not be delivered. The next read returns it.
    pub(crate) fn unread(&self, mut data: Vec<u8>) {
        let mut unread = self.unread.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        data.append(&mut unread);
        *unread = data;
    }

    fn take_unread(&self, limit: usize) -> Option<Vec<u8>> {
        let mut unread = self.unread.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if unread.is_empty() {
            return None;
        }
        let taken = limit.min(unread.len());
        let rest = unread.split_off(taken);
        Some(std::mem::replace(&mut unread, rest))
    }

    /// Waits until a read is worth another try.
    async fn wait(&self, exit: &Exit) -> io::Result<()> {
        tokio::select! {
            _ = exit.wait() => Ok(()),
            ready = self.channel.0.readable() => {
                // The readiness may be old: it is cleared unless the descriptor is readable right now.
                let mut ready = ready?;
                if !is_readable(self.channel.0.get_ref())? {
                    ready.clear_ready();
                }
                Ok(())
            }
        }
    }
}

fn is_readable(fd: &OwnedFd) -> nix::Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).map(|count| count > 0)
}

/// What a process reads.
pub(crate) struct Input {
    /// `None` once closed. The lock is a queue: writers take turns, in the order in which they came, and a workload
    /// that does not read makes only its own writers wait.
    channel: Mutex<Option<Channel>>,
    terminal: bool,
}

/// Writing failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("stdin is closed")]
    Closed,
    #[error("the process has ended")]
    Ended,
    #[error("write: {0}")]
    Write(#[from] io::Error),
}

impl Input {
    pub(crate) fn pipe(channel: Channel) -> Self {
        Self { channel: Mutex::new(Some(channel)), terminal: false }
    }

    pub(crate) fn terminal(channel: Channel) -> Self {
        Self { channel: Mutex::new(Some(channel)), terminal: true }
    }

    /// Writes all of `bytes`, waiting while the process does not read.
    pub(crate) async fn write(&self, bytes: &[u8], exit: &Exit) -> Result<(), WriteError> {
        let turn = self.channel.lock().await;
        let channel = turn.as_ref().ok_or(WriteError::Closed)?;
        tokio::select! {
            // Whoever else holds the reading end will not make room any more.
            _ = exit.wait() => Err(WriteError::Ended),
            written = write_all(channel, bytes) => written.map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => WriteError::Closed,
                _ => WriteError::Write(error),
            }),
        }
    }

    /// Ends the process's input. Closing what is closed is no error.
    ///
    /// A pipe is closed. A terminal goes on serving output, and its reader gets an end of file where the line
    /// discipline knows one (canonical mode).
    pub(crate) async fn close(&self, exit: &Exit) -> io::Result<()> {
        let Some(channel) = self.channel.lock().await.take() else { return Ok(()) };
        if !self.terminal {
            return Ok(());
        }
        let settings = tcgetattr(channel.0.get_ref())?;
        if settings.local_flags.contains(LocalFlags::ICANON) {
            let end_of_file = [settings.control_chars[SpecialCharacterIndices::VEOF as usize]];
            tokio::select! {
                _ = exit.wait() => {}
                written = write_all(&channel, &end_of_file) => written?,
            }
        }
        Ok(())
    }
}

async fn write_all(channel: &Channel, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = channel.0.writable().await?;
        match ready.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), bytes)?)) {
            Ok(Ok(count)) => bytes = &bytes[count..],
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reaper::Reaper;
    use nix::unistd::pipe;
    use std::io::Write as _;
    use std::time::Duration;

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(5), future).await.expect("it must not hang")
    }

    fn output() -> (Output, std::fs::File) {
        let (read, write) = pipe().unwrap();
        (Output::new(Channel::new(read).unwrap()), std::fs::File::from(write))
    }

    #[tokio::test]
    async fn a_silent_process_is_waited_for() {
        let (output, mut writer) = output();
        let (reaper, exit) = watched();
        let reading = tokio::spawn(async move { output.read(64, &exit).await.unwrap() });
        tokio::time::sleep(Duration::from_millis(20)).await;
        writer.write_all(b"late").unwrap();
        assert_eq!(soon(reading).await.unwrap(), b"late");
        drop(reaper);
    }

    #[tokio::test]
    async fn output_ends_after_the_exit_though_a_child_keeps_the_pipe() {
        let (output, mut writer) = output();
        let (reaper, exit) = watched();
        writer.write_all(b"0123456789").unwrap();
        end(&reaper);
        assert_eq!(soon(output.read(4, &exit)).await.unwrap(), b"0123");
        assert_eq!(soon(output.read(64, &exit)).await.unwrap(), b"456789");
        assert_eq!(soon(output.read(64, &exit)).await.unwrap(), b"");
        writer.write_all(b"from the child").unwrap();
        assert_eq!(soon(output.read(64, &exit)).await.unwrap(), b"", "the end is final");
    }

    #[tokio::test]
    async fn what_reached_nobody_is_read_again_first_and_in_order() {
        let (output, mut writer) = output();
        let (reaper, exit) = watched();
        writer.write_all(b"abcdef").unwrap();
        let (first, second) = (output.read(2, &exit).await.unwrap(), output.read(2, &exit).await.unwrap());
        output.unread(second);
        output.unread(first);
        end(&reaper);
        for expected in [&b"abc"[..], b"d", b"ef", b""] {
            assert_eq!(soon(output.read(3, &exit)).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_pending_read_ends_with_the_process() {
        let (output, _writer) = output();
        let (reaper, exit) = watched();
        let reading = tokio::spawn(async move { output.read(64, &exit).await.unwrap() });
        tokio::time::sleep(Duration::from_millis(20)).await;
        end(&reaper);
        assert_eq!(soon(reading).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn a_full_pipe_makes_the_writer_wait_and_the_exit_frees_it() {
        let (_reader, write) = pipe().unwrap();
        let input = Input::pipe(Channel::new(write).unwrap());
        let (reaper, exit) = watched();
        let writing = tokio::spawn(async move { input.write(&vec![0; 1 << 20], &exit).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!writing.is_finished());
        end(&reaper);
        assert!(matches!(soon(writing).await.unwrap(), Err(WriteError::Ended)));
    }

    #[tokio::test]
    async fn writing_to_a_closed_stdin_is_an_error_and_closing_twice_is_not() {
        let (reader, write) = pipe().unwrap();
        let input = Input::pipe(Channel::new(write).unwrap());
        let (_reaper, exit) = watched();
        soon(input.write(b"all", &exit)).await.unwrap();
        input.close(&exit).await.unwrap();
        input.close(&exit).await.unwrap();
        assert!(matches!(input.write(b"more", &exit).await, Err(WriteError::Closed)));
        let mut all = String::new();
        std::io::Read::read_to_string(&mut std::fs::File::from(reader), &mut all).unwrap();
        assert_eq!(all, "all");
    }

    const PID: i32 = 4242;

    fn watched() -> (Reaper, Exit) {
        let reaper = Reaper::default();
        let exit = reaper.watch(PID);
        (reaper, exit)
    }

    fn end(reaper: &Reaper) {
        reaper.ended(nix::unistd::Pid::from_raw(PID), 0);
    }
}
