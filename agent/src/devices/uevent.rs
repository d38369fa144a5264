//! The kernel's messages about devices (lib/kobject_uevent.c): a header, then `KEY=value` pairs, each ended by a null
//! byte.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket, sockopt,
};
use tokio::io::unix::AsyncFd;

use crate::sys;

/// The multicast group the kernel sends to. Group 2 is udev's.
const KERNEL_GROUP: u32 = 1;

/// More than the kernel writes: 2 KiB of pairs (UEVENT_BUFFER_SIZE), and a header with the path.
const MAX_MESSAGE: usize = 8 << 10;

/// Room for the events of a guest that gets hundreds of devices at once.
const RECEIVE_BUFFER: usize = 1 << 20;

/// One message, as far as we look at it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Uevent<'m> {
    /// `add`, `remove`, `change`, `bind`, ...
    pub(crate) action: &'m str,
    /// The device's directory below `/sys`.
    pub(crate) devpath: &'m str,
    /// `block`, `memory`, `net`, ...
    pub(crate) subsystem: &'m str,
    /// Its node below `/dev`, if it has one.
    pub(crate) devname: &'m str,
}

/// A message that the kernel would not send.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("uevent: {0}")]
pub(crate) struct BadUevent(&'static str);

/// Reads a message.
pub(crate) fn parse(message: &[u8]) -> Result<Uevent<'_>, BadUevent> {
    let text = std::str::from_utf8(message).map_err(|_| BadUevent("not UTF-8"))?;
    let mut event = Uevent { action: "", devpath: "", subsystem: "", devname: "" };
    // The header, `add@/devices/...`, says nothing that the pairs do not.
    for pair in text.split('\0').skip(1) {
        match pair.split_once('=') {
            Some(("ACTION", value)) => event.action = value,
            Some(("DEVPATH", value)) => event.devpath = value,
            Some(("SUBSYSTEM", value)) => event.subsystem = value,
            Some(("DEVNAME", value)) => event.devname = value,
            _ => {}
        }
    }
    if event.action.is_empty() {
        return Err(BadUevent("ACTION is missing"));
    }
    if !event.devpath.starts_with('/') || event.devpath.split('/').any(|part| part == "..") {
        return Err(BadUevent("DEVPATH is not a path from the root"));
    }
    Ok(event)
}

/// The socket on which the kernel tells.
pub(crate) struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let fd = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        // Beyond the limit for users, which needs a capability that a test may not have.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self(sys::watch(fd)?))
    }

    /// Waits for the next message of the kernel's. `None`: some were lost, because they came faster than they were read.
    pub(crate) async fn next(&self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            let mut ready = self.0.readable().await?;
            match recvfrom::<NetlinkAddr>(self.0.get_ref().as_raw_fd(), &mut buffer) {
                // Whoever has the right to may send to the group; only the kernel has port 0.
                Ok((length, Some(sender))) if sender.pid() == 0 => {
                    buffer.truncate(length);
                    return Ok(Some(buffer));
                }
                Ok((_, sender)) => tracing::warn!(?sender, "a uevent that the kernel did not send"),
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::ENOBUFS) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: &[u8] = b"add@/devices/pci0000:00/0000:00:10.0/virtio3/block/vda\0ACTION=add\0\
        DEVPATH=/devices/pci0000:00/0000:00:10.0/virtio3/block/vda\0SUBSYSTEM=block\0MAJOR=254\0MINOR=0\0\
        DEVNAME=vda\0DEVTYPE=disk\0DISKSEQ=9\0SEQNUM=1234\0";

    #[test]
    fn a_message_is_read() {
        let event = parse(DISK).unwrap();
        assert_eq!(event.action, "add");
        assert_eq!(event.devpath, "/devices/pci0000:00/0000:00:10.0/virtio3/block/vda");
        assert_eq!((event.subsystem, event.devname), ("block", "vda"));
        let bare = parse(b"x\0ACTION=remove\0DEVPATH=/module/loop\0").unwrap();
        assert_eq!((bare.action, bare.subsystem, bare.devname), ("remove", "", ""));
    }

    #[test]
    fn what_is_none_is_refused_and_never_panics() {
        let bad: [&[u8]; 8] = [
            b"",
            b"\0\0\0",
            b"add@/devices/x",
            b"libudev\0\xfe\xed\xca\xfe",
            b"x\0ACTION=add\0",
            b"x\0DEVPATH=/devices/x\0",
            b"x\0ACTION=add\0DEVPATH=devices/x\0",
            b"x\0ACTION=add\0DEVPATH=/devices/../../etc\0",
        ];
        for message in bad {
            assert!(parse(message).is_err(), "{message:?}");
        }
        for end in 0..DISK.len() {
            let _ = parse(&DISK[..end]);
        }
    }

    /// Only the kernel is believed: what another process sends to the same group is passed over, and the kernel's next
    /// message comes through.
    #[tokio::test]
    async fn only_the_kernel_is_believed() {
        use nix::sys::socket::{MsgFlags, sendto};
        const KNOWN: &str = "/sys/class/mem/null/uevent";
        if !nix::unistd::geteuid().is_root() || std::fs::OpenOptions::new().write(true).open(KNOWN).is_err() {
            eprintln!("skipped: only root may have {KNOWN} repeat its event");
            return;
        }
        let listener = Socket::open().unwrap();
        let (kind, flags) = (SockType::Datagram, SockFlag::SOCK_CLOEXEC);
        let forger = socket(AddressFamily::Netlink, kind, flags, SockProtocol::NetlinkKObjectUEvent).unwrap();
        let group = NetlinkAddr::new(0, KERNEL_GROUP);
        sendto(forger.as_raw_fd(), DISK, &group, MsgFlags::empty()).unwrap();
        std::fs::write(KNOWN, "change").unwrap();
        loop {
            // Other devices of this machine may speak too, but never of the forger's disk.
            let message = listener.next().await.unwrap().unwrap();
            let event = parse(&message).unwrap();
            assert_ne!(event.devname, "vda");
            if event.devpath.ends_with("/mem/null") {
                break;
            }
        }
    }
}
