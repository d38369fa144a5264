//! Devices that the host names by where they are plugged: found at once or when they come, and put into containers.

use std::time::{Duration, Instant};

use agent_api::agent::Device;
use agent_api::oci::{LinuxDevice, LinuxDeviceCgroup};
use e2e::{Boot, Container, ContainerBuilder, Disk, Guest, code, storage};
use serde_json::json;
use sha2::{Digest, Sha256};
use ttrpc::Code;

use crate::noise;

/// What stands at the beginning of every disk here, each time something else.
fn content(seed: u8) -> Vec<u8> {
    let mut content = noise(64 << 10).next_chunk(64 << 10).unwrap();
    content[0] = seed;
    content
}

fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn device(type_: &str, id: &str, vm_path: &str, container_path: &str) -> Device {
    Device {
        type_: type_.into(),
        id: id.into(),
        vm_path: vm_path.into(),
        container_path: container_path.into(),
        ..Default::default()
    }
}

/// Numbers that nothing has in the guest: those of the host.
const HOST: (i64, i64) = (8, 4095);

/// With a device, and the entry and the rule that its host has for it.
fn with<'g>(container: ContainerBuilder<'g>, type_: &str, device: Device) -> ContainerBuilder<'g> {
    let (path, type_) = (device.container_path.clone(), type_.to_string());
    let container = container.request(|request| request.devices.push(device));
    container.linux(|linux| {
        linux.Devices.push(LinuxDevice {
            Path: path,
            Type: type_.clone(),
            Major: HOST.0,
            Minor: HOST.1,
            FileMode: 0o600,
            ..Default::default()
        });
        linux.Resources.mut_or_insert_default().Devices.push(LinuxDeviceCgroup {
            Allow: true,
            Type: type_,
            Major: HOST.0,
            Minor: HOST.1,
            Access: "rw".into(),
            ..Default::default()
        });
    })
}

/// The digest of what the container reads there, and whether its numbers are those of the disk called `name`.
async fn reads(container: &Container<'_>, path: &str, name: &str) -> String {
    let script = format!(
        "set -- $(stat -c '0x%t 0x%T' {path}); n=$(($1)):$(($2))
        [ $n = $(cat /sys/class/block/{name}/dev) ] || echo {path} is $n, not $(cat /sys/class/block/{name}/dev)
        head -c 65536 {path} | sha256sum | cut -d ' ' -f 1"
    );
    container.sh(&script).await
}

/// The names of the guest's disks, without their partitions.
async fn disks(guest: &Guest) -> Vec<String> {
    let names = guest.container("disks").args(&["ls", "/sys/block"]).run().await.ok();
    names.split_whitespace().filter(|name| !name.starts_with("loop")).map(String::from).collect()
}

/// A root port and its name as a bus; behind it is bus `port` + slot 0.
fn port(id: &str, number: u8, more: &str) -> [String; 2] {
    ["-device".into(), format!("pcie-root-port,id={id},chassis={number},slot={number}{more}")]
}

#[test]
fn disks_that_were_there_at_boot_need_no_event() {
    let (first, second, third) = (Disk::with(&content(1)), Disk::with(&content(2)), Disk::with(&content(3)));
    let behind = port("rp", 1, ",addr=0x1c");
    let below_expander = port("xrp", 2, ",bus=pxb");
    let args = [
        // The firmware that is quicker does not look behind expander bridges.
        "-bios",
        "bios-256k.bin",
        &behind[0],
        &behind[1],
        "-drive",
        &second.drive("second"),
        "-device",
        "virtio-blk-pci,drive=second,bus=rp",
        "-device",
        "pxb-pcie,id=pxb,bus_nr=0x20,bus=pcie.0",
        &below_expander[0],
        &below_expander[1],
        "-drive",
        &third.drive("third"),
        "-device",
        "virtio-blk-pci,drive=third,bus=xrp",
    ];
    Boot::new().disk(&first).qemu(&args).test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]);
        let container = with(container, "b", device("blk", "10", "", "/dev/first"));
        let container = with(container, "b", device("blk", "1c/00", "", "/dev/second"));
        let container = with(container, "b", device("blk", "20/00/00", "", "/dev/third"));
        let begun = Instant::now();
        let container = container.start().await;
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "nothing had to be waited for: {:?}",
            begun.elapsed()
        );
        let mut names = disks(guest).await;
        for (path, seed) in [("/dev/first", 1), ("/dev/second", 2), ("/dev/third", 3)] {
            // Which letter each got is the kernel's to say.
            let mut said = Vec::new();
            for name in &names {
                said.push(reads(&container, path, name).await);
            }
            let at = said.iter().position(|said| *said == digest(&content(seed)));
            let at = at.unwrap_or_else(|| panic!("{path}: {said:?}"));
            names.remove(at);
        }
        // A disk whose node has a name of its own, asked for by that name.
        let by_name = guest.container("c2").args(&["sleep", "1000"]);
        let by_name = with(by_name, "b", device("mmioblk", "", "/dev/vda", "/dev/disk")).start().await;
        let said = reads(&by_name, "/dev/disk", "vda").await;
        assert!((1..=3).any(|seed| said == digest(&content(seed))), "{said}");
    });
}

