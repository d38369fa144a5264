//! The guest's network: interfaces, routes and neighbours as runtimes ask for them, and the packet filter.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};
use std::time::Duration;

use agent_api::agent::{
    ARPNeighbors, AddARPNeighborsRequest, GetIPTablesRequest, GuestDetailsRequest, ListInterfacesRequest,
    ListRoutesRequest, Routes, SetIPTablesRequest, UpdateInterfaceRequest, UpdateRoutesRequest,
};
use agent_api::types::{ARPNeighbor, IPAddress, IPFamily, Interface, Route};
use e2e::{Boot, Guest, test};
use protobuf::MessageField;
use serde_json::json;
use ttrpc::{Code, context};

use crate::refusal;

const FIRST: &str = "52:54:00:00:00:01";
const SECOND: &str = "52:54:00:00:00:02";

/// A VM without a sandbox and with two cards. QEMU's user-mode network behind the first has the host at 10.0.2.2 and
/// fec0::2, that behind the second at 10.0.3.2.
fn two_cards() -> Boot {
    Boot::new()
        .bare()
        .qemu(&["-netdev", "user,id=n0"])
        .qemu(&["-device", &format!("virtio-net-pci,netdev=n0,mac={FIRST},romfile=")])
        .qemu(&["-netdev", "user,id=n1,net=10.0.3.0/24,ipv6=off"])
        .qemu(&["-device", &format!("virtio-net-pci,netdev=n1,mac={SECOND},romfile=")])
}

#[test]
fn a_network_is_set_up_before_the_sandbox_in_the_order_of_go() {
    two_cards().test(async |guest| {
        guest.agent().check().await.unwrap();
        // The names are the other way round: the kernel has called the first card eth0.
        let wanted = [
            interface("eth1", FIRST, &["10.0.2.15/24", "fec0::15/64"]),
            Interface { mtu: 1400, ..interface("eth0", SECOND, &["10.0.3.15/24"]) },
        ];
        for wanted in wanted {
            assert_eq!(update_interface(guest, &wanted).await.unwrap(), wanted, "the reply is the request");
        }
        let listed = update_routes(
            guest,
            vec![
                route("", "10.0.2.2", "eth1"),
                Route { source: "10.0.2.15".into(), scope: 253, ..route("10.0.2.0/24", "", "eth1") },
                route("192.0.2.0/24", "10.0.3.2", "eth0"),
                Route { family: IPFamily::v6.into(), mtu: 1280, ..route("", "fec0::2", "eth1") },
            ],
        );
        let listed = listed.await.unwrap();
        let has = |dest: &str, gateway: &str, device: &str| {
            listed
                .iter()
                .any(|route| (&*route.dest, &*route.gateway, &*route.device) == (dest, gateway, device))
        };
        assert!(has("", "10.0.2.2", "eth1") && has("192.0.2.0/24", "10.0.3.2", "eth0"), "{listed:#?}");
        assert!(has("10.0.3.0/24", "", "eth0") && has("", "fec0::2", "eth1"), "{listed:#?}");
        add_neighbours(guest, vec![neighbour("10.0.2.9", "eth1", 0)]).await.unwrap();
        guest.create_sandbox().await.unwrap();
        details(guest).await;

        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let seen = container.sh("ip -4 addr; ip link; ip route; cat /proc/net/if_inet6").await;
        for text in ["10.0.2.15/24 brd 10.0.2.255 scope global eth1", "inet 10.0.3.15/24", "mtu 1400"] {
            assert!(seen.contains(text), "{text}: {seen}");
        }
        assert!(seen.contains("default via 10.0.2.2 dev eth1"), "{seen}");
        assert!(seen.contains("fec00000000000000000000000000015"), "{seen}");
        // 6: complete and permanent.
        let arp = container.sh("cat /proc/net/arp").await;
        let line = arp.lines().find(|line| line.starts_with("10.0.2.9 ")).unwrap();
        assert!(line.contains("0x6 ") && line.contains("02:00:00:00:00:09"), "{line}");
        for (host, name) in [("127.0.0.1", "10.0.2.2"), ("127.0.0.1", "10.0.3.2")] {
            assert_eq!(talk(&container, host.parse().unwrap(), name).await, "hello from the host");
        }
    });
}

