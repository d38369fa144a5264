//! Roots that are not a ramdisk: every format, each booted with the command line that the manifest has for it, or with that
//! of Kata's runtimes.

mod tampering;

use std::io::Read as _;

use e2e::{Boot, Cli, Guest, Set, Settings};
use sha2::{Digest, Sha256};

/// What a runtime of Kata's has on the command line before what its root needs (4.1, QEMU's q35).
const KATA: &str = "tsc=reliable no_timer_check rcupdate.rcu_expedited=1 i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 \
    i8042.noaux=1 noreplace-smp reboot=k cryptomgr.notests net.ifnames=0 pci=lastbus=0 console=hvc0 console=hvc1 quiet \
    systemd.show_status=false panic=1 nr_cpus=1 selinux=0 systemd.unit=kata-containers.target \
    systemd.mask=systemd-networkd.service systemd.mask=systemd-networkd.socket scsi_mod.scan=none agent.log_vport=1025";

/// A root as the guest's kernel sees it.
#[derive(Debug)]
struct Root {
    /// The name of its block device: `vda1`, `dm-0`.
    device: String,
    fstype: String,
    /// Options of the mount and of the file system.
    options: String,
}

async fn root_of(guest: &Guest) -> Root {
    let script = "grep ' / / ' /guest/proc/1/mountinfo; for d in /sys/class/block/*; do echo $(cat $d/dev) ${d##*/}; done";
    let told = guest.container("look").sees_guest().sh(script).run().await.ok();
    // "1 0 254:0 / / ro,relatime - erofs /dev/root ro,..." and what is mounted over it.
    let line: Vec<&str> = told.lines().next().expect("something is mounted").split(' ').collect();
    let dash = line.iter().position(|word| *word == "-").expect("a mount has a file system");
    let device = told.lines().find_map(|other| other.strip_prefix(line[2])?.strip_prefix(' '));
    Root {
        device: device.unwrap_or_else(|| panic!("no device is {}: {told}", line[2])).into(),
        fstype: line[dash + 1].into(),
        options: format!("{},{}", line[5], line[dash + 3]),
    }
}

/// The kernel's command line, without what an emulated machine needs.
async fn cmdline_of(guest: &Guest) -> String {
    let cmdline = guest.container("cmdline").sh("cat /proc/cmdline").run().await.ok();
    let of_emulator = Settings::get().arch().row().emulated_words(1);
    let cmdline = cmdline.trim();
    cmdline.strip_suffix(of_emulator.as_str()).unwrap_or(cmdline).trim_end().to_owned()
}

/// Boots an image as husk does, and compares with what it was to be.
fn boots(format: &str, device: &str, fstype: &str, access: &str) {
    let set = Set::of(&Settings::formats());
    Boot::image(format).artefacts(&set).test(async |guest| {
        assert_eq!(Some(cmdline_of(guest).await), set.image(format).cmdline, "to the letter");
        let root = root_of(guest).await;
        assert_eq!((root.device.as_str(), root.fstype.as_str()), (device, fstype), "{root:?}");
        assert!(root.options.starts_with(access), "{root:?}");
    });
}

/// The same with a command line of Kata's.
fn boots_as_kata(format: &str, words: &str, device: &str) -> Root {
    let set = Set::of(&Settings::formats()).cmdline(format, |_| format!("{KATA} {words}"));
    let mut seen = None;
    Boot::image(format).artefacts(&set).test(async |guest| {
        let root = root_of(guest).await;
        assert_eq!((root.device.as_str(), root.fstype.as_str()), (device, "ext4"), "{root:?}");
        assert!(root.options.starts_with("ro,"), "{root:?}");
        assert_eq!(guest.container("c1").sh("echo hello; exit 3").run().await.status, 3);
        seen = Some(root);
    });
    seen.expect("the test has run")
}

/// The words that Kata's runtimes make of `kernel_verity_params`.
fn kata_verity(format: &str, data: &str, hashes: &str) -> String {
    let set = Set::of(&Settings::formats());
    let verity = set.image(format).verity.clone().expect("a hash tree");
    // As their configuration has it: five values by name.
    let params = verity.kata_params();
    let value = |name: &str| {
        let found = params.split(',').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("{name} in {params}"))
    };
    let (blocks, size) = (value("data_blocks"), value("data_block_size"));
    let sectors = blocks.parse::<u64>().unwrap() * (size.parse::<u64>().unwrap() / 512);
    let (hash_size, root, salt) = (value("hash_block_size"), value("root_hash"), value("salt"));
    format!(
        "dm-mod.create=\"dm-verity,,,ro,0 {sectors} verity 1 {data} {hashes} {size} {hash_size} {blocks} 0 sha256 {root} \
         {salt}\" root=/dev/dm-0 rootflags=data=ordered,errors=remount-ro ro rootfstype=ext4"
    )
}

