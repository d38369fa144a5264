//! Our squashfs images, read by squashfs-tools.

mod sample;
mod tools;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use guest_formats::squashfs::{Compression, Options, write};
use guest_tree::{Node, Origin, Tree};

const BOTH: [Compression; 2] = [Compression::Zstd, Compression::Xz];

fn image(dir: &Path, tree: &Tree, compression: Compression) -> PathBuf {
    let path = dir.join(format!("{compression:?}.squashfs"));
    let summary =
        write(tree, &Options { time: sample::TIME, compression }, File::create(&path).unwrap()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), summary.size);
    path
}

fn unsquashfs(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> String {
    tools::text("unsquashfs", "squashfs-tools", arguments)
}

#[test]
fn unsquashfs_unpacks_what_was_packed() {
    let dir = tempfile::tempdir().unwrap();
    sample::must_be_root(dir.path());
    let tree = sample::tree(dir.path(), false);
    for compression in BOTH {
        let image = image(dir.path(), &tree, compression);
        let unpacked = dir.path().join(format!("{compression:?}"));
        unsquashfs(&[&"-quiet", &"-no-progress", &"-strict-errors", &"-dest", &unpacked, &image]);
        sample::compare(&tree, &unpacked, 0);
        compare_xattrs(&tree, &unpacked);
    }
}

/// All extended attributes that were unpacked, against those of the tree, in the form of `getfattr`.
fn compare_xattrs(tree: &Tree, unpacked: &Path) {
    let mut expected = String::new();
    for (path, node) in tree.iter().filter(|(_, node)| !node.attributes.xattrs.is_empty()) {
        let hex = |value: &[u8]| value.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let lines = node.attributes.xattrs.iter().map(|(name, value)| format!("{name}=0x{}\n", hex(value)));
        expected += &format!("# file: {}\n{}\n", unpacked.join(path).display(), lines.collect::<String>());
    }
    let options: [&dyn AsRef<std::ffi::OsStr>; 5] =
        [&"--recursive", &"--dump", &"--match=-", &"--encoding=hex", &"--absolute-names"];
    let paths = ["bin/ping", "xattrs"].map(|path| unpacked.join(path));
    let mut arguments = options.to_vec();
    arguments.extend(paths.iter().map(|path| path as &dyn AsRef<std::ffi::OsStr>));
    let found = tools::text("getfattr", "attr", &arguments);
    assert_eq!(sections(&found), sections(&expected));
}

fn sections(dump: &str) -> BTreeSet<&str> {
    dump.split("\n\n").map(str::trim).filter(|section| !section.is_empty()).collect()
}

#[test]
fn unsquashfs_shows_owners_devices_and_times() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), &sample::tree(dir.path(), false), Compression::Zstd);
    let listing = unsquashfs(&[&"-lln", &"-UTC", &image]);
    let listing: Vec<_> =
        listing.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "crw-rw-rw- 0/0 1, 3 2009-02-13 23:31 squashfs-root/dev/null",
        "prw--w--w- 1/2 0 2009-02-13 23:31 squashfs-root/run/fifo",
        "-rwsr-xr-x 0/0 2 2009-02-13 23:31 squashfs-root/bin/su",
        "drwxrwxrwt 0/0 3 2009-02-13 23:31 squashfs-root/tmp",
    ] {
        assert!(listing.iter().any(|shown| shown == line), "{line}");
    }
}

#[test]
fn the_order_of_filling_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    for compression in BOTH {
        let one = fs::read(image(dir.path(), &sample::tree(dir.path(), false), compression)).unwrap();
        let other = fs::read(image(dir.path(), &sample::tree(dir.path(), true), compression)).unwrap();
        assert!(one == other, "{compression:?}");
    }
}

#[test]
fn the_smallest_image_is_one_block_of_a_device() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), &Tree::new(), Compression::Zstd);
    assert_eq!(fs::metadata(&image).unwrap().len(), 4096);
    assert!(unsquashfs(&[&"-ll", &image]).contains("squashfs-root"));
}

#[test]
fn what_the_format_has_no_place_for_is_refused_by_path() {
    let mut tree = Tree::new();
    let mut node = Node::file(0o644, "", &Origin::from("test"));
    node.attributes.xattrs.insert("system.posix_acl_access".to_owned(), vec![2, 0, 0, 0]);
    tree.put("var/log/journal", node).unwrap();
    let options = Options { time: sample::TIME, compression: Compression::Zstd };
    let written = write(&tree, &options, std::io::Cursor::new(vec![]));
    let error = written.unwrap_err().to_string();
    assert!(error.starts_with("squashfs: /var/log/journal has the extended attribute"), "{error}");

    let late = Options { time: 1 << 32, ..options };
    let error = write(&Tree::new(), &late, std::io::Cursor::new(vec![])).unwrap_err().to_string();
    assert_eq!(error, "squashfs: times end in the year 2106");
}

#[test]
fn a_full_disk_is_an_error_whenever_it_is_noticed() {
    let mut tree = Tree::new();
    tree.put("a", Node::file(0o644, "a".repeat(300_000).as_str(), &Origin::from("test"))).unwrap();
    let options = Options { time: sample::TIME, compression: Compression::Zstd };
    for room in [0, 95, 96, 200, 4095] {
        let error = write(&tree, &options, std::io::Cursor::new(&mut vec![0; room][..])).unwrap_err();
        assert_eq!(error.to_string(), "squashfs: cannot write the image", "room for {room}");
    }
    write(&tree, &options, std::io::Cursor::new(&mut vec![0; 4096][..])).unwrap();
}
