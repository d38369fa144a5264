//! The disk for Kata's runtimes: both of its boot records, as sfdisk reads them.

mod tools;

use std::io::Cursor;

use guest_formats::disk::Written;
use guest_formats::kata::{Head, write};
use guest_formats::verity::{Options, build};
use guest_tree::Content;
use tools::text;

const MIB: usize = 1 << 20;

fn file(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn written(root: usize, hash_tree: Option<usize>, head: Head) -> (Vec<u8>, Written) {
    let content = |length, byte| Content::from(vec![byte; length]);
    let mut out = Cursor::new(Vec::new());
    let hash_tree = hash_tree.map(|length| content(length, 2));
    let written = write(&content(root, 1), hash_tree.as_ref(), head, &mut out).unwrap();
    assert_eq!((out.position(), out.get_ref().len() as u64), (written.size, written.size));
    (out.into_inner(), written)
}

/// Start and size of each partition, in sectors, after sfdisk found nothing wrong.
fn partitions(image: &[u8]) -> Vec<(u64, u64)> {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "disk", image);
    let verdict = text("sfdisk", "fdisk", &[&"--verify", &path]);
    assert!(verdict.contains("No errors detected."), "{verdict}");
    let dump = text("sfdisk", "fdisk", &[&"--dump", &path]);
    let number = |line: &str, key: &str| {
        let rest = line.split_once(key).unwrap().1;
        rest.split(',').next().unwrap().trim().parse::<u64>().unwrap()
    };
    let lines = dump.lines().filter(|line| line.contains("start="));
    lines.map(|line| (number(line, "start="), number(line, "size="))).collect()
}

#[test]
fn without_a_head_it_is_a_disk_of_exact_size() {
    let (image, _) = written(3 * MIB + 4096, Some(8192), Head::None);
    assert_eq!(partitions(&image), [(2048, 6152), (10240, 16)]);
    assert_eq!(image.len(), 5 * MIB + 8192);
}

#[test]
fn with_a_head_both_boot_records_lead_to_the_same_bytes() {
    let (image, written) = written(3 * MIB + 4096, Some(8192), Head::Dax);
    assert_eq!(image.len() % (2 * MIB), 0);
    assert_eq!(image.len(), 8 * MIB, "2 MiB before a disk of 5 MiB and a bit");
    assert_eq!(partitions(&image), [(3 * 2048, 6152), (7 * 2048, 16)]);
    assert_eq!(partitions(&image[2 * MIB..]), [(2048, 6152), (5 * 2048, 16)]);
    assert!(image[3 * MIB..6 * MIB + 4096].iter().all(|byte| *byte == 1));
    assert!(image[7 * MIB..7 * MIB + 8192].iter().all(|byte| *byte == 2));
    assert_eq!(written.partitions[0].start, 3 * MIB as u64);
    assert_eq!(image[4096..4111], *b"NVDIMM_PFN_INFO");
    assert_eq!(image[440..444], image[2 * MIB + 440..2 * MIB + 444], "one disk, one number");
}

#[test]
fn the_hash_tree_may_be_missing() {
    let (image, written) = written(4096, None, Head::Dax);
    assert_eq!(partitions(&image), [(3 * 2048, 8)]);
    assert_eq!((image.len(), written.partitions.len()), (4 * MIB, 1));
}

#[test]
fn a_full_disk_is_an_error() {
    for head in [Head::None, Head::Dax] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let error = write(&Content::from("x"), None, head, full).unwrap_err().to_string();
        assert!(error.ends_with("cannot write the image"), "{error}");
    }
}

#[test]
fn the_tree_is_the_one_that_katas_image_builder_makes() {
    // What Kata's runtimes tell the kernel of: `veritysetup format --no-superblock` on both partitions.
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..300 * 4096_u32).map(|at| (at / 4096 * 13 + at % 4096 * 7) as u8).collect();
    let ours = build(Cursor::new(&bytes), &Options::default()).unwrap();
    let (data, hash) = (file(&dir, "data", &bytes), file(&dir, "hash", ours.bare()));
    let superblock = &ours.verity.superblock;
    let salt: String = superblock.salt.iter().map(|byte| format!("{byte:02x}")).collect();
    let (salt, root) = (format!("--salt={salt}"), ours.verity.root.to_string());
    let blocks = format!("--data-blocks={}", superblock.data_blocks);
    let words: [&dyn AsRef<std::ffi::OsStr>; 7] =
        [&"verify", &"--no-superblock", &salt, &blocks, &data, &hash, &root];
    text("veritysetup", "cryptsetup-bin", &words);
}