#[test]
fn husk_boots_what_there_is_and_what_it_is_told() {
    Cli::test(async |cli| {
        let set = Set::of(&Settings::formats()).without("squashfs");
        let run = async |set: &Set, flags: &[&str]| {
            cli.run(flags, &["cat", "/proc/cmdline"]).env("HUSK_ARTEFACTS", set.dir()).run().await
        };
        let told = run(&set, &[]).await;
        assert!(!told.text().contains("root="), "a ramdisk comes first: {told:?}");
        let told = run(&set, &["--boot", "disk"]).await;
        assert!(told.text().contains(" verity 1 /dev/vda1 /dev/vda2 "), "{told:?}");
        let ours = ["artefacts", "manifest.json", "no squashfs in this set (initrd, "];
        run(&set, &["--boot", "squashfs"]).await.complains(125, &ours);
        run(&set, &["--boot", "oci"])
            .await
            .complains(125, &["manifest.json", "oci is no format that a VM boots"]);
        let fixed = run(&set, &["--boot", "uki", "--kernel-arg", "agent.log=debug"]).await;
        fixed.complains(125, &["boot", "husk.efi", "takes no more words"]);
        // As the recipe `confidential` has it.
        let set = ["initrd", "initrd-gz", "initrd-none"].into_iter().fold(set, Set::without);
        let told = run(&set, &[]).await;
        assert!(told.text().contains(" verity 1 /dev/vda /dev/vda "), "then the first that boots: {told:?}");
    });
}

#[test]
fn an_erofs_is_verified() {
    boots("erofs", "dm-0", "erofs", "ro,");
}

#[test]
fn a_squashfs_is_verified() {
    boots("squashfs", "dm-0", "squashfs", "ro,");
}

#[test]
fn a_gpt_disk_is_verified() {
    boots("disk", "dm-0", "erofs", "ro,");
}

#[test]
fn an_mbr_disk_is_verified() {
    boots("disk-mbr", "dm-0", "erofs", "ro,");
}

#[test]
fn an_ext4_is_written_to_and_stays_as_it_was() {
    let set = Set::of(&Settings::formats());
    let digest = || {
        let mut bytes = Vec::new();
        std::fs::File::open(set.image("ext4").path(&set.dir())).unwrap().read_to_end(&mut bytes).unwrap();
        Sha256::digest(&bytes)
    };
    let before = digest();
    Boot::image("ext4").artefacts(&set).test(async |guest| {
        assert_eq!(Some(cmdline_of(guest).await), set.image("ext4").cmdline, "to the letter");
        let root = root_of(guest).await;
        assert_eq!((root.device.as_str(), root.fstype.as_str()), ("vda", "ext4"), "{root:?}");
        assert!(root.options.starts_with("rw,"), "{root:?}");
        let script = "echo written > /guest/root/tmp/it && sync && cat /guest/root/tmp/it";
        let writes = guest.container("c1").mount("/guest/root", "bind", "/", &["rbind", "rw"]).sh(script);
        assert_eq!(writes.run().await.text(), "written");
    });
    assert_eq!(digest(), before);
}

#[test]
fn ramdisks_of_every_compression_boot() {
    for format in ["initrd", "initrd-gz", "initrd-none"] {
        Boot::image(format).test(async |guest| {
            assert_eq!(guest.container("c1").sh("exit 3").run().await.status, 3, "{format}");
        });
    }
}

#[test]
fn katas_disk_boots() {
    boots("kata", "vda1", "ext4", "ro,");
    // Their virtio-blk; and what they have with `kernel_verity_params`.
    let plain = "root=/dev/vda1 rootflags=data=ordered,errors=remount-ro ro rootfstype=ext4";
    boots_as_kata("kata", plain, "vda1");
    boots_as_kata("kata", &kata_verity("kata", "/dev/vda1", "/dev/vda2"), "dm-0");
}

#[test]
fn katas_nvdimm_boots() {
    if !Settings::get().arch().row().nvdimm {
        return;
    }
    boots("kata-dax", "pmem0p1", "ext4", "ro,");
    let plain = "root=/dev/pmem0p1 rootflags=dax,data=ordered,errors=remount-ro ro rootfstype=ext4";
    let root = boots_as_kata("kata-dax", plain, "pmem0p1");
    assert!(root.options.contains("dax"), "read where it is: {root:?}");
    boots_as_kata("kata-dax", &kata_verity("kata-dax", "/dev/pmem0p1", "/dev/pmem0p2"), "dm-0");
}

#[test]
fn firmware_boots_a_unified_kernel_image() {
    if Settings::get().arch().row().efi.is_none() {
        return;
    }
    Boot::image("uki").test(async |guest| {
        let seen = guest.container("c1").sh("ls /sys/firmware/efi; cat /proc/cmdline").run().await;
        let set = Set::of(&Settings::formats());
        let cmdline = set.image("uki").cmdline.clone().unwrap();
        assert!(seen.text().contains("fw_platform_size") && seen.text().contains(&cmdline), "{seen:?}");
    });
}
