//! Making an interface what the runtime wants it to be.
//!
//! The runtime knows a card by its hardware address and wants it to have the name that the container expects. The kernel
//! gave out names in the order in which it found cards, so the name may be another card's: the two swap.

use std::path::Path;

use nix::libc;

use super::link::{self, Link};
use super::netlink::Socket;
use super::request::{BadField, Interface};
use super::{Error, failed};

/// The name a link has while two of them swap theirs.
const ASIDE: &str = "husk-aside";

/// Does it. If some of it fails, a link that was up is up again.
pub(super) fn update(socket: &mut Socket, wanted: &Interface, card: Option<&str>) -> Result<(), Error> {
    let links = link::all(socket).map_err(failed("list links"))?;
    let link = choose(&links, wanted, card)?;
    let (index, name) = (link.index, &link.name);
    let has_address = link.address == wanted.hardware;
    let has_name = *name == wanted.name;
    let owner = links.iter().find(|link| link.name == wanted.name);
    if owner.is_some_and(Link::is_loopback) {
        let problem = format!("{} is the loopback's", wanted.name);
        return Err(BadField { field: "interface.name".into(), problem }.into());
    }

    // Only what a link in use may refuse is worth its routes, which go when it does.
    let goes_down = link.is_up() && !(has_address && has_name);
    if goes_down {
        link::set_flags(socket, index, 0, libc::IFF_UP).map_err(failed(format!("{name}: bring down")))?;
    }
    let updated = (|| {
        if !has_address {
            link::set_address(socket, index, &wanted.hardware)
                .map_err(failed(format!("{name}: set hardware address")))?;
        }
        if !has_name {
            rename(socket, link, &wanted.name, owner)?;
        }
        settle(socket, index, wanted)
    })();
    if goes_down && updated.is_err() {
        let _ = link::set_flags(socket, index, libc::IFF_UP, libc::IFF_UP);
    }
    updated
}

/// The link that is meant: the card at the given place; else the one with the hardware address; else the one with the
/// name. Loopback has an address of zeroes and is never meant.
fn choose<'l>(links: &'l [Link], wanted: &Interface, card: Option<&str>) -> Result<&'l Link, Error> {
    let find = |is_meant: &dyn Fn(&Link) -> bool| {
        links.iter().filter(|link| !link.is_loopback()).find(|link| is_meant(link))
    };
    if let Some(card) = card {
        return find(&|link| link.name == card).ok_or_else(|| Error::NoLink {
            field: "interface.devicePath".into(),
            wanted: format!("called {card:?}"),
        });
    }
    let same_address = |link: &Link| link.address == wanted.hardware;
    // Links made on top of a card have its address too.
    find(&|link| same_address(link) && link.name == wanted.name)
        .or_else(|| find(&|link| same_address(link) && link.kind.is_empty()))
        .or_else(|| find(&same_address))
        .or_else(|| find(&|link| link.name == wanted.name))
        .ok_or_else(|| {
            let address: Vec<_> = wanted.hardware.iter().map(|byte| format!("{byte:02x}")).collect();
            let wanted = format!("with address {}, nor one called {:?}", address.join(":"), wanted.name);
            Error::NoLink { field: "interface.hwAddr".into(), wanted }
        })
}

/// Gives a link a name, and the link that has it now the other's.
fn rename(socket: &mut Socket, link: &Link, name: &str, owner: Option<&Link>) -> Result<(), Error> {
    let take = |socket: &mut Socket| {
        link::rename(socket, link.index, name).map_err(failed(format!("{}: rename to {name}", link.name)))
    };
    let Some(owner) = owner else { return take(socket) };
    give(socket, owner, ASIDE)?;
    let taken = take(socket);
    // Whether or not that went well, the owner needs a name again.
    let free = if taken.is_ok() { &link.name } else { name };
    let given = give(socket, owner, free);
    taken.and(given)
}

