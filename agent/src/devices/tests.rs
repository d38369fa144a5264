//! Lookups and waits on a tree of our own. Nodes are links to this machine's devices, whose numbers are known.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;

/// A `/sys` and a `/dev`.
pub(super) struct Machine {
    root: tempfile::TempDir,
    pub(super) devices: Arc<Devices>,
}

/// `/dev/null` stands in for a disk's node.
const NULL: (&str, &str) = ("1", "3");

impl Machine {
    pub(super) fn new(limit: Duration) -> Self {
        let root = tempfile::tempdir().unwrap();
        for dir in ["sys/devices/pci0000:00", "dev"] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let devices = Devices { tree: Tree::at(root.path()), ..Devices::new(limit) };
        Self { root, devices: Arc::new(devices) }
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// A device's directory below `/sys`, and its node.
    pub(super) fn device(&self, dir: &str, name: &str) {
        self.directory(dir, name, NULL);
        self.node(name);
    }

    fn directory(&self, dir: &str, name: &str, (major, minor): (&str, &str)) {
        let dir = self.path("sys").join(dir);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("uevent"), format!("MAJOR={major}\nMINOR={minor}\nDEVNAME={name}\n"))
            .unwrap();
    }

    fn node(&self, name: &str) {
        self.node_like(name, "/dev/null");
    }

    /// A node with the numbers of one of this machine's.
    pub(super) fn node_like(&self, name: &str, like: &str) {
        let node = self.path("dev").join(name);
        std::fs::create_dir_all(node.parent().unwrap()).unwrap();
        let _ = symlink(like, node);
    }

    async fn look(&self, driver: &str, source: &str) -> Result<String, String> {
        let found = self.devices.block_node(&Address::of(driver, source).unwrap()).await;
        found.map(|node| node.to_str().unwrap().into()).map_err(|error| error.to_string())
    }

    fn wake(&self) {
        self.devices.events.send_replace(());
    }
}

const NOW: Duration = Duration::ZERO;
const SLOT: &str = "devices/pci0000:00/0000:00:10.0";

#[tokio::test]
async fn what_is_there_is_found_without_any_event() {
    let machine = Machine::new(NOW);
    machine.device(&format!("{SLOT}/virtio3/block/vda"), "vda");
    machine.device(&format!("{SLOT}/virtio3/block/vda/vda1"), "vda1");
    machine.device("bus/ccw/devices/0.0.00af/virtio1/block/vdb", "vdb");
    machine.node("pmem0");
    assert_eq!(machine.look("blk", "10").await.unwrap(), "/dev/vda", "the disk, and not its partition");
    assert_eq!(machine.look("blk", "/dev/vda").await.unwrap(), "/dev/vda");
    assert_eq!(machine.look("mmioblk", "/dev/vdb").await.unwrap(), "/dev/vdb");
    assert_eq!(machine.look("blk-ccw", "0.0.00AF").await.unwrap(), "/dev/vdb");
    assert_eq!(machine.look("nvdimm", "/dev/pmem0").await.unwrap(), "/dev/pmem0");
}

#[tokio::test]
async fn what_is_not_there_is_named_when_the_time_is_up() {
    let machine = Machine::new(Duration::from_millis(30));
    // Each is almost there: another slot, no disk behind the card yet, no node, another device's node, a plain file.
    machine.device(&format!("{SLOT}/virtio3/block/vda"), "vda");
    std::fs::create_dir_all(machine.path("sys/devices/pci0000:00/0000:00:12.0/virtio4")).unwrap();
    machine.directory("devices/pci0000:00/0000:00:13.0/virtio5/block/vdb", "vdb", NULL);
    machine.directory("devices/pci0000:00/0000:00:14.0/virtio6/block/vda", "vda", ("1", "4"));
    std::fs::write(machine.path("dev/vdc"), "no device").unwrap();
    for (driver, source) in
        [("blk", "11"), ("blk", "12"), ("blk", "13"), ("blk", "14"), ("blk", "/dev/vdc"), ("scsi", "0:1")]
    {
        let error = machine.look(driver, source).await.unwrap_err();
        assert!(error.contains(source) && error.contains("0.03 s"), "{error}");
    }
}

