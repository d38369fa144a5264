//! Disks, as sfdisk and sgdisk read them.

mod tools;

use std::io::Cursor;
use std::path::Path;

use guest_arch::Arch;
use guest_formats::Uuid;
use guest_formats::disk::{Partition, Role, Scheme, Written, verity_uuids, write};
use guest_formats::verity::RootHash;
use guest_tree::Content;
use tools::text;

fn partition(role: Role, name: &str, content: Vec<u8>) -> Partition {
    Partition { role, name: name.into(), content: content.into(), read_only: false, uuid: None }
}

/// A root of an odd length, its hash tree, and some data.
fn three(arch: Arch) -> Vec<Partition> {
    let root = Partition { read_only: true, ..partition(Role::Root(arch), "root", vec![1; 3_000_001]) };
    let verity = partition(Role::RootVerity(arch), "root-verity", vec![2; 8192]);
    vec![root, verity, partition(Role::Data, "\u{1f980} data", vec![3; 512])]
}

fn file(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn written(partitions: &[Partition], scheme: Scheme) -> (Vec<u8>, Written) {
    let mut out = Cursor::new(Vec::new());
    let written = write(partitions, scheme, &mut out).unwrap();
    assert_eq!((out.position(), out.get_ref().len() as u64), (written.size, written.size));
    (out.into_inner(), written)
}

fn sfdisk(option: &str, image: &Path) -> String {
    text("sfdisk", "fdisk", &[&option, &image])
}

/// The value of a key in a line of a dump.
fn value<'a>(line: &'a str, key: &str) -> &'a str {
    let rest = line.split_once(&format!("{key}=")).unwrap_or_else(|| panic!("no {key} in {line}")).1;
    rest.split(',').next().unwrap().trim().trim_matches('"')
}

fn partition_lines(dump: &str) -> Vec<&str> {
    dump.lines().filter(|line| line.contains("start=")).collect()
}

#[test]
fn a_gpt_is_what_both_tools_expect() {
    for arch in Arch::ALL {
        let partitions = three(arch);
        let (image, written) = written(&partitions, Scheme::Gpt);
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, "disk", &image);
        let verdict = sfdisk("--verify", &path);
        assert!(verdict.contains("No errors detected."), "{verdict}");
        let verdict = text("sgdisk", "gdisk", &[&"--verify", &path]);
        assert!(verdict.contains("No problems found.") && !verdict.contains("Warning"), "{verdict}");

        let dump = sfdisk("--dump", &path);
        assert!(dump.contains("label: gpt"), "{dump}");
        assert!(dump.contains(&format!("label-id: {}", written.uuid.to_string().to_uppercase())), "{dump}");
        let lines = partition_lines(&dump);
        let names: Vec<_> = lines.iter().map(|line| value(line, "name")).collect();
        assert_eq!(names, ["root", "root-verity", "\\xf0\\x9f\\xa6\\x80 data"]);
        for (line, place) in lines.iter().zip(&written.partitions) {
            assert_eq!(value(line, "start").parse::<u64>().unwrap() * 512, place.start);
            assert_eq!(value(line, "size").parse::<u64>().unwrap() * 512, place.length);
            assert_eq!(value(line, "uuid").to_lowercase(), place.partuuid);
        }
        assert_eq!(
            lines.iter().map(|line| line.contains("attrs=\"GUID:60\"")).collect::<Vec<_>>(),
            [true, false, false]
        );
        let listed = text("sfdisk", "fdisk", &[&"--list", &"--output", &"Type", &path]);
        let types: Vec<_> = listed.lines().rev().take(3).collect();
        assert_eq!(types[0], "Linux filesystem");
        assert!(types[1].starts_with("Linux root verity ("), "{listed}");
        assert!(types[2].starts_with("Linux root ("), "{listed}");
        let name = |line: &str| line.split_once('(').unwrap().1.to_owned();
        assert_eq!(name(types[1]), name(types[2]), "the same architecture");
    }
}

#[test]
fn the_copy_stands_in_for_a_lost_table() {
    let (mut image, _) = written(&three(Arch::X86_64), Scheme::Gpt);
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "disk", &image);
    let before = sfdisk("--dump", &path);
    image[512..17_408].fill(0);
    file(&dir, "disk", &image);
    assert_eq!(sfdisk("--dump", &path), before);
}

