//! What a runtime asks for, read and checked before anything is touched, and what it is told.
//!
//! Families come from the texts of addresses. The field that says them is only looked at where there is no text, since
//! the peers do not always fill it.

use std::net::IpAddr;

use agent_api::types;
use nix::libc;

use super::link::{Address, Link};
use super::route::{Neighbour, Route};
use crate::devices::PciPath;

/// A field of a request cannot be what it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub(crate) struct BadField {
    pub(super) field: String,
    pub(super) problem: String,
}

fn bad(field: impl Into<String>, problem: impl Into<String>) -> BadField {
    BadField { field: field.into(), problem: problem.into() }
}

/// How an interface shall be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) hardware: Vec<u8>,
    pub(super) addresses: Vec<Address>,
    pub(super) mtu: Option<u32>,
    pub(super) no_arp: bool,
    /// The card it belongs to, which may still have to come.
    pub(super) card: Option<PciPath>,
}

/// A route or a neighbour, and the name of its link.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct On<T> {
    pub(super) field: String,
    pub(super) device: String,
    pub(super) what: T,
}

/// Reads an `UpdateInterface`.
pub(super) fn interface(wanted: &types::Interface) -> Result<Interface, BadField> {
    if !is_link_name(&wanted.name) {
        return Err(bad(
            "interface.name",
            format!("{:?} is not the name of an interface", brief(&wanted.name)),
        ));
    }
    let hardware = hardware("interface.hwAddr", &wanted.hwAddr)?;
    if hardware.is_empty() {
        return Err(bad("interface.hwAddr", "it is missing"));
    }
    let addresses = wanted.IPAddresses.iter().enumerate().map(|(at, address)| {
        let field = |name: &str| format!("interface.IPAddresses[{at}].{name}");
        let ip = ip(&field("address"), &address.address)?;
        Ok(Address { ip, prefix: prefix(&field("mask"), &address.mask, ip)? })
    });
    let mtu = u32::try_from(wanted.mtu)
        .map_err(|_| bad("interface.mtu", format!("{} is more than any link takes", wanted.mtu)))?;
    let card = match wanted.devicePath.as_str() {
        "" => None,
        path => Some(path.parse().map_err(|error| bad("interface.devicePath", format!("{error}")))?),
    };
    Ok(Interface {
        name: wanted.name.clone(),
        hardware,
        addresses: addresses.collect::<Result<_, _>>()?,
        mtu: (mtu > 0).then_some(mtu),
        no_arp: wanted.raw_flags & libc::IFF_NOARP as u32 != 0,
        card,
    })
}

/// Reads an `UpdateRoutes`: those without a gateway first, as the others need them to reach theirs.
pub(super) fn routes(wanted: &[types::Route]) -> Result<Vec<On<Route>>, BadField> {
    let read: Result<Vec<_>, _> = wanted.iter().enumerate().map(|(at, wanted)| route(at, wanted)).collect();
    let mut routes = read?;
    routes.sort_by_key(|route| route.what.gateway.is_some());
    Ok(routes)
}

fn route(at: usize, wanted: &types::Route) -> Result<On<Route>, BadField> {
    let field = |name: &str| format!("routes.Routes[{at}].{name}");
    let optional = |name: &str, text: &str| match text {
        "" => Ok(None),
        text => ip(&field(name), text).map(|ip| Some(ip).filter(|ip| !ip.is_unspecified())),
    };
    let (gateway, source) = (optional("gateway", &wanted.gateway)?, optional("source", &wanted.source)?);
    let destination = destination(&field("dest"), &wanted.dest, gateway)?;
    let family = match wanted.family.enum_value() {
        Ok(family) => family == types::IPFamily::v6,
        Err(number) => return Err(bad(field("family"), format!("{number} is neither v4 nor v6"))),
    };
    let ipv6 = match (destination, gateway, source) {
        (Some((ip, _)), _, _) | (None, Some(ip), _) | (None, None, Some(ip)) => ip.is_ipv6(),
        (None, None, None) => family,
    };
    if source.is_some_and(|source| source.is_ipv6() != ipv6) {
        return Err(bad(field("source"), format!("{:?} is not of the family of the route", wanted.source)));
    }
    let scope = u8::try_from(wanted.scope)
        .map_err(|_| bad(field("scope"), format!("{} is more than 255", wanted.scope)))?;
    let network = destination.filter(|(ip, prefix)| !(ip.is_unspecified() && *prefix == 0));
    let mtu = (wanted.mtu > 0).then_some(wanted.mtu);
    let what = Route { ipv6, network, gateway, link: 0, source, scope, flags: wanted.flags, mtu };
    Ok(On { field: field("device"), device: device(&field("device"), &wanted.device)?, what })
}

/// A network and its prefix length; a default route is one to everywhere. Peers list theirs as `0.0.0.0` and `::1`,
/// with the gateway, and may send back what they were told.
fn destination(field: &str, text: &str, gateway: Option<IpAddr>) -> Result<Option<(IpAddr, u8)>, BadField> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Some((network, length)) = text.split_once('/') {
        let network = ip(field, network)?;
        return Ok(Some((network, prefix(field, length, network)?)));
    }
    let network = ip(field, text)?;
    let is_default = network.is_unspecified()
        || (network.is_ipv6() && network.is_loopback() && gateway.is_some_and(|gateway| gateway.is_ipv6()));
    Ok(Some(if is_default { (unspecified(network), 0) } else { (network, bits(network)) }))
}

