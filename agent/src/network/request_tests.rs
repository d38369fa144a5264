//! Requests with everything in them that can be wrong.

use super::*;

const MAC: &str = "02:00:CA:fe:00:01";

fn plain() -> types::Interface {
    types::Interface { name: "eth0".into(), hwAddr: MAC.into(), ..Default::default() }
}

fn address(address: &str, mask: &str) -> types::IPAddress {
    types::IPAddress { address: address.into(), mask: mask.into(), ..Default::default() }
}

#[test]
fn an_interface_is_read() {
    let wanted = types::Interface {
        IPAddresses: vec![address("10.0.2.15", "24"), address("fd00::1", "64")],
        mtu: 1400,
        devicePath: "02/01".into(),
        raw_flags: 0x80,
        ..plain()
    };
    let read = interface(&wanted).unwrap();
    assert_eq!(read.hardware, [2, 0, 0xca, 0xfe, 0, 1]);
    let addresses: Vec<String> =
        read.addresses.iter().map(|address| format!("{}/{}", address.ip, address.prefix)).collect();
    assert_eq!(addresses, ["10.0.2.15/24", "fd00::1/64"]);
    assert_eq!((read.mtu, read.no_arp), (Some(1400), true));
    assert_eq!(read.card.unwrap().to_string(), "02/01");
    let read = interface(&plain()).unwrap();
    assert_eq!((read.mtu, read.no_arp, read.card), (None, false, None));
}

#[test]
fn each_bad_field_of_an_interface_is_named() {
    let with = |change: fn(&mut types::Interface)| {
        let mut wanted = plain();
        change(&mut wanted);
        interface(&wanted).unwrap_err().field
    };
    assert_eq!(with(|wanted| wanted.hwAddr.clear()), "interface.hwAddr");
    assert_eq!(with(|wanted| wanted.mtu = u64::MAX), "interface.mtu");
    assert_eq!(with(|wanted| wanted.devicePath = "../..".into()), "interface.devicePath");
    for mac in ["02:00", "x", ":", "2:0:ca:fe:0:1", "02-00-ca-fe-00-01", &"00:".repeat(1 << 20), "+2:00"] {
        let wanted = types::Interface { hwAddr: mac.into(), ..plain() };
        match interface(&wanted) {
            Err(error) => assert!(error.field == "interface.hwAddr" && error.problem.len() < 200, "{error}"),
            // Addresses of other lengths than Ethernet's are the kernel's to judge.
            Ok(read) => assert_eq!((mac, read.hardware.len()), ("02:00", 2)),
        }
    }
    for name in ["", ".", "..", "a/b", "a b", "a:b", "eth%d", "a\0", "ü", "sixteen-letters!"] {
        let wanted = types::Interface { name: name.into(), ..plain() };
        assert_eq!(interface(&wanted).unwrap_err().field, "interface.name", "{name:?}");
    }
    let bad = [
        ("", "24"),
        ("10.0.0", "24"),
        ("10.0.0.1/24", "24"),
        ("fe80::1%eth0", "64"),
        ("10.0.0.1", ""),
        ("10.0.0.1", "33"),
        ("10.0.0.1", "-1"),
        ("10.0.0.1", "+1"),
        ("10.0.0.1", "255.255.255.0"),
        ("fd00::1", "129"),
        ("fd00::1", "99999999999999999999"),
    ];
    for (ip, mask) in bad {
        let wanted =
            types::Interface { IPAddresses: vec![address("::1", "1"), address(ip, mask)], ..plain() };
        let error = interface(&wanted).unwrap_err();
        assert!(error.field.starts_with("interface.IPAddresses[1]."), "{ip}/{mask}: {error}");
    }
}

fn to(dest: &str, gateway: &str) -> types::Route {
    types::Route { dest: dest.into(), gateway: gateway.into(), device: "eth0".into(), ..Default::default() }
}

fn network(dest: &str, gateway: &str) -> (bool, Option<String>) {
    let route = routes(&[to(dest, gateway)]).unwrap().remove(0).what;
    (route.ipv6, route.network.map(|(ip, prefix)| format!("{ip}/{prefix}")))
}

