//! Routes of the main table, and neighbours.

use std::io;
use std::net::IpAddr;

use nix::libc;

use super::link::{family, ip, octets};
use super::netlink::{Message, Request, Socket, attributes, number};

/// The mtu among a route's metrics, the next hop of another family than the route's, what the kernel says of the state
/// of a route (`linux/rtnetlink.h`).
const RTAX_MTU: u16 = 2;
const RTA_VIA: u16 = 18;
const STATE_FLAGS: u32 = 0x1 | 0x8 | 0x10 | 0x20 | 0x40 | 0x4000 | 0x8000 | 0x2000_0000 | libc::RTM_F_CLONED;

/// Sizes of the headers of routes, of their hops and of neighbours (`struct rtmsg`, `rtnexthop`, `ndmsg`).
const HEADER: usize = 12;
const HOP_HEADER: usize = 8;
const NEIGHBOUR_HEADER: usize = 12;

/// Where packets for a network go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) ipv6: bool,
    /// The network; none for the default route.
    pub(super) network: Option<(IpAddr, u8)>,
    pub(super) gateway: Option<IpAddr>,
    /// Index of the link.
    pub(super) link: u32,
    /// The address of ours that such packets come from.
    pub(super) source: Option<IpAddr>,
    pub(super) scope: u8,
    pub(super) flags: u32,
    pub(super) mtu: Option<u32>,
}

/// The unicast routes of the main table. One with several next hops is as many routes.
pub(super) fn all(socket: &mut Socket) -> io::Result<Vec<Route>> {
    let request = || Request::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &[0; HEADER]);
    Ok(socket.dump(request)?.iter().flat_map(parse).collect())
}

fn parse(message: &Message) -> Vec<Route> {
    let header: [u8; HEADER] = message.header();
    let [family, prefix, _, _, table, _, scope, kind, ..] = header;
    let mut table = u32::from(table);
    let (mut destination, mut hops) = (None, Vec::new());
    let mut route = Route {
        ipv6: i32::from(family) == libc::AF_INET6,
        scope,
        flags: number(&header[8..]),
        ..Route::default()
    };
    for (kind, value) in message.attributes(HEADER) {
        match kind {
            libc::RTA_DST => destination = ip(value),
            libc::RTA_TABLE => table = number(value),
            libc::RTA_PREFSRC => route.source = ip(value),
            libc::RTA_METRICS => {
                let mtu = attributes(value).find(|(kind, _)| *kind == RTAX_MTU);
                route.mtu = mtu.map(|(_, mtu)| number(mtu));
            }
            libc::RTA_MULTIPATH => hops = parse_hops(value, &route),
            libc::RTA_OIF => route.link = number(value),
            _ => take_gateway(&mut route, kind, value),
        }
    }
    let is_ip = [libc::AF_INET, libc::AF_INET6].contains(&i32::from(family));
    let is_cached = route.flags & libc::RTM_F_CLONED != 0;
    if !is_ip || is_cached || table != u32::from(libc::RT_TABLE_MAIN) || kind != libc::RTN_UNICAST {
        return Vec::new();
    }
    route.network = destination.map(|network| (network, prefix));
    if hops.is_empty() {
        return vec![route];
    }
    let hops = hops.into_iter().map(|hop| Route { link: hop.link, gateway: hop.gateway, ..route.clone() });
    hops.collect()
}

fn take_gateway(route: &mut Route, kind: u16, value: &[u8]) {
    match kind {
        libc::RTA_GATEWAY => route.gateway = ip(value),
        // Its family first.
        RTA_VIA => route.gateway = value.get(2..).and_then(ip),
        _ => {}
    }
}

/// The hops of a route, each with its length in front (`struct rtnexthop`).
fn parse_hops(mut bytes: &[u8], route: &Route) -> Vec<Route> {
    let mut hops = Vec::new();
    while let Some(length) = bytes.first_chunk().map(|bytes| usize::from(u16::from_ne_bytes(*bytes))) {
        let Some(hop) = bytes.get(..length).filter(|hop| hop.len() >= HOP_HEADER) else { break };
        let mut one = Route { link: number(&hop[4..]), ..route.clone() };
        attributes(&hop[HOP_HEADER..]).for_each(|(kind, value)| take_gateway(&mut one, kind, value));
        hops.push(one);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    hops
}

/// Adds a route, in place of one to the same network.
pub(super) fn replace(socket: &mut Socket, route: &Route) -> io::Result<()> {
    let (network, prefix) = route.network.map_or((None, 0), |(network, prefix)| (Some(network), prefix));
    let mut header = [0; HEADER];
    header[0] = (if route.ipv6 { libc::AF_INET6 } else { libc::AF_INET }) as u8;
    header[1] = prefix;
    header[4..8].copy_from_slice(&[libc::RT_TABLE_MAIN, libc::RTPROT_BOOT, route.scope, libc::RTN_UNICAST]);
    // A runtime passes on what its own kernel said of its own route, with the state that was in there.
    header[8..].copy_from_slice(&(route.flags & !STATE_FLAGS).to_ne_bytes());
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let mut request = Request::new(libc::RTM_NEWROUTE, flags, &header);
    request = request.with(libc::RTA_OIF, &route.link.to_ne_bytes());
    if let Some(network) = network {
        request = request.with(libc::RTA_DST, &octets(network));
    }
    if let Some(gateway) = route.gateway {
        request = if gateway.is_ipv6() == route.ipv6 {
            request.with(libc::RTA_GATEWAY, &octets(gateway))
        } else {
            let via = [&u16::from(family(gateway)).to_ne_bytes(), octets(gateway).as_slice()].concat();
            request.with(RTA_VIA, &via)
        };
    }
    if let Some(source) = route.source {
        request = request.with(libc::RTA_PREFSRC, &octets(source));
    }
    if let Some(mtu) = route.mtu {
        // An attribute inside the attribute: length, kind, value.
        let length = 8_u16.to_ne_bytes();
        let metric = [length.as_slice(), &RTAX_MTU.to_ne_bytes(), &mtu.to_ne_bytes()].concat();
        request = request.with(libc::RTA_METRICS, &metric);
    }
    socket.change(request)
}

/// The hardware address of an IP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) ip: IpAddr,
    /// Index of the link.
    pub(super) link: u32,
    pub(super) address: Vec<u8>,
    pub(super) state: u16,
    pub(super) flags: u8,
}

/// Adds a neighbour, in place of one with the same address.
pub(super) fn add_neighbour(socket: &mut Socket, neighbour: &Neighbour) -> io::Result<()> {
    let mut header = [0; NEIGHBOUR_HEADER];
    header[0] = family(neighbour.ip);
    header[4..8].copy_from_slice(&neighbour.link.to_ne_bytes());
    header[8..10].copy_from_slice(&neighbour.state.to_ne_bytes());
    header[10] = neighbour.flags;
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let mut request =
        Request::new(libc::RTM_NEWNEIGH, flags, &header).with(libc::NDA_DST, &octets(neighbour.ip));
    if !neighbour.address.is_empty() {
        request = request.with(libc::NDA_LLADDR, &neighbour.address);
    }
    socket.change(request)
}
