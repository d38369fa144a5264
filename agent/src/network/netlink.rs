//! A socket to the kernel's routing netlink (rtnetlink(7)): requests that change something, and dumps.
//!
//! Everything here is synchronous. The kernel works on a request while it is sent, so that its answer is there by the
//! time the call returns, unless another process holds the kernel's lock on the network.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{DefaultNla, Emitable, NetlinkBuffer, NlaBuffer, NlasIterator};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, setsockopt,
    socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::sys::netlink::explain_errors;

/// The largest answer: the kernel fills a dump up to what was read before, 32 KiB at most (`netlink_dump` in the
/// kernel's `net/netlink/af_netlink.c`).
const LARGEST: usize = 32 << 10;

/// How many seconds the kernel may take for an answer.
const PATIENCE: i64 = 5;

/// How often a dump is asked for again that something else changed while it was made.
const DUMPS: usize = 10;

/// Length of the header of every message.
const HEADER: usize = 16;

/// The attribute of an error that says it in words (`NLMSGERR_ATTR_MSG`).
const ERROR_TEXT: u16 = 1;

/// A request to be sent.
pub(super) struct Request(Vec<u8>);

impl Request {
    /// A request of a kind that begins with this header of its family.
    pub(super) fn new(kind: u16, flags: i32, family_header: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes.extend_from_slice(family_header);
        let mut message = NetlinkBuffer::new(&mut bytes);
        message.set_message_type(kind);
        message.set_flags((flags | libc::NLM_F_REQUEST) as u16);
        Self(bytes)
    }

    /// With one more attribute.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let attribute = DefaultNla::new(kind, value.to_vec());
        let start = self.0.len();
        self.0.resize(start + attribute.buffer_len(), 0);
        attribute.emit(&mut self.0[start..]);
        self
    }
}

/// One message of a dump.
pub(super) struct Message(Vec<u8>);

impl Message {
    /// Its family's header, as many bytes as were asked for; zeroes where it is shorter.
    pub(super) fn header<const SIZE: usize>(&self) -> [u8; SIZE] {
        let mut header = [0; SIZE];
        let len = SIZE.min(self.0.len());
        header[..len].copy_from_slice(&self.0[..len]);
        header
    }

    /// The attributes after a header of this many bytes.
    pub(super) fn attributes(&self, header: usize) -> impl Iterator<Item = (u16, &[u8])> {
        attributes(self.0.get(header..).unwrap_or_default())
    }
}

/// The attributes that lie in these bytes.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let bytes = attribute.into_inner();
        (attribute.kind(), &bytes[4..usize::from(NlaBuffer::new(bytes).length())])
    })
}

/// A number that an attribute holds.
pub(super) fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// The socket. There is one, and its owner is [`super::Network`].
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    pub(super) fn open() -> io::Result<Self> {
        let route = Some(SockProtocol::NetlinkRoute);
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, route)?;
        // Connected to the kernel: a container with the right to send here could pretend to be it otherwise.
        connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&fd, ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
        explain_errors(&fd)?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Has the kernel do something.
    pub(super) fn change(&mut self, mut request: Request) -> io::Result<()> {
        let mut message = NetlinkBuffer::new(&mut request.0);
        message.set_flags(message.flags() | libc::NLM_F_ACK as u16);
        self.send(request)?;
        self.receive(|_| {}).map(drop)
    }

    /// Has the kernel tell what there is. The request is made as often as needed for an answer of one piece.
    pub(super) fn dump(&mut self, request: impl Fn() -> Request) -> io::Result<Vec<Message>> {
        for _ in 0..DUMPS {
            let mut all = Vec::new();
            self.send(request())?;
            if self.receive(|message| all.push(message))? == Answer::Whole {
                return Ok(all);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "it changed each time it was read"))
    }

    fn send(&mut self, Request(mut bytes): Request) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = bytes.len() as u32;
        let mut message = NetlinkBuffer::new(&mut bytes);
        message.set_length(length);
        message.set_sequence_number(self.sequence);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        Ok(())
    }

    /// Reads up to the end of the answer to the last request.
    fn receive(&mut self, mut take: impl FnMut(Message)) -> io::Result<Answer> {
        let mut buffer = vec![0; LARGEST];
        let mut answer = Answer::Whole;
        loop {
            let received = loop {
                match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
                    Err(nix::Error::EINTR) => {}
                    Err(nix::Error::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                    other => break other?,
                }
            };
            let mut rest = buffer.get(..received).ok_or(io::ErrorKind::FileTooLarge)?;
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
                rest = rest.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
                // What is left of a request that was given up.
                if message.sequence_number() != self.sequence {
                    continue;
                }
                let flags = i32::from(message.flags());
                if flags & libc::NLM_F_DUMP_INTR != 0 {
                    answer = Answer::Torn;
                }
                let payload = message.payload();
                match i32::from(message.message_type()) {
                    libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                        return match number(payload).cast_signed() {
                            0 => Ok(answer),
                            code => Err(refusal(code, flags, payload)),
                        };
                    }
                    _ => take(Message(payload.to_vec())),
                }
            }
        }
    }
}

/// Whether a dump shows one state or pieces of several.
#[derive(PartialEq, Eq)]
enum Answer {
    Whole,
    Torn,
}

/// The kernel's error, in its own words where it has any.
fn refusal(code: i32, flags: i32, payload: &[u8]) -> io::Error {
    let error = io::Error::from_raw_os_error(code.wrapping_neg());
    // The code, the header of the request, the attributes.
    let rest = payload.get(4 + HEADER..).filter(|_| flags & libc::NLM_F_ACK_TLVS != 0).unwrap_or_default();
    match attributes(rest).find(|(kind, _)| *kind == ERROR_TEXT) {
        None => error,
        Some((_, text)) => {
            let text = String::from_utf8_lossy(text);
            io::Error::new(error.kind(), format!("{error}: {}", text.trim_end_matches('\0')))
        }
    }
}
