//! The real kernel, in a network namespace of the test's own with two pairs of virtual cards.

use super::*;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use std::time::Duration;
use types::{ARPNeighbor, IPAddress, Interface, Route};

/// Runs a test with interfaces `a0` and `b0`, whose other ends are `a1` and `b1`. Needs root.
fn with_links(test: impl AsyncFnOnce(&Network) + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: run this as root");
        let mut socket = Socket::open().unwrap();
        for (at, name) in ["a", "b"].into_iter().enumerate() {
            make_pair(&mut socket, name);
            let links = link::all(&mut socket).unwrap();
            for end in [0, 1] {
                let link = links.iter().find(|link| link.name == format!("{name}{end}")).unwrap();
                link::set_address(&mut socket, link.index, &[2, 0, 0, 0, at as u8, end]).unwrap();
                if end == 1 {
                    link::set_flags(&mut socket, link.index, libc::IFF_UP, libc::IFF_UP).unwrap();
                }
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(&Network::default()));
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// A pair of virtual cards (veth(4)), `NAME0` and `NAME1`.
fn make_pair(socket: &mut Socket, name: &str) {
    let attribute = |kind: u16, value: &[u8]| {
        let length = (value.len() as u16 + 4).to_ne_bytes();
        let mut bytes = [length.as_slice(), &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let name_of = |end: u8| format!("{name}{end}").into_bytes();
    let peer = attribute(1, &[[0; 16].as_slice(), &attribute(3, &name_of(1))].concat());
    let info = [attribute(1, b"veth"), attribute(2, &peer)].concat();
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let request = netlink::Request::new(libc::RTM_NEWLINK, flags, &[0; 16]);
    socket.change(request.with(3, &name_of(0)).with(18, &info)).unwrap();
}

fn interface(name: &str, hardware: &str) -> Interface {
    Interface { name: name.into(), hwAddr: hardware.into(), ..Default::default() }
}

fn address(text: &str) -> IPAddress {
    let (address, mask) = text.split_once('/').unwrap();
    IPAddress { address: address.into(), mask: mask.into(), ..Default::default() }
}

fn route(dest: &str, gateway: &str, device: &str) -> Route {
    Route { dest: dest.into(), gateway: gateway.into(), device: device.into(), ..Default::default() }
}

async fn update(network: &Network, wanted: &Interface) -> Result<(), Error> {
    network.update_interface(wanted, &Devices::new(Duration::from_millis(50))).await
}

async fn get(network: &Network, name: &str) -> Interface {
    let all = network.interfaces().await.unwrap();
    all.into_iter().find(|interface| interface.name == name).unwrap_or_else(|| panic!("no {name}"))
}

fn ips(interface: &Interface) -> Vec<String> {
    let mut all: Vec<_> = interface
        .IPAddresses
        .iter()
        .map(|ip| format!("{}/{}", ip.address, ip.mask))
        .filter(|ip| !ip.starts_with("fe80:"))
        .collect();
    all.sort();
    all
}

fn is_up(interface: &Interface) -> bool {
    interface.raw_flags & libc::IFF_UP as u32 != 0
}

const A: &str = "02:00:00:00:00:00";
const B: &str = "02:00:00:00:01:00";

#[test]
fn an_interface_becomes_what_is_asked_for() {
    with_links(async |network| {
        let wanted = Interface {
            IPAddresses: vec![address("10.1.0.2/24"), address("fd00::2/64")],
            mtu: 1400,
            raw_flags: libc::IFF_NOARP as u32,
            ..interface("eth0", &A.to_uppercase())
        };
        update(network, &wanted).await.unwrap();
        let made = get(network, "eth0").await;
        assert_eq!((made.hwAddr.as_str(), made.mtu, made.type_.as_str()), (A, 1400, "veth"));
        assert_eq!(ips(&made), ["10.1.0.2/24", "fd00::2/64"]);
        assert!(is_up(&made) && made.raw_flags & libc::IFF_NOARP as u32 != 0, "{:x}", made.raw_flags);
        // Again, with another address: the first ones stay, and so do routes.
        network.update_routes(&[route("", "10.1.0.1", "eth0")]).await.unwrap();
        update(network, &Interface { IPAddresses: vec![address("10.1.0.3/24")], ..wanted }).await.unwrap();
        assert_eq!(ips(&get(network, "eth0").await), ["10.1.0.2/24", "10.1.0.3/24", "fd00::2/64"]);
        assert!(network.routes().await.unwrap().iter().any(|route| route.gateway == "10.1.0.1"));
    });
}

#[test]
fn two_interfaces_swap_their_names_even_while_up() {
    with_links(async |network| {
        update(network, &interface("a0", A)).await.unwrap();
        update(network, &interface("b0", B)).await.unwrap();
        update(network, &interface("a0", B)).await.unwrap();
        assert_eq!(get(network, "a0").await.hwAddr, B);
        let other = get(network, "b0").await;
        assert_eq!(other.hwAddr, A);
        assert!(is_up(&other), "the other goes on as it was");
        update(network, &interface("b0", A)).await.unwrap();
        assert_eq!(get(network, "b0").await.hwAddr, A);
    });
}

#[test]
fn a_link_without_the_address_is_known_by_its_name() {
    with_links(async |network| {
        update(network, &interface("a0", "02:00:00:00:07:07")).await.unwrap();
        assert_eq!(get(network, "a0").await.hwAddr, "02:00:00:00:07:07");
        let error = update(network, &interface("net9", "02:00:00:00:09:09")).await.unwrap_err().to_string();
        assert!(error.starts_with("Link not found: interface.hwAddr: "), "{error}");
        let loopback = update(network, &interface("lo", B)).await.unwrap_err();
        assert!(matches!(&loopback, Error::Field(error) if error.field == "interface.name"), "{loopback}");
        assert_eq!(get(network, "lo").await.hwAddr, "00:00:00:00:00:00");
    });
}

#[test]
fn what_the_kernel_refuses_leaves_a_link_up() {
    with_links(async |network| {
        update(network, &interface("eth0", A)).await.unwrap();
        let error = update(network, &Interface { mtu: 1 << 30, ..interface("eth1", A) }).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("eth1: set mtu 1073741824: ") && text.contains("mtu greater than"),
            "{text}"
        );
        assert!(is_up(&get(network, "eth1").await));
    });
}

#[test]
fn a_card_that_does_not_come_is_named() {
    with_links(async |network| {
        let wanted = Interface { devicePath: "1f/1f".into(), ..interface("eth0", A) };
        let error = update(network, &wanted).await.unwrap_err();
        assert!(matches!(error, Error::Device(_)), "{error}");
        assert!(error.to_string().contains("1f/1f"), "{error}");
        get(network, "a0").await;
    });
}

#[test]
fn routes_are_added_in_whichever_order_and_replaced() {
    with_links(async |network| {
        let wanted = Interface {
            IPAddresses: vec![address("10.1.0.2/24"), address("fd00::2/64")],
            ..interface("eth0", A)
        };
        update(network, &wanted).await.unwrap();
        let direct = Route { scope: 253, source: "10.1.0.2".into(), ..route("10.2.0.0/16", "", "eth0") };
        let all = [
            route("", "10.2.0.1", "eth0"),
            direct.clone(),
            Route { mtu: 1300, ..route("10.3.0.0/16", "10.1.0.1", "eth0") },
            // Not on the link by any route, and used all the same; with what a kernel says of a link without carrier.
            Route { flags: 4 | 16, ..route("10.4.0.0/16", "192.0.2.1", "eth0") },
            route("", "fd00::1", "eth0"),
            Route { source: "fd00::2".into(), ..route("fd01::/64", "", "eth0") },
        ];
        let mut listed = Vec::new();
        for _ in 0..2 {
            listed = network.update_routes(&all).await.unwrap();
        }
        let find = |dest: &str, gateway: &str| {
            let found = listed.iter().find(|route| route.dest == dest && route.gateway == gateway);
            found.unwrap_or_else(|| panic!("no {dest:?} by {gateway:?} in {listed:#?}"))
        };
        assert_eq!(find("", "10.2.0.1").device, "eth0");
        let found = find("10.2.0.0/16", "");
        assert_eq!((found.scope, found.source.as_str()), (253, "10.1.0.2"));
        assert_eq!(find("10.3.0.0/16", "10.1.0.1").mtu, 1300);
        assert_eq!(find("10.4.0.0/16", "192.0.2.1").flags & 4, 4);
        assert_eq!(find("", "fd00::1").family.enum_value(), Ok(types::IPFamily::v6));
        assert_eq!(find("fd01::/64", "").source, "fd00::2");
        assert_eq!(listed.iter().filter(|route| route.dest == "10.2.0.0/16").count(), 1);
        assert!(!listed.iter().any(|route| route.device == "lo"), "only the main table: {listed:#?}");

        // What is listed can be asked for, and changes nothing. (The kernel's own routes of IPv6 have another metric
        // than ours, so that both are there; and it makes those of its own addresses when it likes.)
        let ours = |mut routes: Vec<Route>| {
            routes.retain(|route| !route.dest.starts_with("fe80:"));
            routes.dedup();
            routes
        };
        let again = network.update_routes(&listed).await.unwrap();
        assert_eq!(ours(again), ours(listed));
        // A route to the same network takes the place of the old one.
        let listed = network.update_routes(&[route("", "10.1.0.1", "eth0")]).await.unwrap();
        let default: Vec<_> = listed.iter().filter(|route| route.dest.is_empty()).collect();
        let gateways: Vec<_> = default.iter().map(|route| route.gateway.as_str()).collect();
        assert_eq!(gateways, ["10.1.0.1", "fd00::1"]);
    });
}

#[test]
fn routes_that_cannot_be_say_why() {
    with_links(async |network| {
        let error = network.update_routes(&[route("10.0.0.0/8", "", "eth9")]).await.unwrap_err().to_string();
        assert!(error.starts_with("Link not found: routes.Routes[0].device: "), "{error}");
        update(network, &interface("eth0", A)).await.unwrap();
        let error = network.update_routes(&[route("", "192.0.2.1", "eth0")]).await.unwrap_err().to_string();
        assert!(error.starts_with("route to \"\" by \"192.0.2.1\" on eth0: "), "{error}");
        assert!(error.contains("Nexthop has invalid gateway"), "in the kernel's words: {error}");
        // All are read before any is added.
        let mixed = [route("10.0.0.0/8", "", "eth0"), route("nonsense", "", "eth0")];
        assert!(matches!(network.update_routes(&mixed).await, Err(Error::Field(_))));
        assert!(!network.routes().await.unwrap().iter().any(|route| route.dest == "10.0.0.0/8"));
    });
}

#[test]
fn without_ipv6_its_part_is_left_out() {
    with_links(async |network| {
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        let wanted = Interface {
            IPAddresses: vec![address("10.1.0.2/24"), address("fd00::2/64")],
            ..interface("eth0", A)
        };
        update(network, &wanted).await.unwrap();
        assert_eq!(ips(&get(network, "eth0").await), ["10.1.0.2/24"]);
        let routes = [route("", "fd00::1", "eth0"), route("", "10.1.0.1", "eth0")];
        assert!(network.update_routes(&routes).await.unwrap().iter().all(|route| route.gateway != "fd00::1"));
        let neighbour = ARPNeighbor {
            toIPAddress: Some(address("fd00::9/64")).into(),
            device: "eth0".into(),
            lladdr: B.into(),
            ..Default::default()
        };
        network.add_neighbours(&[neighbour]).await.unwrap();
    });
}

#[test]
fn neighbours_are_added_and_replaced() {
    with_links(async |network| {
        let wanted = Interface {
            IPAddresses: vec![address("10.1.0.2/24"), address("fd00::2/64")],
            ..interface("eth0", A)
        };
        update(network, &wanted).await.unwrap();
        let neighbour = |ip: &str, lladdr: &str| ARPNeighbor {
            toIPAddress: Some(address(&format!("{ip}/0"))).into(),
            device: "eth0".into(),
            lladdr: lladdr.into(),
            ..Default::default()
        };
        let both = [neighbour("10.1.0.9", B), neighbour("fd00::9", B)];
        network.add_neighbours(&both).await.unwrap();
        network.add_neighbours(&[neighbour("10.1.0.9", "02:00:00:00:01:01")]).await.unwrap();
        let arp = std::fs::read_to_string("/proc/thread-self/net/arp").unwrap();
        let line = arp.lines().find(|line| line.starts_with("10.1.0.9 ")).unwrap();
        // 0x6: complete, and permanent.
        assert!(line.contains("0x6 ") && line.contains("02:00:00:00:01:01"), "{line}");
        let error = network.add_neighbours(&[neighbour("10.1.0.8", "")]).await.unwrap_err().to_string();
        assert!(error.starts_with("neighbour 10.1.0.8 on eth0: "), "{error}");
    });
}