#[test]
fn a_disk_that_is_plugged_while_the_agent_waits_is_found_and_its_partition_is_not() {
    let mut table = content(7);
    // One partition of type 83, from sector 8 on, 16 sectors long.
    table[446..510].fill(0);
    table[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 3, 0, 8, 0, 0, 0, 16, 0, 0, 0]);
    table[510..512].copy_from_slice(&[0x55, 0xaa]);
    let disk = Disk::with(&table);
    let behind = port("rp", 1, ",addr=0x1c");
    Boot::new().qemu(&[&behind[0], &behind[1]]).test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]);
        let creating = with(container, "b", device("blk", "1c/00", "", "/dev/disk")).start();
        let plugging = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            plug(guest, &disk, "hot", json!({"driver": "virtio-blk-pci", "bus": "rp"})).await;
        };
        let (container, ()) = tokio::join!(creating, plugging);
        let partitions = container.sh("ls -d /sys/class/block/vda?*").await;
        assert_eq!(partitions, "/sys/class/block/vda1", "the kernel has read the table");
        assert_eq!(reads(&container, "/dev/disk", "vda").await, digest(&table));
    });
}

/// Plugs a disk of this id.
async fn plug(guest: &Guest, disk: &Disk, id: &str, mut device: serde_json::Value) {
    let file = json!({"driver": "file", "filename": disk.path()});
    guest.qmp("blockdev-add", json!({"driver": "raw", "node-name": id, "file": file})).await;
    device["drive"] = id.into();
    device["id"] = format!("{id}-device").into();
    guest.qmp("device_add", device).await;
}

#[test]
fn scsi_disks_are_found_on_any_host() {
    let (cold, hot) = (Disk::with(&content(1)), Disk::with(&content(2)));
    let args = [
        "-device",
        "virtio-scsi-pci,id=s0",
        "-device",
        "virtio-scsi-pci,id=s1",
        "-drive",
        &cold.drive("cold"),
        "-device",
        "scsi-hd,drive=cold,bus=s0.0,scsi-id=1,lun=3",
    ];
    Boot::new().qemu(&args).test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]);
        let container = with(container, "b", device("scsi", "1:3", "", "/dev/cold"));
        let creating = with(container, "b", device("scsi", "2:1", "", "/dev/hot")).start();
        let plugging = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let place = json!({"driver": "scsi-hd", "bus": "s1.0", "scsi-id": 2, "lun": 1});
            plug(guest, &hot, "hot", place).await;
        };
        let (container, ()) = tokio::join!(creating, plugging);
        assert_eq!(reads(&container, "/dev/cold", "sda").await, digest(&content(1)));
        assert_eq!(reads(&container, "/dev/hot", "sdb").await, digest(&content(2)));
    });
}

