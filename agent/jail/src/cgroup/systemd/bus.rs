//! A conversation with systemd, over its own socket: no bus daemon in between, and only root may connect.
//!
//! One connection, one operation, one deadline for all of it. systemd tells everybody on this socket of all its jobs and
//! units; of that only the ends of jobs are looked at.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;

use super::Error;
use super::message::{self, Arguments, Kind, Malformed, Message};

/// The object that all calls go to, and its interface.
const MANAGER: (&str, &str) = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");

/// The longest line of the authentication.
const LINE: usize = 512;

/// The most ends of jobs that are kept while an answer is due.
const ENDED: usize = 1024;

/// A connection.
pub(super) struct Bus {
    stream: UnixStream,
    /// What errors say is being done.
    doing: String,
    patience: Duration,
    deadline: Instant,
    serial: u32,
    /// Jobs and their results, as heard of while waiting for something else.
    ended: Vec<[String; 4]>,
}

impl Bus {
    /// Connects for one operation, which has so much time.
    pub(super) fn connect(path: &Path, doing: String, patience: Duration) -> Result<Bus, Error> {
        let deadline = Instant::now() + patience;
        let stream = reach(path, patience).map_err(|source| Error::Connect {
            socket: path.to_owned(),
            doing: doing.clone(),
            source,
        })?;
        let mut bus = Bus { stream, doing, patience, deadline, serial: 0, ended: Vec::new() };
        bus.authenticate()?;
        Ok(bus)
    }

    /// Calls a method of systemd's manager, and waits for the answer.
    pub(super) fn call(&mut self, member: &str, arguments: Arguments) -> Result<Message, Error> {
        self.call_on(MANAGER.0, MANAGER.1, member, arguments)
    }

    /// The same of any object.
    pub(super) fn call_on(
        &mut self,
        path: &str,
        interface: &str,
        member: &str,
        arguments: Arguments,
    ) -> Result<Message, Error> {
        self.serial += 1;
        self.write(&message::call(self.serial, path, interface, member, &arguments))?;
        loop {
            let message = self.next()?;
            match message.kind {
                Kind::Return if message.answers == Some(self.serial) => return Ok(message),
                Kind::Error if message.answers == Some(self.serial) => {
                    // An error need not have a text.
                    let text = message.words().map_or_else(|_| String::new(), |[text]| text);
                    let name = message.error.unwrap_or_default();
                    return Err(Error::Refused { doing: self.doing.clone(), name, text });
                }
                _ => self.remember(&message)?,
            }
        }
    }

    /// Calls a method that answers with a job, and waits until that is done.
    pub(super) fn run(&mut self, member: &str, arguments: Arguments) -> Result<(), Error> {
        let answer = self.call(member, arguments)?;
        let job = answer.object().map_err(|source| self.malformed(source))?;
        loop {
            if let Some([_, _, _, result]) = self.ended.iter().find(|[_, path, _, _]| *path == job) {
                return match result.as_str() {
                    "done" => Ok(()),
                    _ => Err(Error::Job { doing: self.doing.clone(), result: result.clone() }),
                };
            }
            let message = self.next()?;
            self.remember(&message)?;
        }
    }

    pub(super) fn malformed(&self, source: Malformed) -> Error {
        Error::Malformed { doing: self.doing.clone(), source }
    }

    fn remember(&mut self, message: &Message) -> Result<(), Error> {
        let ended = message.kind == Kind::Signal
            && message.interface.as_deref() == Some(MANAGER.1)
            && message.member.as_deref() == Some("JobRemoved");
        if ended {
            if self.ended.len() == ENDED {
                self.ended.remove(0);
            }
            self.ended.push(message.words().map_err(|source| self.malformed(source))?);
        }
        Ok(())
    }

    /// Says who we are: the number that the kernel knows us by, in hexadecimal digits of its decimal ones.
    ///
    /// The end of it is said at once, before the answer: systemd takes what comes together with that end off the socket
    /// and waits for more before it looks at it, which for a short call is forever.
    fn authenticate(&mut self) -> Result<(), Error> {
        let user = nix::unistd::geteuid().to_string();
        let user: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
        self.write(format!("\0AUTH EXTERNAL {user}\r\nBEGIN\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.read(&mut byte)?;
            line.push(byte[0]);
            if line.len() > LINE {
                break;
            }
        }
        if !line.starts_with(b"OK ") {
            let answer = String::from_utf8_lossy(&line).trim_end().to_owned();
            return Err(Error::Refused { doing: self.doing.clone(), name: "AUTH".to_owned(), text: answer });
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Message, Error> {
        let mut start = [0; message::START];
        self.read(&mut start)?;
        let length = message::length(&start).map_err(|source| self.malformed(source))?;
        let mut bytes = vec![0; length];
        bytes[..start.len()].copy_from_slice(&start);
        self.read(&mut bytes[start.len()..])?;
        Message::decode(&bytes).map_err(|source| self.malformed(source))
    }

    fn read(&mut self, mut buffer: &mut [u8]) -> Result<(), Error> {
        while !buffer.is_empty() {
            let left = self.left()?;
            let read = self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.read(buffer));
            match read {
                Ok(0) => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) if may_go_on(&error) => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let left = self.left()?;
            let written = self.stream.set_write_timeout(Some(left)).and_then(|()| self.stream.write(bytes));
            match written {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if may_go_on(&error) => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(())
    }

    /// The time that is left, which is not zero.
    fn left(&self) -> Result<Duration, Error> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Deadline { doing: self.doing.clone(), after: self.patience });
        }
        Ok(left)
    }

    fn broken(&self, source: io::Error) -> Error {
        Error::Talk { doing: self.doing.clone(), source }
    }
}

/// Connects. One that has a queue of others to accept keeps us waiting for no longer than that.
fn reach(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let patience = TimeVal::new(patience.as_secs() as i64, patience.subsec_micros().into());
    setsockopt(&fd, sockopt::SendTimeout, &patience)?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(fd))
}

/// Whether to look at the clock and try once more: the time of one call was up, or a signal came.
fn may_go_on(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
