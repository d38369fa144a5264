//! From requests to changed specs. `/dev/null` (1:3), `/dev/zero` (1:5) and `/dev/full` (1:7) stand in for devices.

use std::os::unix::fs::symlink;
use std::time::Duration;

use jail::oci::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType as Type};

use super::*;
use crate::devices::tests::Machine;

/// Long enough for what is there, however busy this machine is.
const SOON: Duration = Duration::from_secs(2);

fn device(type_: &str, id: &str, container_path: &str, options: &[&str]) -> Device {
    Device {
        type_: type_.into(),
        id: id.into(),
        container_path: container_path.into(),
        options: options.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

/// A spec with these entries and a rule for each, with the numbers that the host has.
fn spec(entries: &[(&str, Type, i64, i64)]) -> oci::Spec {
    let mut linux = oci::Linux::default();
    let entry = |(path, typ, major, minor): &(&str, Type, i64, i64)| {
        let mut entry = LinuxDevice::default();
        entry.set_path(path.into()).set_typ(*typ).set_major(*major).set_minor(*minor);
        entry
    };
    let entries: Vec<LinuxDevice> = entries.iter().map(entry).collect();
    let mut resources = oci::LinuxResources::default();
    resources.set_devices(Some(entries.iter().map(LinuxDeviceCgroup::from).map(read_only).collect()));
    linux.set_devices(Some(entries)).set_resources(Some(resources));
    let mut spec = oci::Spec::default();
    spec.set_linux(Some(linux));
    spec
}

fn read_only(mut rule: LinuxDeviceCgroup) -> LinuxDeviceCgroup {
    rule.set_access(Some("r".into()));
    rule
}

fn entries(spec: &oci::Spec) -> Vec<String> {
    let entries = spec.linux().as_ref().unwrap().devices().as_deref().unwrap_or_default().iter();
    entries
        .map(|e| format!("{} {} {}:{}", e.path().display(), e.typ().as_str(), e.major(), e.minor()))
        .collect()
}

fn rules(spec: &oci::Spec) -> Vec<String> {
    let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
    resources.devices().as_deref().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn all_numbers_are_replaced_at_once() {
    let machine = Machine::new(SOON);
    machine.node_like("vda", "/dev/null");
    machine.node_like("vdb", "/dev/zero");
    // On the host the numbers are those that the other one has in the guest.
    let mut spec =
        spec(&[("/dev/a", Type::C, 1, 5), ("/dev/b", Type::C, 1, 3), ("/dev/other", Type::C, 9, 9)]);
    let devices = [device("blk", "/dev/vda", "/dev/a", &[]), device("blk", "/dev/vdb", "/dev/b", &[])];
    machine.devices.resolve(&devices, &mut spec).await.unwrap();
    assert_eq!(entries(&spec), ["/dev/a c 1:3", "/dev/b c 1:5", "/dev/other c 9:9"]);
    let all = rules(&spec);
    assert_eq!(all.len(), 5, "{all:?}");
    for (at, (numbers, access)) in
        [("1:3", "r"), ("1:5", "r"), ("9:9", "r"), ("1:3", "rwm"), ("1:5", "rwm")].into_iter().enumerate()
    {
        assert!(all[at].contains(numbers) && all[at].ends_with(access), "{at}: {all:?}");
    }
}

#[test]
fn every_type_that_is_told_of_is_known() {
    for name in super::TYPES {
        let refused = super::kind(&device(name, "x", "/dev/a", &[])).err();
        assert!(refused.is_none_or(|(field, _)| field != "type"), "{name}");
    }
}

#[tokio::test]
async fn every_bad_field_is_named_and_nothing_is_changed() {
    let machine = Machine::new(SOON);
    machine.node_like("vda", "/dev/null");
    let good = device("mmioblk", "", "/dev/a", &[]);
    let good = Device { vm_path: "/dev/vda".into(), ..good };
    let vfio = |options: &[&str]| device("vfio-pci", "group1", "/dev/b", options);
    let bad = [
        (device("", "10", "/dev/b", &[]), "type: it is empty"),
        (device("floppy", "10", "/dev/b", &[]), "type: \"floppy\""),
        (device("blk", "", "/dev/b", &[]), "id: it is empty, and so is vm_path"),
        (device("blk", "10", "", &[]), "container_path: it is empty"),
        (device("blk", "10", "/dev/c", &[]), "container_path: \"/dev/c\" is not in linux.devices"),
        (device("blk", "10", "/dev/../dev/b", &[]), "container_path: \"/dev/../dev/b\" is not in"),
        (device("blk", "/dev/vda", "/dev/a", &[]), "container_path: \"/dev/a\" is another device's too"),
        (device("blk", "x", "/dev/b", &[]), "id: PCI path \"x\""),
        (device("blk", "/etc/passwd", "/dev/b", &[]), "id: blk address \"/etc/passwd\""),
        (device("scsi", "0:x", "/dev/b", &[]), "id: scsi address \"0:x\""),
        (device("blk-ccw", "9.9.9", "/dev/b", &[]), "id: blk-ccw address"),
        (device("mmioblk", "x", "/dev/b", &[]), "vm_path: it is empty"),
        (Device { vm_path: "vda".into(), ..device("nvdimm", "", "/dev/b", &[]) }, "vm_path: nvdimm address"),
        (vfio(&[]), "options: there is none"),
        (vfio(&["0000:1a:00.0"]), "options: \"0000:1a:00.0\" is not of the form"),
        (vfio(&["1a:00.0=02"]), "options: PCI address \"1a:00.0\""),
        (vfio(&["0000:1a:00.0=../.."]), "options: PCI path \"../..\""),
        (device("vfio-ap", "x", "/dev/b", &["0a"]), "options: \"0a\" is not a queue"),
        (device("blk", &"1".repeat(1 << 20), "/dev/b", &[]), "id: PCI path"),
    ];
    for (bad, text) in bad {
        let before = spec(&[("/dev/a", Type::B, 8, 0), ("/dev/b", Type::B, 8, 16)]);
        let mut after = before.clone();
        let error = machine.devices.resolve(&[good.clone(), bad], &mut after).await.unwrap_err().to_string();
        assert!(error.starts_with("devices[1]: ") && error.contains(text), "{text}: {error}");
        assert!(error.len() < 250, "{} bytes", error.len());
        assert_eq!(after, before, "{text}");
    }
}

#[tokio::test]
async fn one_that_does_not_come_leaves_the_spec_as_it_was() {
    let machine = Machine::new(Duration::from_millis(20));
    machine.node_like("vda", "/dev/null");
    let before = spec(&[("/dev/a", Type::B, 8, 0), ("/dev/b", Type::B, 8, 16)]);
    let mut after = before.clone();
    let devices = [device("blk", "/dev/vda", "/dev/a", &[]), device("blk", "02/01", "/dev/b", &[])];
    let error = machine.devices.resolve(&devices, &mut after).await.unwrap_err().to_string();
    assert_eq!(error, "disk at PCI path 02/01: it did not come within 0.02 s");
    assert_eq!(after, before);
}

/// A function with a group, whose node is like another one's.
fn function(machine: &Machine, slot: &str, group: &str, node: &str, like: &str) {
    let dir = machine.path(&format!("sys/devices/pci0000:00/0000:00:{slot}"));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::create_dir_all(machine.path("sys/bus/pci")).unwrap();
    symlink(format!("../../../kernel/iommu_groups/{group}"), dir.join("iommu_group")).unwrap();
    machine.node_like(&format!("vfio/{node}"), like);
}

fn with_env(mut spec: oci::Spec, env: &[&str]) -> oci::Spec {
    let mut process = oci::Process::default();
    process.set_env(Some(env.iter().map(ToString::to_string).collect()));
    spec.set_process(Some(process));
    spec
}

fn env(spec: &oci::Spec) -> Vec<String> {
    spec.process().as_ref().unwrap().env().clone().unwrap()
}

#[tokio::test]
async fn a_group_is_given_to_vfio_and_has_its_guest_number() {
    let machine = Machine::new(SOON);
    function(&machine, "02.0", "7", "7", "/dev/null");
    function(&machine, "02.1", "7", "7", "/dev/null");
    let bound = machine.path("sys/devices/pci0000:00/0000:00:02.0");
    std::fs::create_dir_all(bound.join("drv")).unwrap();
    symlink("drv", bound.join("driver")).unwrap();
    let mut spec = with_env(
        spec(&[("/dev/vfio/42", Type::C, 239, 0)]),
        &["PCIDEVICE_NET=0000:1a:00.0,0000:1a:00.1", "A=0000:1a:00.0"],
    );
    let options = ["0000:1a:00.0=02", "0000:1a:00.1=02.1"];
    let devices = [device("vfio-pci", "42", "/dev/vfio/42", &options)];
    let addresses = machine.devices.resolve(&devices, &mut spec).await.unwrap();
    assert_eq!(entries(&spec), ["/dev/vfio/7 c 1:3"]);
    assert_eq!(env(&spec), ["PCIDEVICE_NET=0000:00:02.0,0000:00:02.1", "A=0000:1a:00.0"]);
    let mut of_exec = ["PCIDEVICE_NET_INFO={\"0000:1a:00.1\":{}}".to_string()];
    addresses.rewrite(&mut of_exec);
    assert_eq!(of_exec, ["PCIDEVICE_NET_INFO={\"0000:00:02.1\":{}}"]);
    let read = |path: &str| std::fs::read_to_string(machine.path("sys").join(path)).unwrap();
    assert_eq!(read("devices/pci0000:00/0000:00:02.0/driver_override"), "vfio-pci");
    assert_eq!(read("devices/pci0000:00/0000:00:02.0/drv/unbind"), "0000:00:02.0");
    assert_eq!(read("bus/pci/drivers_probe"), "0000:00:02.1", "the last one that was probed");
}

#[tokio::test]
async fn groups_without_an_iommu_have_a_name_of_their_own_and_groups_do_not_mix() {
    let machine = Machine::new(SOON);
    function(&machine, "02.0", "0", "noiommu-0", "/dev/null");
    function(&machine, "03.0", "1", "noiommu-1", "/dev/zero");
    let entries_of = |options: &[&str]| {
        let devices = [device("vfio-pci", "42", "/dev/vfio/42", options)];
        let devices_of = machine.devices.clone();
        async move {
            let mut spec = spec(&[("/dev/vfio/42", Type::C, 239, 0)]);
            devices_of.resolve(&devices, &mut spec).await.map(|_| entries(&spec))
        }
    };
    assert_eq!(entries_of(&["0000:1a:00.0=02"]).await.unwrap(), ["/dev/vfio/noiommu-0 c 1:3"]);
    let error = entries_of(&["0000:1a:00.0=02", "0000:1b:00.0=03"]).await.unwrap_err().to_string();
    assert!(error.contains("PCI path 03") && error.contains("group 1"), "{error}");
}

#[tokio::test]
async fn the_guests_own_drivers_get_addresses_and_infiniband_its_nodes() {
    let machine = Machine::new(SOON);
    let card = machine.path("sys/devices/pci0000:00/0000:00:05.0");
    std::fs::create_dir_all(card.join("infiniband/mlx5_0")).unwrap();
    let other = machine.path("sys/devices/pci0000:00/0000:00:06.0");
    std::fs::create_dir_all(&other).unwrap();
    for (name, like, number, owner) in [
        ("uverbs0", "/dev/null", "1:3", Some(&card)),
        ("uverbs1", "/dev/zero", "1:5", Some(&other)),
        ("rdma_cm", "/dev/full", "1:7", None),
    ] {
        machine.node_like(&format!("infiniband/{name}"), like);
        let char = machine.path("sys/dev/char").join(number);
        std::fs::create_dir_all(&char).unwrap();
        if let Some(owner) = owner {
            symlink(owner, char.join("device")).unwrap();
        }
    }
    let mut spec = with_env(spec(&[]), &["PCIDEVICE_IB=0000:1a:00.0"]);
    // Its container path is that of a node which the host has taken out of the spec.
    let devices = [
        device("vfio-pci-gk", "1", "/dev/vfio/1", &["0000:1a:00.0=05"]),
        device("vfio-pci-gk", "2", "/dev/vfio/2", &["0000:1b:00.0=06"]),
    ];
    machine.devices.resolve(&devices, &mut spec).await.unwrap();
    assert_eq!(entries(&spec), ["/dev/infiniband/rdma_cm c 1:7", "/dev/infiniband/uverbs0 c 1:3"]);
    assert_eq!(rules(&spec).len(), 2);
    assert_eq!(env(&spec), ["PCIDEVICE_IB=0000:00:05.0"]);
}

#[tokio::test]
async fn crypto_queues_are_waited_for_and_share_a_node() {
    let machine = Machine::new(SOON);
    std::fs::create_dir_all(machine.path("sys/devices/ap/card0a/0a.003f")).unwrap();
    machine.node_like("z90crypt", "/dev/null");
    for (kind, queue, there) in [("vfio-ap", "a.3f", true), ("vfio-ap-cold", "0a.0040", false)] {
        let mut spec = spec(&[("/dev/z90crypt", Type::C, 10, 63)]);
        let devices = [device(kind, "x", "/dev/z90crypt", &[queue])];
        let result = machine.devices.resolve(&devices, &mut spec).await;
        assert_eq!(result.is_ok(), there, "{kind} {queue}: {result:?}");
        let expected = if there { "/dev/z90crypt c 1:3" } else { "/dev/z90crypt c 10:63" };
        assert_eq!(entries(&spec), [expected]);
    }
}
