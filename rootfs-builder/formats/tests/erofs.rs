//! Our erofs images, read by erofs-utils.

mod sample;
mod tools;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use guest_formats::erofs::{Compression, Options, write};
use guest_tree::{Node, Origin, Tree};

fn image(dir: &Path, tree: &Tree, compression: Compression) -> PathBuf {
    let path = dir.join(format!("{compression:?}.erofs"));
    let summary =
        write(tree, &Options { time: sample::TIME, compression }, File::create(&path).unwrap()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), summary.size);
    path
}

/// What `fsck.erofs` has to say, which is not in its exit status.
fn complaints(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Vec<String> {
    let output = tools::run("fsck.erofs", "erofs-utils", arguments);
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let mut complaints: Vec<_> =
        said.lines().filter(|line| line.contains("<E>")).map(str::to_owned).collect();
    if !output.status.success() {
        complaints.push(output.status.to_string());
    }
    complaints
}

fn fsck(arguments: &[&dyn AsRef<std::ffi::OsStr>]) {
    assert_eq!(complaints(arguments), [""; 0]);
}

#[test]
fn fsck_unpacks_what_was_packed() {
    let dir = tempfile::tempdir().unwrap();
    sample::must_be_root(dir.path());
    let tree = sample::tree(dir.path(), false);
    for compression in [Compression::None, Compression::Lz4] {
        let image = image(dir.path(), &tree, compression);
        let unpacked = dir.path().join(format!("{compression:?}"));
        let extract = format!("--extract={}", unpacked.display());
        fsck(&[&extract, &"--preserve", &image]);
        // It sets owners after modes, and that takes the set-id bits from files.
        sample::compare(&tree, &unpacked, 0o6000);
        let modes = dir.path().join(format!("{compression:?}-modes"));
        fsck(&[
            &format!("--extract={}", modes.display()),
            &"--no-preserve-owner",
            &"--preserve-perms",
            &image,
        ]);
        assert_eq!(fs::metadata(modes.join("bin/su")).unwrap().mode() & 0o7777, 0o4755);
    }
}

#[test]
fn the_order_of_filling_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    for compression in [Compression::None, Compression::Lz4] {
        let one = fs::read(image(dir.path(), &sample::tree(dir.path(), false), compression)).unwrap();
        let other = fs::read(image(dir.path(), &sample::tree(dir.path(), true), compression)).unwrap();
        assert!(one == other, "{compression:?}");
    }
}

#[test]
fn fsck_takes_the_smallest_image_and_no_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), &Tree::new(), Compression::None);
    fsck(&[&image]);
    let mut bytes = fs::read(&image).unwrap();
    bytes[2000] ^= 1;
    fs::write(&image, bytes).unwrap();
    let complaints = complaints(&[&image]);
    assert!(complaints[0].contains("superblock chksum doesn't match"), "{complaints:?}");
}

#[test]
fn files_of_more_than_four_gigabytes_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let sparse = dir.path().join("sparse");
    let size = (4_u64 << 30) + 4097;
    File::create(&sparse).unwrap().set_len(size).unwrap();
    let mut tree = Tree::new();
    let content = guest_tree::Content::of_file(&sparse).unwrap();
    tree.put("large", Node::file(0o644, content, &Origin::from("test"))).unwrap();
    let image = image(dir.path(), &tree, Compression::Lz4);
    // A block holds at most 256 KiB of zeros, and each 4096 bytes of them have an index entry of 8 bytes.
    assert!(fs::metadata(&image).unwrap().len() < size / 64 + size / 512 + (1 << 20));
    let dump = tools::text("dump.erofs", "erofs-utils", &[&"--path=/large", &image]);
    assert!(dump.contains(&format!("Size: {size} ")), "{dump}");
    fsck(&[&"--extract", &image]);
}
