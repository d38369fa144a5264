//! Verified roots of which somebody has changed something: the guest refuses to boot, or to go on when it reads it.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use agent_api::oci::LinuxDeviceCgroup;
use e2e::{Boot, ContainerBuilder, End, Guest, Set, Settings, exchange_partitions, rehashed};
use guest_manifest::Verity;

use super::kata_verity;

/// The size of a block, of data and of hashes.
const BLOCK: u64 = 4096;

fn set() -> Set {
    Set::of(&Settings::formats())
}

fn verity_of(format: &str) -> Verity {
    set().image(format).verity.clone().expect("a hash tree")
}

fn flip(bytes: &mut [u8], at: u64, bit: u32) {
    bytes[usize::try_from(at).unwrap()] ^= 1 << bit;
}

/// What a guest comes to that boots an image and, if that works, reads all of it.
fn ends(set: &Set, format: &str) -> End {
    Boot::image(format).artefacts(set).ends_with_a_word(async |guest| {
        let _ = reads_all(guest).try_start().await;
    })
}

/// A container that reads every block of the verified device, and tells how many bytes they are.
fn reads_all(guest: &Guest) -> ContainerBuilder<'_> {
    let script = "mknod /dev/root b $(tr : ' ' < /sys/class/block/dm-0/dev) && cat /dev/root | wc -c";
    guest.container("reader").privileged().sh(script).resources(|all| {
        let rule =
            LinuxDeviceCgroup { Allow: true, Access: "rwm".into(), Type: "b".into(), ..Default::default() };
        all.Devices.push(LinuxDeviceCgroup { Major: -1, Minor: -1, ..rule });
    })
}

/// The kernel stopped at once, and its console says at which block.
fn is_refused(end: &End, kind: &str, block: u64) {
    let wanted = "guest panicked: Kernel panic - not syncing: dm-verity device corrupted";
    assert!(end.reason.ends_with(wanted), "{end:?}");
    // "device-mapper: verity: 254:0: data block 3 is corrupted"
    let line = format!(": {kind} block {block} is corrupted");
    let mut lines = end.console.lines().filter(|line| line.contains("device-mapper: verity: "));
    assert!(lines.any(|other| other.trim_end().ends_with(&line)), "{line}: {end:?}");
}

#[test]
fn the_whole_device_can_be_read() {
    Boot::image("erofs").test(async |guest| {
        let blocks = verity_of("erofs").data_blocks;
        assert_eq!(reads_all(guest).run().await.ok().trim(), (blocks * BLOCK).to_string());
    });
}

#[test]
fn a_byte_of_the_data() {
    for (format, block) in [("erofs", 0), ("squashfs", 0), ("disk-mbr", 0)] {
        let at = verity_of(format).data_offset + block * BLOCK + 1030;
        let end = ends(&set().bytes(format, |bytes| flip(bytes, at, 0)), format);
        is_refused(&end, "data", block);
    }
    // The last block is of the agent's end, or of no file: nothing reads it on the way up.
    let verity = verity_of("erofs");
    let block = verity.data_blocks - 1;
    let end = ends(&set().bytes("erofs", |bytes| flip(bytes, (block + 1) * BLOCK - 1, 7)), "erofs");
    is_refused(&end, "data", block);
}

#[test]
fn a_byte_of_the_hash_tree() {
    let verity = verity_of("erofs");
    // The highest block is the first behind the superblock; the kernel counts from the start of its device.
    let top = verity.hash_offset / BLOCK + 1;
    let end = ends(&set().bytes("erofs", |bytes| flip(bytes, top * BLOCK + 17, 3)), "erofs");
    is_refused(&end, "metadata", top);
    // The lowest, which only the last data is read by.
    let last = set().image("erofs").artefact.size / BLOCK - 1;
    let end = ends(&set().bytes("erofs", |bytes| flip(bytes, last * BLOCK, 0)), "erofs");
    is_refused(&end, "metadata", last);
}

#[test]
fn a_digit_of_the_root_hash_or_of_the_salt_on_the_command_line() {
    let verity = verity_of("erofs");
    let top = verity.hash_offset / BLOCK + 1;
    for words in [&verity.root_hash, &verity.salt] {
        let other = if words.starts_with('0') { "1" } else { "0" };
        let changed = format!("{other}{}", &words[1..]);
        let set = set().cmdline("erofs", |cmdline| cmdline.replace(words.as_str(), &changed));
        is_refused(&ends(&set, "erofs"), "metadata", top);
    }
}

