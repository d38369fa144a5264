//! The conversation between the agent and a child that is becoming a container process.
//!
//! One sequenced-packet socket. The child sends `Mounted` where the agent has hooks to run before the root is entered,
//! then at most one `Ready` (with the terminal's master when there is one), then perhaps `Failed`; the agent answers the
//! first two with one byte, which means "go on". The socket closes by itself when the program is executed, so the end of
//! the stream after `Executing` is the proof that it runs.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
};
use serde::{Deserialize, Serialize};

/// No report is longer than this; a longer one is refused on both sides.
const MAX_REPORT: usize = 16 * 1024;

/// The longest text of a failure that is sent; more is cut off.
const MAX_TEXT: usize = 2 * 1024;

/// The agent's end. Non-blocking: wait until the descriptor is readable, then call [`Control::recv`].
#[derive(Debug)]
pub struct Control {
    socket: OwnedFd,
    executing: AtomicBool,
}

/// What the child had to say.
#[derive(Debug)]
pub enum Message {
    /// The container's namespaces and mounts are there, its root is not entered yet. The process waits for
    /// [`Control::go_on`], so that hooks can be run. Only of plans that say so.
    Mounted,
    /// Everything is in place. A container's first process now waits for [`Control::go_on`]; an exec goes on by
    /// itself.
    Ready {
        /// The master side of the process's terminal, if its plan asked for one.
        pty: Option<OwnedFd>,
    },
    /// A step failed and the child is gone, or is about to be.
    Failed(Failure),
    /// The program was executed. Nothing follows.
    Executed,
}

/// A step that failed. Its text reads well alone: `exec: "nosuch": no such file or directory`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The name of the step, as listed in `steps.rs`.
    pub step: String,
    /// What failed, with the object and the cause.
    pub message: String,
    /// The cause as an error number, where there was one.
    pub errno: Option<i32>,
}

/// Why the conversation broke.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket failed.
    #[error("jail: control socket: {0}")]
    Socket(#[source] Errno),
    /// The child sent something that is not a report.
    #[error("jail: a report of {0} bytes that cannot be read")]
    Report(usize),
}

/// What travels.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Mounted,
    Ready,
    Executing,
    Failed(Failure),
}

/// The child's end. Blocking.
#[derive(Debug)]
pub(crate) struct Reporter(OwnedFd);

impl Control {
    /// The next message, or `None` when there is none yet.
    pub fn recv(&self) -> Result<Option<Message>, ControlError> {
        loop {
            let (report, pty) = match self.receive() {
                Ok(Some(received)) => received,
                Ok(None) if self.executing.load(Ordering::Relaxed) => return Ok(Some(Message::Executed)),
                Ok(None) => return Ok(Some(Message::Failed(Failure::silent()))),
                Err(ControlError::Socket(Errno::EAGAIN)) => return Ok(None),
                Err(error) => return Err(error),
            };
            match report {
                Report::Mounted => return Ok(Some(Message::Mounted)),
                Report::Ready => return Ok(Some(Message::Ready { pty })),
                Report::Executing => self.executing.store(true, Ordering::Relaxed),
                Report::Failed(failure) => return Ok(Some(Message::Failed(failure))),
            }
        }
    }

    /// Lets a container's first process go on: with its root after `Mounted`, with its program after `Ready`.
    pub fn go_on(&self) -> Result<(), ControlError> {
        let flags = MsgFlags::MSG_NOSIGNAL;
        socket::send(self.socket.as_raw_fd(), b"g", flags).map(drop).map_err(ControlError::Socket)
    }