#[test]
fn destinations_are_networks_hosts_or_everything() {
    assert_eq!(network("10.1.0.0/16", ""), (false, Some("10.1.0.0/16".into())));
    assert_eq!(network("10.1.0.1", ""), (false, Some("10.1.0.1/32".into())));
    assert_eq!(network("fd00::/8", ""), (true, Some("fd00::/8".into())));
    for (dest, gateway, ipv6) in [
        ("", "10.0.0.1", false),
        ("", "fd00::1", true),
        ("", "", false),
        ("0.0.0.0", "10.0.0.1", false),
        ("0.0.0.0/0", "", false),
        ("::/0", "", true),
        ("::", "fd00::1", true),
        // How the peer lists a default route of IPv6.
        ("::1", "fd00::1", true),
    ] {
        assert_eq!(network(dest, gateway), (ipv6, None), "{dest:?} {gateway:?}");
    }
    assert_eq!(network("::1", ""), (true, Some("::1/128".into())));
    let v6 = types::Route { family: types::IPFamily::v6.into(), ..to("", "") };
    assert!(routes(&[v6]).unwrap()[0].what.ipv6);
}

#[test]
fn routes_to_gateways_come_last_and_the_order_is_kept_otherwise() {
    let sorted = routes(&[
        to("", "10.0.0.1"),
        to("10.0.0.0/24", ""),
        to("10.9.0.0/16", "10.0.0.1"),
        to("10.0.0.1", "0.0.0.0"),
    ]);
    let order: Vec<String> = sorted.unwrap().into_iter().map(|route| route.field).collect();
    assert_eq!(order, [1, 3, 0, 2].map(|at| format!("routes.Routes[{at}].device")));
}

#[test]
fn each_bad_field_of_a_route_is_named() {
    let field = |change: fn(&mut types::Route)| {
        let mut wanted = to("10.0.0.0/8", "");
        change(&mut wanted);
        routes(&[to("", ""), wanted]).unwrap_err().field
    };
    assert_eq!(field(|route| route.device.clear()), "routes.Routes[1].device");
    assert_eq!(field(|route| route.device = "a/b".into()), "routes.Routes[1].device");
    assert_eq!(field(|route| route.dest = "10.0.0.0/33".into()), "routes.Routes[1].dest");
    assert_eq!(field(|route| route.dest = "/8".into()), "routes.Routes[1].dest");
    assert_eq!(field(|route| route.dest = "default".into()), "routes.Routes[1].dest");
    assert_eq!(field(|route| route.gateway = "<nil>".into()), "routes.Routes[1].gateway");
    assert_eq!(field(|route| route.source = "fd00::1".into()), "routes.Routes[1].source");
    assert_eq!(field(|route| route.scope = 256), "routes.Routes[1].scope");
    let unknown = |route: &mut types::Route| route.family = protobuf::EnumOrUnknown::from_i32(7);
    assert_eq!(field(unknown), "routes.Routes[1].family");
}

#[test]
fn a_neighbour_is_permanent_unless_it_says_otherwise() {
    let wanted = |state| types::ARPNeighbor {
        toIPAddress: Some(address("10.0.0.9", "")).into(),
        device: "eth0".into(),
        lladdr: MAC.into(),
        state,
        ..Default::default()
    };
    let read = neighbours(&[wanted(0), wanted(4)]).unwrap();
    assert_eq!((read[0].what.state, read[1].what.state), (0x80, 4));
    assert_eq!((read[0].what.ip.to_string(), read[0].what.address.len()), ("10.0.0.9".to_string(), 6));
}

#[test]
fn each_bad_field_of_a_neighbour_is_named() {
    let field = |change: fn(&mut types::ARPNeighbor)| {
        let mut wanted = types::ARPNeighbor {
            toIPAddress: Some(address("10.0.0.9", "")).into(),
            device: "eth0".into(),
            ..Default::default()
        };
        change(&mut wanted);
        neighbours(&[wanted]).unwrap_err().field
    };
    assert_eq!(field(|to| to.toIPAddress = None.into()), "neighbors.ARPNeighbors[0].toIPAddress");
    assert_eq!(
        field(|to| to.toIPAddress = Some(address("", "")).into()),
        "neighbors.ARPNeighbors[0].toIPAddress.address"
    );
    assert_eq!(field(|to| to.device.clear()), "neighbors.ARPNeighbors[0].device");
    assert_eq!(field(|to| to.lladdr = "zz".into()), "neighbors.ARPNeighbors[0].lladdr");
    assert_eq!(field(|to| to.state = -1), "neighbors.ARPNeighbors[0].state");
    assert_eq!(field(|to| to.flags = 256), "neighbors.ARPNeighbors[0].flags");
}