#[test]
fn a_network_is_set_up_before_the_sandbox_in_the_order_of_rs() {
    two_cards().test(async |guest| {
        for (name, hardware, address) in [("eth0", FIRST, "10.0.2.15/24"), ("eth1", SECOND, "10.0.3.15/24")] {
            update_interface(guest, &interface(name, hardware, &[address])).await.unwrap();
        }
        // Only permanent ones are sent, which has a number here; the gateway is among them.
        let gateway =
            ARPNeighbor { lladdr: "52:55:0a:00:02:02".into(), ..neighbour("10.0.2.2", "eth0", 0x80) };
        add_neighbours(guest, vec![gateway]).await.unwrap();
        update_routes(guest, vec![route("", "10.0.2.2", "eth0")]).await.unwrap();
        guest.create_sandbox().await.unwrap();
        details(guest).await;
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        assert_eq!(talk(&container, "127.0.0.1".parse().unwrap(), "10.0.2.2").await, "hello from the host");
    });
}

#[test]
fn what_there_is_is_listed_and_can_be_asked_for_again() {
    two_cards().test(async |guest| {
        let all = interfaces(guest).await;
        let find = |name: &str| all.iter().find(|interface| interface.name == name).unwrap().clone();
        let loopback = find("lo");
        let address = &loopback.IPAddresses[0];
        assert_eq!((address.address.as_str(), address.mask.as_str()), ("127.0.0.1", "8"));
        assert_eq!((find("eth0").hwAddr.as_str(), find("eth0").mtu), (FIRST, 1500));
        assert!(routes(guest).await.is_empty(), "nothing is up: {:?}", routes(guest).await);

        let wanted =
            Interface { raw_flags: 0x80, ..interface("net0", FIRST, &["10.0.2.15/24", "fec0::15/64"]) };
        update_interface(guest, &wanted).await.unwrap();
        update_routes(guest, vec![route("", "10.0.2.2", "net0")]).await.unwrap();
        let before = routes(guest).await;
        // What is in use goes on as it is.
        update_interface(guest, &Interface { hwAddr: FIRST.to_uppercase(), ..wanted }).await.unwrap();
        let again = update_routes(guest, before.clone()).await.unwrap();
        for route in &before {
            assert!(again.contains(route), "{route:?} is not among {again:#?}");
        }
        let listed = interfaces(guest).await.into_iter().find(|interface| interface.name == "net0").unwrap();
        assert_eq!(listed.raw_flags & 0x80, 0x80, "ARP is off");
        assert!(
            listed.IPAddresses.iter().any(|ip| ip.address == "fec0::15" && ip.mask == "64"),
            "{listed:?}"
        );
    });
}

#[test]
fn a_card_that_is_plugged_in_is_waited_for() {
    let boot = two_cards().qemu(&["-device", "pcie-root-port,id=port0,chassis=1,slot=1,addr=0x18"]);
    boot.test(async |guest| {
        guest.qmp("netdev_add", json!({"type": "user", "id": "n2"})).await;
        // Its address is not the one it is to have: the place counts.
        let wanted = Interface {
            devicePath: "18/00".into(),
            ..interface("net0", "52:54:00:00:00:0a", &["10.0.2.77/24"])
        };
        let plug = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let card = json!({
                "driver": "virtio-net-pci", "netdev": "n2", "bus": "port0", "id": "card",
                "mac": "52:54:00:00:00:03", "romfile": "",
            });
            guest.qmp("device_add", card).await
        };
        let (updated, _) = tokio::join!(update_until_found(guest, &wanted), plug);
        updated.unwrap();
        let made = interfaces(guest).await.into_iter().find(|interface| interface.name == "net0").unwrap();
        assert_eq!(
            (made.hwAddr.as_str(), made.IPAddresses[0].address.as_str()),
            ("52:54:00:00:00:0a", "10.0.2.77")
        );
    });
}

#[test]
fn a_link_that_is_not_there_is_told_in_the_words_that_peers_look_for() {
    test(async |guest| {
        let absent = interface("eth9", "52:54:00:00:00:99", &[]);
        let (code, text) = refusal(update_interface(guest, &absent).await);
        assert_eq!(code, Code::INTERNAL);
        assert!(text.contains("Link not found") && text.contains("52:54:00:00:00:99"), "{text}");
        let (code, text) = refusal(update_routes(guest, vec![route("10.0.0.0/8", "", "eth9")]).await);
        assert!(code == Code::INTERNAL && text.contains("Link not found") && text.contains("eth9"), "{text}");
        let (code, text) = refusal(add_neighbours(guest, vec![neighbour("10.0.0.1", "eth9", 0)]).await);
        assert!(code == Code::INTERNAL && text.contains("Link not found") && text.contains("eth9"), "{text}");
        let nowhere = Interface { devicePath: "1e/1e".into(), ..absent };
        let (code, text) = refusal(update_interface(guest, &nowhere).await);
        assert!(code == Code::INTERNAL && text.contains("1e/1e"), "{text}");
    });
}

