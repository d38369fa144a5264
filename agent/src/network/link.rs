//! Links: the network interfaces of the guest, and their addresses.

use std::io;
use std::net::IpAddr;

use nix::libc;

use super::netlink::{Message, Request, Socket, attributes, number};

/// Attributes of a link that libc does not have for every target (`linux/if_link.h`).
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_EXT_MASK: u16 = 29;

/// Sizes of the headers of links and of addresses (`struct ifinfomsg`, `struct ifaddrmsg`).
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) flags: u32,
    pub(super) mtu: u32,
    /// Its hardware address.
    pub(super) address: Vec<u8>,
    /// What kind of virtual link it is; empty for hardware, and what the hypervisor offers as such.
    pub(super) kind: String,
}

impl Link {
    pub(super) fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.flags & libc::IFF_LOOPBACK as u32 != 0
    }
}

/// Every link.
pub(super) fn all(socket: &mut Socket) -> io::Result<Vec<Link>> {
    let request = || {
        Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; LINK_HEADER])
            .with(IFLA_EXT_MASK, &(libc::RTEXT_FILTER_SKIP_STATS as u32).to_ne_bytes())
    };
    Ok(socket.dump(request)?.iter().map(parse).collect())
}

fn parse(message: &Message) -> Link {
    let header: [u8; LINK_HEADER] = message.header();
    let mut link = Link { index: number(&header[4..]), flags: number(&header[8..]), ..Link::default() };
    for (kind, value) in message.attributes(LINK_HEADER) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_ADDRESS => link.address = value.to_vec(),
            IFLA_MTU => link.mtu = number(value),
            IFLA_LINKINFO => {
                let info = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = info.map(|(_, kind)| text(kind)).unwrap_or_default();
            }
            _ => {}
        }
    }
    link
}

/// Sets and clears flags of a link.
pub(super) fn set_flags(socket: &mut Socket, index: u32, flags: i32, which: i32) -> io::Result<()> {
    socket.change(change(index, flags, which))
}

pub(super) fn rename(socket: &mut Socket, index: u32, name: &str) -> io::Result<()> {
    let name = [name.as_bytes(), &[0]].concat();
    socket.change(change(index, 0, 0).with(IFLA_IFNAME, &name))
}

pub(super) fn set_mtu(socket: &mut Socket, index: u32, mtu: u32) -> io::Result<()> {
    socket.change(change(index, 0, 0).with(IFLA_MTU, &mtu.to_ne_bytes()))
}

pub(super) fn set_address(socket: &mut Socket, index: u32, address: &[u8]) -> io::Result<()> {
    socket.change(change(index, 0, 0).with(IFLA_ADDRESS, address))
}

fn change(index: u32, flags: i32, which: i32) -> Request {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&which.to_ne_bytes());
    Request::new(libc::RTM_SETLINK, 0, &header)
}

/// An IP address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) ip: IpAddr,
    pub(super) prefix: u8,
}

/// Every address, with the index of its link.
pub(super) fn addresses(socket: &mut Socket) -> io::Result<Vec<(u32, Address)>> {
    let request = || Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; ADDRESS_HEADER]);
    Ok(socket.dump(request)?.iter().filter_map(parse_address).collect())
}

fn parse_address(message: &Message) -> Option<(u32, Address)> {
    let header: [u8; ADDRESS_HEADER] = message.header();
    let (mut local, mut other) = (None, None);
    for (kind, value) in message.attributes(ADDRESS_HEADER) {
        match kind {
            libc::IFA_LOCAL => local = ip(value),
            libc::IFA_ADDRESS => other = ip(value),
            _ => {}
        }
    }
    // With a peer, IFA_ADDRESS is the peer's.
    Some((number(&header[4..]), Address { ip: local.or(other)?, prefix: header[1] }))
}

/// Gives a link an address, or an address it has another prefix.
pub(super) fn add_address(socket: &mut Socket, index: u32, address: Address) -> io::Result<()> {
    let mut header = [0; ADDRESS_HEADER];
    (header[0], header[1]) = (family(address.ip), address.prefix);
    // The host has looked for duplicates already. Until the guest had done so too, for a second or more, nobody could
    // bind the address, and no route could have it as its source.
    header[2] = if address.ip.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
    header[4..].copy_from_slice(&index.to_ne_bytes());
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let mut request =
        Request::new(libc::RTM_NEWADDR, flags, &header).with(libc::IFA_ADDRESS, &octets(address.ip));
    if let IpAddr::V4(ip) = address.ip {
        request = request.with(libc::IFA_LOCAL, &ip.octets());
        if let Some(broadcast) = broadcast(ip.to_bits(), address.prefix) {
            request = request.with(libc::IFA_BROADCAST, &broadcast.to_be_bytes());
        }
    }
    socket.change(request)
}

/// The broadcast address of a network; networks of one or two addresses have none (RFC 3021).
fn broadcast(ip: u32, prefix: u8) -> Option<u32> {
    (prefix < 31).then(|| ip | u32::MAX.checked_shr(prefix.into()).unwrap_or_default())
}

/// The family of an address, as the kernel numbers it.
pub(super) fn family(ip: IpAddr) -> u8 {
    (if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

/// An address as the kernel has it.
pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// An address from the kernel, of the family that its length tells.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        16 => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
        _ => None,
    }
}

/// A string that may end in a zero byte.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_addresses() {
        assert_eq!(broadcast(0x0a00_0205, 24), Some(0x0a00_02ff));
        assert_eq!(broadcast(0x0a00_0205, 0), Some(u32::MAX));
        assert_eq!(broadcast(0x0a00_0204, 30), Some(0x0a00_0207));
        assert_eq!((broadcast(0x0a00_0205, 31), broadcast(0x0a00_0205, 32)), (None, None));
    }
}