#[tokio::test]
async fn one_that_comes_is_found_with_its_event() {
    let machine = Machine::new(Duration::from_secs(30));
    let devices = machine.devices.clone();
    let address = Address::of("blk", "10").unwrap();
    let waiting = tokio::spawn(async move { devices.block_node(&address).await });
    let settle = || tokio::time::sleep(Duration::from_millis(20));
    settle().await;
    machine.directory(&format!("{SLOT}/virtio3/block/vda"), "vda", NULL);
    machine.wake();
    settle().await;
    assert!(!waiting.is_finished(), "there is no node yet");
    machine.node("vda");
    machine.wake();
    assert_eq!(waiting.await.unwrap().unwrap(), Path::new("/dev/vda"));
}

#[tokio::test]
async fn scsi_hosts_are_all_told_to_look_and_any_may_have_the_unit() {
    let machine = Machine::new(NOW);
    for host in ["host0", "host1"] {
        std::fs::create_dir_all(machine.path("sys/class/scsi_host").join(host)).unwrap();
    }
    machine.device("bus/scsi/devices/1:0:2:3/block/sdb", "sdb");
    machine.device("bus/scsi/devices/0:0:0:3/block/sda", "sda");
    machine.device("bus/scsi/devices/11:0:22:3/block/sdc", "sdc");
    machine.device("bus/scsi/devices/1:1:5:5/block/sdd", "sdd");
    std::fs::create_dir_all(machine.path("sys/bus/scsi/devices/target1:0:2")).unwrap();
    assert_eq!(machine.look("scsi", "2:3").await.unwrap(), "/dev/sdb");
    assert!(!machine.path("sys/class/scsi_host/host0/scan").exists(), "nobody looks for what is there");
    assert!(machine.look("scsi", "5:5").await.is_err(), "another channel");
    for host in ["host0", "host1"] {
        eventually_says(&machine.path("sys/class/scsi_host").join(host).join("scan"), "0 5 5").await;
    }
    machine.device("bus/scsi/devices/0:0:2:3/block/sde", "sde");
    let error = machine.look("scsi", "2:3").await.unwrap_err();
    assert!(error.contains("0:0:2:3, 1:0:2:3"), "{error}");
}

#[tokio::test]
async fn a_card_is_known_by_its_path_and_its_interface() {
    let machine = Machine::new(NOW);
    let path = "10".parse().unwrap();
    assert!(machine.devices.pci_device(&path).await.unwrap_err().to_string().contains("PCI path 10"));
    std::fs::create_dir_all(machine.path("sys").join(SLOT)).unwrap();
    assert!(machine.devices.pci_device(&path).await.unwrap().ends_with(SLOT));
    assert!(machine.devices.interface(&path).await.is_err());
    std::fs::create_dir_all(machine.path("sys").join(SLOT).join("virtio0/net/eth0")).unwrap();
    assert_eq!(machine.devices.interface(&path).await.unwrap(), "eth0");
    std::fs::create_dir_all(machine.path("sys/devices/pci0000:00/0000:00:11.0/net/ens1")).unwrap();
    assert_eq!(machine.devices.interface(&"11".parse().unwrap()).await.unwrap(), "ens1");
}

#[tokio::test]
async fn memory_that_is_added_is_brought_into_use() {
    let machine = Machine::new(NOW);
    let block = machine.path("sys/devices/system/memory/memory32");
    std::fs::create_dir_all(&block).unwrap();
    let event =
        |action| format!("x\0ACTION={action}\0DEVPATH=/devices/system/memory/memory32\0SUBSYSTEM=memory\0");
    machine.devices.heard(event("offline").as_bytes());
    machine.devices.heard(b"garbage");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!block.join("online").exists());
    machine.devices.heard(event("add").as_bytes());
    eventually_says(&block.join("online"), "1").await;
}

/// What is written elsewhere is there a moment later.
async fn eventually_says(file: &Path, text: &str) {
    for _ in 0..500 {
        if std::fs::read_to_string(file).is_ok_and(|said| said == text) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{}: not {text:?}", file.display());
}