#[test]
fn a_bad_field_is_named() {
    test(async |guest| {
        let (agent, ctx) = (guest.agent(), ctx());
        let service = agent.service();
        let missing = [
            ("interface", refusal(service.update_interface(ctx.clone(), &Default::default()).await)),
            ("routes", refusal(service.update_routes(ctx.clone(), &Default::default()).await)),
            ("neighbors", refusal(service.add_arp_neighbors(ctx, &Default::default()).await)),
        ];
        for (field, (code, text)) in missing {
            assert_eq!(code, Code::INVALID_ARGUMENT, "{text}");
            assert!(text.starts_with(&format!("{field}: ")), "{text}");
        }
        let interfaces = [
            ("interface.name", interface("", FIRST, &[])),
            ("interface.name", interface("../lo", FIRST, &[])),
            ("interface.name", interface(&"e".repeat(1 << 20), FIRST, &[])),
            ("interface.hwAddr", interface("eth0", "", &[])),
            ("interface.hwAddr", interface("eth0", "52:54", &[]).also(|to| to.hwAddr.push(':'))),
            ("interface.mtu", interface("eth0", FIRST, &[]).also(|to| to.mtu = u64::MAX)),
            ("interface.devicePath", interface("eth0", FIRST, &[]).also(|to| to.devicePath = "../x".into())),
            ("interface.IPAddresses[0].address", interface("eth0", FIRST, &["10.0.0.256/8"])),
            ("interface.IPAddresses[1].mask", interface("eth0", FIRST, &["10.0.0.1/8", "10.0.0.2/33"])),
        ];
        for (field, wanted) in interfaces {
            names(field, refusal(update_interface(guest, &wanted).await));
        }
        let routes = [
            ("routes.Routes[1].device", route("10.0.0.0/8", "", "")),
            ("routes.Routes[1].dest", route("10.0.0.0/-1", "", "lo")),
            ("routes.Routes[1].gateway", route("", "nowhere", "lo")),
            ("routes.Routes[1].scope", Route { scope: 300, ..route("", "", "lo") }),
            ("routes.Routes[1].source", Route { source: "fd00::1".into(), ..route("10.0.0.0/8", "", "lo") }),
        ];
        for (field, wanted) in routes {
            let good = route("198.51.100.0/24", "", "lo");
            names(field, refusal(update_routes(guest, vec![good, wanted]).await));
        }
        let left = self::routes(guest).await;
        assert!(left.iter().all(|route| route.dest != "198.51.100.0/24"), "all or nothing: {left:?}");
        let neighbours = [
            ("toIPAddress", ARPNeighbor { toIPAddress: None.into(), ..neighbour("10.0.0.1", "lo", 0) }),
            ("toIPAddress.address", neighbour("", "lo", 0)),
            ("device", neighbour("10.0.0.1", "", 0)),
            ("lladdr", ARPNeighbor { lladdr: "x".into(), ..neighbour("10.0.0.1", "lo", 0) }),
            ("state", neighbour("10.0.0.1", "lo", -1)),
        ];
        for (field, wanted) in neighbours {
            let refused = refusal(add_neighbours(guest, vec![wanted]).await);
            names(&format!("neighbors.ARPNeighbors[0].{field}"), refused);
        }
    });
}

#[test]
fn a_guest_without_iptables_says_which_program_it_lacks() {
    test(async |guest| {
        for (is_ipv6, family) in [(false, "iptables"), (true, "ip6tables")] {
            let (agent, save) = (guest.agent(), GetIPTablesRequest { is_ipv6, ..Default::default() });
            let (code, text) = refusal(agent.service().get_ip_tables(ctx(), &save).await);
            assert_eq!(code, Code::INTERNAL);
            assert!(
                text.contains(&format!("/usr/sbin/{family}-save or /sbin/{family}-save: no such")),
                "{text}"
            );
            let restore =
                SetIPTablesRequest { is_ipv6, data: b"*filter\nCOMMIT\n".into(), ..Default::default() };
            let (code, text) = refusal(agent.service().set_ip_tables(ctx(), &restore).await);
            assert_eq!(code, Code::INTERNAL);
            assert!(text.contains(&format!("/usr/sbin/{family}-restore")), "{text}");
        }
    });
}

