//! Our hash trees against those of `veritysetup`.

mod tools;

use std::io::Cursor;
use std::path::PathBuf;

use guest_formats::Uuid;
use guest_formats::verity::{BLOCK, Options, Superblock, build};

fn image(blocks: usize) -> Vec<u8> {
    (0..blocks * BLOCK).map(|at| (at % BLOCK * 7 + at / BLOCK * 13) as u8).collect()
}

#[test]
fn hash_devices_are_those_of_veritysetup_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let uuid = Uuid(*b"\x01\x23\x45\x67\x89\xab\xcd\xef0123abcd");
    // Levels: none, one that is full, two, three.
    for (blocks, salt) in [(1, "00ff"), (128, "-"), (129, "a5"), (128 * 128 + 1, &*"7e".repeat(256))] {
        let data = image(blocks);
        let options = Options { salt: Some(bytes(salt)), uuid: Some(uuid) };
        let ours = build(Cursor::new(&data), &options).unwrap();

        let (data, hash) = (file(&dir, "data", &data), dir.path().join("hash"));
        let _ = std::fs::remove_file(&hash);
        let (salt, uuid) = (format!("--salt={salt}"), format!("--uuid={uuid}"));
        let said = tools::text("veritysetup", "cryptsetup-bin", &[&"format", &salt, &uuid, &data, &hash]);
        let root = said.lines().find_map(|line| line.strip_prefix("Root hash:")).unwrap().trim();
        assert_eq!(ours.verity.root.to_string(), root, "{blocks} blocks");
        assert!(std::fs::read(&hash).unwrap() == ours.device, "{blocks} blocks: another hash device");
        let superblock = Superblock::decode(ours.device[..BLOCK].try_into().unwrap()).unwrap();
        assert_eq!(superblock, ours.verity.superblock);
    }
}

#[test]
fn veritysetup_verifies_what_we_make_of_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let ours = build(Cursor::new(image(1000)), &Options::default()).unwrap();
    let root = ours.verity.root.to_string();

    let (data, hash) = (file(&dir, "data", &image(1000)), file(&dir, "hash", &ours.device));
    tools::text("veritysetup", "cryptsetup-bin", &[&"verify", &data, &hash, &root]);

    let both = file(&dir, "both", &[&image(1000)[..], &ours.device].concat());
    let offset = format!("--hash-offset={}", 1000 * BLOCK);
    tools::text("veritysetup", "cryptsetup-bin", &[&"verify", &offset, &both, &both, &root]);

    let other = root.replacen(|digit| digit != '0', "0", 1);
    let output = tools::run("veritysetup", "cryptsetup-bin", &[&"verify", &data, &hash, &other]);
    assert!(!output.status.success(), "veritysetup took another root hash for right");
}

/// What `veritysetup` makes of the text of a salt.
fn bytes(salt: &str) -> Vec<u8> {
    let pairs = salt.trim_matches('-').as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn file(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}