/// Files are mapped where they are if the memory has page structures: virtio-pmem has from the start, an NVDIMM once its
/// namespace is made for it.
#[test]
fn persistent_memory_is_a_disk_and_its_files_need_no_second_copy() {
    let (files, raw) = (Disk::ext4_in_pages(128), Disk::with(&content(2)));
    raw.file().set_len(128 << 20).unwrap();
    let backend = |id: &str, disk: &Disk| {
        format!("memory-backend-file,id={id},share=on,mem-path={},size=128M", disk.path().display())
    };
    let args = [
        "-machine",
        "nvdimm=on",
        "-m",
        "slots=2,maxmem=2G",
        "-object",
        &backend("m0", &raw),
        "-device",
        "nvdimm,memdev=m0",
        "-object",
        &backend("m1", &files),
        "-device",
        "virtio-pmem-pci,memdev=m1",
    ];
    Boot::new().qemu(&args).test(async |guest| {
        assert_eq!(disks(guest).await, ["pmem0", "pmem1"]);
        let container = guest.container("c1").args(&["sleep", "1000"]);
        let container = with(container, "b", device("nvdimm", "", "/dev/pmem0", "/dev/p0"));
        let container = with(container, "b", device("nvdimm", "", "/dev/pmem1", "/dev/p1")).start().await;
        // Which of the two is found first is the kernel's to say.
        let said = [reads(&container, "/dev/p0", "pmem0").await, reads(&container, "/dev/p1", "pmem1").await];
        let raw = said.iter().position(|said| *said == digest(&content(2)));
        let files = 1 - raw.unwrap_or_else(|| panic!("neither is the raw one: {said:?}"));
        let at = "/run/kata-containers/sandbox/storage/pmem";
        let volume = storage("nvdimm", &format!("/dev/pmem{files}"), "ext4", &["dax=always"], at);
        let script = "mount | grep ' /vol '; echo written by the guest > /vol/file; cat /vol/file";
        let container = guest.container("c2").sh(script).mount("/vol", "bind", at, &["rbind", "rw"]);
        let said = container.request(|request| request.storages = vec![volume]).run().await.ok();
        assert!(said.contains("dax=always") && said.ends_with("written by the guest"), "{said}");
    });
    let bytes = std::fs::read(files.path()).unwrap();
    let written = b"written by the guest\n";
    assert!(bytes.windows(written.len()).any(|window| window == written), "it is in the host's file");
}

#[test]
fn a_device_that_never_comes_is_named_in_time_and_leaves_nothing() {
    let disk = Disk::with(&content(1));
    Boot::new().disk(&disk).cmdline("agent.hotplug_timeout=1").test(async |guest| {
        let left = async || {
            let script =
                "cat /proc/1/mounts | wc -l; ls /guest/cgroup/e2e | grep -c absent; ls /guest/run | wc -l";
            let sees = guest.container("looks").sees_guest().sh(script);
            sees.mount("/guest/run", "bind", agent_api::paths::RUN, &["bind"]).run().await.text().to_string()
        };
        let before = left().await;
        for (type_, id) in [("blk", "1f/01"), ("scsi", "0:77"), ("blk", "10/00"), ("blk-ccw", "0.0.0001")] {
            let container = with(guest.container("absent"), "b", device(type_, id, "", "/dev/disk"));
            // Another one that is there does not make up for it.
            let container = with(container, "b", device("blk", "10", "", "/dev/there"));
            let begun = Instant::now();
            let refused = container.try_create().await;
            let took = begun.elapsed();
            assert_eq!(code(&refused), Code::INTERNAL);
            let text = refused.unwrap_err().to_string();
            assert!(text.contains(id) && text.contains("within 1 s"), "{text}");
            assert!(took > Duration::from_millis(900) && took < Duration::from_secs(10), "{took:?}");
        }
        assert_eq!(left().await, before);
        let container = with(guest.container("absent"), "b", device("blk", "10", "", "/dev/disk"));
        assert_eq!(container.sh("head -c 1 /dev/disk | od -An -tu1").run().await.ok(), "1");
    });
}

#[test]
fn bad_fields_are_named() {
    e2e::test(async |guest| {
        let good = device("mmioblk", "", "/dev/null", "/dev/disk");
        let bad = [
            (Device { type_: String::new(), ..good.clone() }, "type: it is empty"),
            (Device { type_: "floppy".into(), ..good.clone() }, "type: \"floppy\""),
            (Device { vm_path: String::new(), ..good.clone() }, "id: it is empty, and so is vm_path"),
            (Device { container_path: String::new(), ..good.clone() }, "container_path: it is empty"),
            (device("blk", "../../etc", "", "/dev/disk"), "id: PCI path \"../../etc\""),
            (device("mmioblk", "x", "/dev/../etc/passwd", "/dev/disk"), "vm_path: mmioblk address"),
            (device("scsi", "1", "", "/dev/disk"), "id: scsi address \"1\""),
            (device("blk-ccw", "1.2.3.4", "", "/dev/disk"), "id: blk-ccw address"),
            (device("nvdimm", "x", "/dev/pmemory", "/dev/disk"), "vm_path: nvdimm address"),
            (device("vfio-pci", "7", "", "/dev/disk"), "options: there is none"),
        ];
        for (bad, expected) in bad {
            let refused = with(guest.container("bad"), "b", bad).try_create().await;
            assert_eq!(code(&refused), Code::INTERNAL);
            let text = refused.unwrap_err().to_string();
            assert!(text.contains(&format!("devices[0]: {expected}")), "{expected}: {text}");
        }
        let elsewhere = guest.container("bad").request(|request| request.devices.push(good.clone()));
        let text = elsewhere.try_create().await.unwrap_err().to_string();
        assert!(text.contains("\"/dev/disk\" is not in linux.devices"), "{text}");
        let twice = with(with(guest.container("bad"), "b", good.clone()), "b", good);
        let text = twice.try_create().await.unwrap_err().to_string();
        assert!(text.contains("devices[1]: container_path: \"/dev/disk\" is another device's too"), "{text}");
    });
}