    /// Both ends of a new conversation.
    pub(crate) fn pair() -> Result<(Control, OwnedFd), Errno> {
        let (ours, theirs) = socket::socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )?;
        // The child's end blocks: it has nothing else to do than to wait for the start.
        nix::fcntl::fcntl(&theirs, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()))?;
        Ok((Control { socket: ours, executing: AtomicBool::new(false) }, theirs))
    }

    fn receive(&self) -> Result<Option<(Report, Option<OwnedFd>)>, ControlError> {
        let mut bytes = [0_u8; MAX_REPORT];
        let mut ancillary = nix::cmsg_space!(RawFd);
        let (length, pty) = {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
            let message = loop {
                let fd = self.socket.as_raw_fd();
                match socket::recvmsg::<UnixAddr>(fd, &mut slices, Some(&mut ancillary), flags) {
                    Err(Errno::EINTR) => {}
                    Err(Errno::ECONNRESET) => return Ok(None),
                    other => break other.map_err(ControlError::Socket)?,
                }
            };
            let mut pty = None;
            for part in message.cmsgs().map_err(ControlError::Socket)? {
                if let ControlMessageOwned::ScmRights(fds) = part {
                    pty = crate::sys::received(fds);
                }
            }
            if message.flags.contains(MsgFlags::MSG_TRUNC) {
                return Err(ControlError::Report(message.bytes));
            }
            (message.bytes, pty)
        };
        if length == 0 {
            return Ok(None);
        }
        let report = serde_json::from_slice(&bytes[..length]).map_err(|_| ControlError::Report(length))?;
        Ok(Some((report, pty)))
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Control {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Failure {
    fn silent() -> Failure {
        let message = "jail: the process ended before its program was executed".to_owned();
        Failure { step: "jail".to_owned(), message, errno: None }
    }
}

impl Reporter {
    pub(crate) fn new(socket: OwnedFd) -> Reporter {
        Reporter(socket)
    }

    /// Sends one report, with the terminal's master if there is one.
    pub(crate) fn send(&self, report: &Report, pty: Option<&OwnedFd>) -> Result<(), Errno> {
        let bytes = serde_json::to_vec(report).map_err(|_| Errno::EINVAL)?;
        let fds = [pty.map_or(-1, AsRawFd::as_raw_fd)];
        let rights = [ControlMessage::ScmRights(&fds)];
        let ancillary: &[ControlMessage<'_>] = if pty.is_some() { &rights } else { &[] };
        let flags = MsgFlags::MSG_NOSIGNAL;
        socket::sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&bytes)], ancillary, flags, None).map(drop)
    }

    /// Sends a failure, cut to what one packet may hold.
    pub(crate) fn fail(&self, mut failure: Failure) {
        if failure.message.len() > MAX_TEXT {
            let end = (0..=MAX_TEXT).rev().find(|&at| failure.message.is_char_boundary(at)).unwrap_or(0);
            failure.message.truncate(end);
        }
        // When even this cannot be sent, the agent sees the socket close without `Executing`.
        let _ = self.send(&Report::Failed(failure), None);
    }

    /// Waits until it may go on. False when the agent closed its end instead.
    pub(crate) fn await_go(&self) -> Result<bool, Errno> {
        let mut byte = [0_u8; 1];
        loop {
            match socket::recv(self.0.as_raw_fd(), &mut byte, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => return other.map(|length| length == 1),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Control, Reporter) {
        let (control, child) = Control::pair().unwrap();
        (control, Reporter::new(child))
    }

    #[test]
    fn nothing_yet_then_ready_then_executed() {
        let (control, child) = pair();
        assert!(control.recv().unwrap().is_none());
        child.send(&Report::Ready, None).unwrap();
        assert!(matches!(control.recv().unwrap(), Some(Message::Ready { pty: None })));
        control.go_on().unwrap();
        assert!(child.await_go().unwrap());
        child.send(&Report::Executing, None).unwrap();
        assert!(control.recv().unwrap().is_none());
        drop(child);
        assert!(matches!(control.recv().unwrap(), Some(Message::Executed)));
    }

    #[test]
    fn a_descriptor_travels_with_ready() {
        let (control, child) = pair();
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        child.send(&Report::Ready, Some(&null)).unwrap();
        let Some(Message::Ready { pty: Some(pty) }) = control.recv().unwrap() else {
            panic!("no descriptor")
        };
        let name = std::fs::read_link(format!("/proc/self/fd/{}", pty.as_raw_fd())).unwrap();
        assert_eq!(name, std::path::Path::new("/dev/null"));
    }

    #[test]
    fn a_child_that_ends_without_a_word_failed() {
        let (control, child) = pair();
        drop(child);
        let Some(Message::Failed(failure)) = control.recv().unwrap() else { panic!("not a failure") };
        assert_eq!(failure.step, "jail");
    }

    #[test]
    fn an_exec_that_fails_after_the_announcement_is_a_failure() {
        let (control, child) = pair();
        child.send(&Report::Executing, None).unwrap();
        let failure = Failure { step: "exec".into(), message: "exec: \"x\": no".into(), errno: Some(2) };
        child.fail(failure.clone());
        drop(child);
        let Some(Message::Failed(got)) = control.recv().unwrap() else { panic!("not a failure") };
        assert_eq!(got, failure);
    }

    #[test]
    fn long_text_is_cut_and_rubbish_is_refused() {
        let (control, child) = pair();
        child.fail(Failure { step: "x".into(), message: "é".repeat(MAX_TEXT), errno: None });
        let Some(Message::Failed(got)) = control.recv().unwrap() else { panic!("not a failure") };
        assert_eq!(got.message.len(), MAX_TEXT);
        socket::send(child.0.as_raw_fd(), b"rubbish", MsgFlags::empty()).unwrap();
        assert!(matches!(control.recv(), Err(ControlError::Report(7))));
        let huge = vec![b' '; MAX_REPORT + 1];
        socket::send(child.0.as_raw_fd(), &huge, MsgFlags::empty()).unwrap();
        assert!(matches!(control.recv(), Err(ControlError::Report(_))));
    }

    #[test]
    fn a_start_that_never_comes_is_noticed() {
        let (control, child) = pair();
        drop(control);
        assert!(!child.await_go().unwrap());
    }
}