#[test]
fn an_mbr_is_what_sfdisk_expects() {
    let (image, written) = written(&three(Arch::X86_64), Scheme::Mbr);
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "disk", &image);
    let verdict = sfdisk("--verify", &path);
    assert!(verdict.contains("No errors detected."), "{verdict}");
    let dump = sfdisk("--dump", &path);
    assert!(dump.contains("label: dos"), "{dump}");
    let id = dump.lines().find_map(|line| line.strip_prefix("label-id: 0x")).unwrap();
    for ((number, line), place) in (1..).zip(partition_lines(&dump)).zip(&written.partitions) {
        assert_eq!(value(line, "start").parse::<u64>().unwrap() * 512, place.start);
        assert_eq!(value(line, "size").parse::<u64>().unwrap() * 512, place.length);
        assert_eq!(value(line, "type"), "83");
        assert_eq!(place.partuuid, format!("{id}-{number:02}"));
    }
    assert_eq!(image.len() as u64, written.partitions[2].start + 512, "nothing behind the last partition");
}

#[test]
fn partitions_hold_the_images() {
    for scheme in [Scheme::Gpt, Scheme::Mbr] {
        let partitions = three(Arch::X86_64);
        let (image, written) = written(&partitions, scheme);
        for (partition, place) in partitions.iter().zip(&written.partitions) {
            assert_eq!(place.start % (1 << 20), 0);
            let bytes = partition.content.bytes().unwrap();
            let found = &image[place.start as usize..(place.start + place.length) as usize];
            assert!(found[..bytes.len()] == bytes[..] && found[bytes.len()..].iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn names_are_made_of_the_content() {
    let names = |partitions: &[Partition]| written(partitions, Scheme::Gpt).1;
    let first = names(&three(Arch::X86_64));
    assert_eq!(first, names(&three(Arch::X86_64)));
    let mut other = three(Arch::X86_64);
    other[2].content = vec![4; 512].into();
    let second = names(&other);
    assert_ne!(first.uuid, second.uuid);
    assert_eq!(first.partitions[..2], second.partitions[..2]);
    assert_ne!(first.partitions[2], second.partitions[2]);
    let twins = names(&[three(Arch::X86_64)[2].clone(), three(Arch::X86_64)[2].clone()]);
    assert_ne!(twins.partitions[0].partuuid, twins.partitions[1].partuuid);
}

#[test]
fn a_root_hash_is_the_names_of_its_partitions() {
    let root = RootHash(std::array::from_fn(|index| index as u8));
    let (data, hashes) = verity_uuids(&root);
    let mut partitions = three(Arch::X86_64);
    (partitions[0].uuid, partitions[1].uuid) = (Some(data), Some(hashes));
    let (_, written) = written(&partitions, Scheme::Gpt);
    let text: String = written.partitions[..2].iter().map(|place| place.partuuid.replace('-', "")).collect();
    assert_eq!(text, root.to_string());
    let zero = Uuid([0; 16]);
    assert_ne!(written.uuid, zero);
}

#[test]
fn where_it_is_written_makes_no_difference() {
    let (image, first) = written(&three(Arch::X86_64), Scheme::Gpt);
    let mut out = Cursor::new(vec![7; 1000]);
    out.set_position(1000);
    assert_eq!(write(&three(Arch::X86_64), Scheme::Gpt, &mut out).unwrap(), first);
    assert!(out.into_inner()[1000..] == image);
}

#[test]
fn a_full_disk_and_a_lost_image_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "image", b"text");
    let content = Content::of_file(&path).unwrap();
    let partitions = [Partition { content, ..partition(Role::Data, "", vec![1]) }];
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let error = write(&partitions, Scheme::Gpt, full).unwrap_err();
    assert_eq!(error.to_string(), "disk: cannot write the image");
    std::fs::remove_file(path).unwrap();
    let error = write(&partitions, Scheme::Gpt, Cursor::new(Vec::new())).unwrap_err();
    assert_eq!(error.to_string(), "disk: cannot read the image");
}