/// Reads an `AddARPNeighbors`.
pub(super) fn neighbours(wanted: &[types::ARPNeighbor]) -> Result<Vec<On<Neighbour>>, BadField> {
    wanted.iter().enumerate().map(|(at, wanted)| neighbour(at, wanted)).collect()
}

fn neighbour(at: usize, wanted: &types::ARPNeighbor) -> Result<On<Neighbour>, BadField> {
    let field = |name: &str| format!("neighbors.ARPNeighbors[{at}].{name}");
    let address = wanted.toIPAddress.as_ref().ok_or_else(|| bad(field("toIPAddress"), "it is missing"))?;
    let state = match wanted.state {
        0 => libc::NUD_PERMANENT,
        state => u16::try_from(state).map_err(|_| bad(field("state"), format!("{state} is not a state")))?,
    };
    let flags = u8::try_from(wanted.flags)
        .map_err(|_| bad(field("flags"), format!("{} is not a set of flags", wanted.flags)))?;
    let what = Neighbour {
        ip: ip(&field("toIPAddress.address"), &address.address)?,
        link: 0,
        address: hardware(&field("lladdr"), &wanted.lladdr)?,
        state,
        flags,
    };
    Ok(On { field: field("device"), device: device(&field("device"), &wanted.device)?, what })
}

/// A link as it is told of.
pub(super) fn tell_link(link: &Link, addresses: &[(u32, Address)]) -> types::Interface {
    let own = addresses.iter().filter(|(index, _)| *index == link.index);
    let addresses = own.map(|(_, Address { ip, prefix })| types::IPAddress {
        family: family_of(ip.is_ipv6()).into(),
        address: ip.to_string(),
        mask: prefix.to_string(),
        ..Default::default()
    });
    let hex: Vec<String> = link.address.iter().map(|byte| format!("{byte:02x}")).collect();
    types::Interface {
        device: link.name.clone(),
        name: link.name.clone(),
        IPAddresses: addresses.collect(),
        mtu: link.mtu.into(),
        hwAddr: hex.join(":"),
        type_: link.kind.clone(),
        raw_flags: link.flags,
        ..Default::default()
    }
}

/// A route as it is told of: in the form in which it could be asked for.
pub(super) fn tell_route(route: &Route, links: &[Link]) -> types::Route {
    let text = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    let device = links.iter().find(|link| link.index == route.link).map(|link| link.name.clone());
    types::Route {
        dest: route.network.map(|(ip, prefix)| format!("{ip}/{prefix}")).unwrap_or_default(),
        gateway: text(route.gateway),
        device: device.unwrap_or_default(),
        source: text(route.source),
        scope: route.scope.into(),
        family: family_of(route.ipv6).into(),
        flags: route.flags,
        mtu: route.mtu.unwrap_or_default(),
        ..Default::default()
    }
}

fn family_of(ipv6: bool) -> types::IPFamily {
    if ipv6 { types::IPFamily::v6 } else { types::IPFamily::v4 }
}

fn ip(field: &str, text: &str) -> Result<IpAddr, BadField> {
    match text {
        "" => Err(bad(field, "it is missing")),
        text => text.parse().map_err(|_| bad(field, format!("{:?} is not an IP address", brief(text)))),
    }
}

/// A prefix length that addresses of this family have.
fn prefix(field: &str, text: &str, ip: IpAddr) -> Result<u8, BadField> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let length = digits.then(|| text.parse().ok()).flatten().filter(|length| *length <= bits(ip));
    length.ok_or_else(|| bad(field, format!("{:?} is not a prefix length of {ip}", brief(text))))
}

/// Pairs of hexadecimal digits with colons between them; empty for an empty text.
fn hardware(field: &str, text: &str) -> Result<Vec<u8>, BadField> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let byte = |pair: &str| {
        let digits = pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit());
        digits.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
    };
    // The longest address that the kernel has room for (`MAX_ADDR_LEN`).
    let bytes: Option<Vec<u8>> = text.split(':').take(33).map(byte).collect();
    let bytes = bytes.filter(|bytes| bytes.len() <= 32);
    bytes.ok_or_else(|| bad(field, format!("{:?} is not a hardware address", brief(text))))
}

fn device(field: &str, name: &str) -> Result<String, BadField> {
    match name {
        "" => Err(bad(field, "it is missing")),
        name if is_link_name(name) => Ok(name.into()),
        name => Err(bad(field, format!("{:?} is not the name of an interface", brief(name)))),
    }
}

/// What the kernel takes for a name (`dev_valid_name`), but for a percent sign, which makes it choose one.
fn is_link_name(name: &str) -> bool {
    (1..libc::IFNAMSIZ).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:%".contains(&byte))
}

fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn unspecified(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { [0; 4].into() } else { [0; 16].into() }
}

/// What an error repeats of a text that may have megabytes.
fn brief(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