#[test]
fn a_card_is_handed_to_a_driver_in_the_container() {
    let args = ["-netdev", "user,id=n,restrict=on", "-device", "virtio-net-pci,netdev=n,addr=0x12"];
    Boot::new().qemu(&args).cmdline("vfio.enable_unsafe_noiommu_mode=1").test(async |guest| {
        let vfio = |host_group: &str| Device {
            options: vec!["0000:1a:00.0=12".into()],
            ..device("vfio-pci", "group", "", &format!("/dev/vfio/{host_group}"))
        };
        let driver = "readlink /sys/bus/pci/devices/0000:00:12.0/driver; echo $(ls /sys/class/net)";
        let before = guest.container("before").sh(driver).run().await.ok();
        assert!(before.contains("virtio-pci") && before.contains("eth0"), "{before}");

        let container = guest.container("c1").args(&["sleep", "1000"]).privileged();
        let container = with(container, "c", vfio("42"));
        let container = container.process(|process| {
            process.Env.push("PCIDEVICE_NET=0000:1a:00.0".into());
            process.Env.push("PCIDEVICE_NET_INFO={\"0000:1a:00.0\":{}}".into());
        });
        let container = container.start().await;
        let script = format!(
            "ls /dev/vfio; stat -c '%t:%T' /dev/vfio/noiommu-0; {driver}
            tr '\\0' '\\n' < /proc/1/environ | grep PCIDEVICE | sort
            tr ':' ' ' < /sys/class/vfio/noiommu-0/dev | xargs printf '%x:%x\\n'
            true < /dev/vfio/noiommu-0 && echo opened"
        );
        let said = container.sh(&script).await;
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[0], "noiommu-0", "{said}");
        assert!(lines[2].ends_with("/vfio-pci"), "{said}");
        assert!(!lines[3].contains("eth0"), "the card is nobody else's: {said}");
        assert_eq!(lines[4], "PCIDEVICE_NET=0000:00:12.0", "{said}");
        assert_eq!(lines[5], "PCIDEVICE_NET_INFO={\"0000:00:12.0\":{}}", "{said}");
        assert_eq!(lines[1], lines[6], "{said}");
        assert_eq!(lines[7], "opened", "{said}");
        let shows = ["/bin/sh", "-c", "echo $PCIDEVICE_X"];
        let later = container.exec(&shows);
        let later = later.process(|process| process.Env.push("PCIDEVICE_X=0000:1a:00.0,x".into()));
        assert_eq!(later.run().await.ok(), "0000:00:12.0,x");
        container.remove().await;

        // Again, now that it has the driver already; and for the guest's own drivers, without a node.
        with(guest.container("c2").sh("ls /dev/vfio/noiommu-0"), "c", vfio("43")).run().await.ok();
        let own = Device { type_: "vfio-pci-gk".into(), ..vfio("44") };
        let own = guest.container("c3").args(&shows).request(|all| all.devices.push(own));
        let own = own.process(|process| process.Env.push("PCIDEVICE_X=0000:1a:00.0".into()));
        assert_eq!(own.run().await.ok(), "0000:00:12.0");
    });
}

#[test]
fn memory_that_is_plugged_is_used_at_once() {
    Boot::new().qemu(&["-m", "slots=2,maxmem=2G"]).test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let total = async || {
            let said = container.sh("awk '/MemTotal/ {print $2}' /proc/meminfo").await;
            said.parse::<u64>().unwrap()
        };
        let before = total().await;
        guest
            .qmp(
                "object-add",
                json!({"qom-type": "memory-backend-memfd", "id": "m", "size": 256 << 20, "share": true}),
            )
            .await;
        guest.qmp("device_add", json!({"driver": "pc-dimm", "id": "d", "memdev": "m"})).await;
        while total().await < before + (250 << 10) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}