#[test]
fn an_image_with_a_hash_tree_of_its_own() {
    let verity = verity_of("erofs");
    // All is as it should be, to whoever believes what is on the disk.
    let set = set().bytes("erofs", |bytes| {
        flip(bytes, verity.data_blocks * BLOCK - 1, 0);
        let other = rehashed(bytes, &verity);
        assert_ne!(other, verity.root_hash);
    });
    is_refused(&ends(&set, "erofs"), "metadata", verity.hash_offset / BLOCK + 1);
}

#[test]
fn the_superblock_is_not_believed() {
    // The kernel has it all from its command line. That the block was changed is what `verify-image` finds.
    let verity = verity_of("erofs");
    let set = set().bytes("erofs", |bytes| {
        // Bits of its signature, number of blocks, and salt.
        [0, 72, 88].iter().for_each(|at| flip(bytes, verity.hash_offset + at, 0));
    });
    Boot::image("erofs").artefacts(&set).test(async |guest| {
        assert_eq!(reads_all(guest).run().await.ok().trim(), (verity.data_blocks * BLOCK).to_string());
    });
}

#[test]
fn partitions_that_changed_places() {
    // What is now the first is too small to be the data.
    let end = ends(&set().bytes("disk", exchange_partitions), "disk");
    assert!(end.reason.contains("Kernel panic - not syncing: VFS: Unable to mount root fs"), "{end:?}");
    let objection = end.reason.split_once("; dm-verity: device-mapper: table: ");
    assert!(objection.is_some_and(|(_, why)| why.contains("vda1 too small")), "{end:?}");
    // The places stay, and what is in them goes to the other.
    let verity = verity_of("disk");
    let end = ends(
        &set().bytes("disk", |disk| {
            let (data, hashes) = disk.split_at_mut(usize::try_from(verity.hash_offset).unwrap());
            let length = BLOCK as usize * 8;
            data[usize::try_from(verity.data_offset).unwrap()..][..length]
                .swap_with_slice(&mut hashes[..length]);
        }),
        "disk",
    );
    is_refused(&end, "metadata", 1);
}

#[test]
fn katas_root_is_not_mounted() {
    // Their table does not ask for a panic: whoever reads the block gets an error.
    let at = verity_of("kata").data_offset + 1024 + 120;
    let cmdline = kata_verity("kata", "/dev/vda1", "/dev/vda2");
    let set = set().cmdline("kata", |_| format!("quiet console=hvc0 panic=-1 {cmdline}"));
    let end = ends(&set.bytes("kata", |bytes| flip(bytes, at, 0)), "kata");
    assert!(end.reason.contains("Kernel panic - not syncing: VFS: Unable to mount root fs"), "{end:?}");
    let verity = end.console.lines().find(|line| line.contains("device-mapper: verity: "));
    assert!(verity.is_some_and(|line| line.contains("data block 0 is corrupted")), "{end:?}");
}

/// Any bit of data and tree. `HUSK_TEST_SEED` repeats a run, `HUSK_TEST_FLIPS` makes it longer.
#[test]
fn random_flips() {
    let number = |name| {
        std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|e| panic!("{name}: {e}")))
    };
    let flips = number("HUSK_TEST_FLIPS").unwrap_or(12);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("HUSK_TEST_SEED").unwrap_or_else(now);
    // Not by print!, which the test runner keeps to itself unless the test fails.
    writeln!(std::io::stdout(), "random_flips: HUSK_TEST_SEED={seed}").unwrap();
    let verity = verity_of("erofs");
    let size = set().image("erofs").artefact.size;
    for turn in 0..flips {
        let random = mixed(seed.wrapping_add(turn));
        // All but the superblock, which the kernel does not read.
        let at = random % (size - BLOCK);
        let at = if at < verity.hash_offset { at } else { at + BLOCK };
        let bit = (random >> 61) as u32;
        let kind = if at < verity.hash_offset { "data" } else { "metadata" };
        writeln!(std::io::stdout(), "random_flips: bit {bit} of byte {at}, {kind} block {}", at / BLOCK)
            .unwrap();
        let end = ends(&set().bytes("erofs", |bytes| flip(bytes, at, bit)), "erofs");
        is_refused(&end, kind, at / BLOCK);
    }
}

/// A number that has nothing to do with its neighbours' (SplitMix64).
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