/// Renames a link that somebody may be using.
fn give(socket: &mut Socket, link: &Link, name: &str) -> Result<(), Error> {
    let renamed = link::rename(socket, link.index, name);
    // Before Linux 6.2 only what is down could be renamed.
    let renamed = match renamed {
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
            link::set_flags(socket, link.index, 0, libc::IFF_UP)
                .and_then(|()| link::rename(socket, link.index, name))
                .and_then(|()| link::set_flags(socket, link.index, libc::IFF_UP, libc::IFF_UP))
        }
        renamed => renamed,
    };
    renamed.map_err(failed(format!("{}: rename to {name}", link.name)))
}

/// The settings of a link that has its name.
fn settle(socket: &mut Socket, index: u32, wanted: &Interface) -> Result<(), Error> {
    let name = &wanted.name;
    if let Some(mtu) = wanted.mtu {
        link::set_mtu(socket, index, mtu).map_err(failed(format!("{name}: set mtu {mtu}")))?;
    }
    for &address in &wanted.addresses {
        if address.ip.is_ipv6() && !has_ipv6(name) {
            tracing::debug!(link = name, ip = %address.ip, "an IPv6 address is left out: IPv6 is off");
            continue;
        }
        link::add_address(socket, index, address)
            .map_err(failed(format!("{name}: add address {}/{}", address.ip, address.prefix)))?;
    }
    if wanted.no_arp {
        link::set_flags(socket, index, libc::IFF_NOARP, libc::IFF_NOARP)
            .map_err(failed(format!("{name}: turn ARP off")))?;
    }
    link::set_flags(socket, index, libc::IFF_UP, libc::IFF_UP).map_err(failed(format!("{name}: bring up")))
}

/// Whether a link may have IPv6: there is none of it with `ipv6.disable=1`, on a link with an mtu below 1280, and where
/// somebody has turned it off.
pub(super) fn has_ipv6(link: &str) -> bool {
    let file = Path::new("/proc/sys/net/ipv6/conf").join(link).join("disable_ipv6");
    std::fs::read_to_string(file).is_ok_and(|text| text.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, address: u8, kind: &str, flags: i32) -> Link {
        Link {
            index,
            name: name.into(),
            address: vec![address; 6],
            kind: kind.into(),
            flags: flags as u32,
            ..Link::default()
        }
    }

    fn chosen(name: &str, address: u8, card: Option<&str>) -> Option<u32> {
        let links = [
            link(1, "lo", 0, "", libc::IFF_LOOPBACK),
            link(2, "eth0", 2, "", 0),
            link(4, "vlan", 3, "vlan", 0),
            link(3, "eth1", 3, "", 0),
        ];
        let wanted = Interface {
            name: name.into(),
            hardware: vec![address; 6],
            addresses: Vec::new(),
            mtu: None,
            no_arp: false,
            card: None,
        };
        choose(&links, &wanted, card).ok().map(|link| link.index)
    }

    #[test]
    fn a_link_is_known_by_its_card_its_address_or_its_name() {
        assert_eq!(chosen("eth0", 2, None), Some(2));
        assert_eq!(chosen("eth0", 3, None), Some(3), "the address counts more than the name");
        assert_eq!(chosen("eth1", 9, None), Some(3), "a name without the address");
        assert_eq!(chosen("net1", 9, Some("eth1")), Some(3));
        assert_eq!(chosen("eth0", 2, Some("eth1")), Some(3), "the card counts more than the address");
        assert_eq!(chosen("net1", 9, None), None);
    }

    #[test]
    fn a_link_on_top_of_a_card_is_not_taken_for_it() {
        assert_eq!(chosen("net1", 3, None), Some(3));
        assert_eq!(chosen("vlan", 3, None), Some(4), "unless it is asked for by name");
    }

    #[test]
    fn loopback_is_never_meant() {
        assert_eq!(chosen("eth7", 0, None), None);
        assert_eq!(chosen("lo", 9, None), None);
    }
}