/// Has a container talk to a listener of the host's over TCP, and returns what it was told.
async fn talk(container: &e2e::Container<'_>, host: IpAddr, name: &str) -> String {
    let listener = TcpListener::bind((host, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 5];
        stream.read_exact(&mut asked).unwrap();
        stream.write_all(b"hello from the host\n").unwrap();
        asked
    });
    let told = container.sh(&format!("echo guest | nc {name} {port}")).await;
    assert_eq!(&host.join().unwrap(), b"guest");
    told
}

fn interface(name: &str, hardware: &str, addresses: &[&str]) -> Interface {
    let addresses = addresses.iter().map(|text| {
        let (address, mask) = text.split_once('/').unwrap();
        IPAddress { address: address.into(), mask: mask.into(), ..Default::default() }
    });
    Interface {
        device: name.into(),
        name: name.into(),
        hwAddr: hardware.into(),
        IPAddresses: addresses.collect(),
        ..Default::default()
    }
}

trait Also: Sized {
    fn also(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Also for Interface {}

fn route(dest: &str, gateway: &str, device: &str) -> Route {
    Route { dest: dest.into(), gateway: gateway.into(), device: device.into(), ..Default::default() }
}

fn neighbour(address: &str, device: &str, state: i32) -> ARPNeighbor {
    ARPNeighbor {
        toIPAddress: MessageField::some(IPAddress { address: address.into(), ..Default::default() }),
        device: device.into(),
        lladdr: "02:00:00:00:00:09".into(),
        state,
        ..Default::default()
    }
}

fn ctx() -> context::Context {
    context::with_duration(Duration::from_secs(30))
}

async fn update_interface(guest: &Guest, wanted: &Interface) -> ttrpc::Result<Interface> {
    let request =
        UpdateInterfaceRequest { interface: MessageField::some(wanted.clone()), ..Default::default() };
    guest.agent().service().update_interface(ctx(), &request).await
}

/// As peers do: a few times, for cards take their time to come.
async fn update_until_found(guest: &Guest, wanted: &Interface) -> ttrpc::Result<Interface> {
    for _ in 0..10 {
        match update_interface(guest, wanted).await {
            Ok(updated) => return Ok(updated),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    update_interface(guest, wanted).await
}

async fn update_routes(guest: &Guest, wanted: Vec<Route>) -> ttrpc::Result<Vec<Route>> {
    let routes = MessageField::some(Routes { Routes: wanted, ..Default::default() });
    let request = UpdateRoutesRequest { routes, ..Default::default() };
    Ok(guest.agent().service().update_routes(ctx(), &request).await?.Routes)
}

async fn add_neighbours(guest: &Guest, wanted: Vec<ARPNeighbor>) -> ttrpc::Result<()> {
    let neighbors = MessageField::some(ARPNeighbors { ARPNeighbors: wanted, ..Default::default() });
    let request = AddARPNeighborsRequest { neighbors, ..Default::default() };
    guest.agent().service().add_arp_neighbors(ctx(), &request).await.map(drop)
}

async fn interfaces(guest: &Guest) -> Vec<Interface> {
    let listed = guest.agent().service().list_interfaces(ctx(), &ListInterfacesRequest::new()).await;
    listed.unwrap().Interfaces
}

async fn routes(guest: &Guest) -> Vec<Route> {
    guest.agent().service().list_routes(ctx(), &ListRoutesRequest::new()).await.unwrap().Routes
}

async fn details(guest: &Guest) {
    let request = GuestDetailsRequest { mem_block_size: true, mem_hotplug_probe: true, ..Default::default() };
    guest.agent().service().get_guest_details(ctx(), &request).await.unwrap();
}

fn names(field: &str, (code, text): (Code, String)) {
    assert_eq!(code, Code::INVALID_ARGUMENT, "{text}");
    assert!(text.starts_with(&format!("{field}: ")) && text.len() < 300, "{field}: {text}");
}
