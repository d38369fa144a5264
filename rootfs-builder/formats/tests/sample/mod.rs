//! A tree with one of everything, and the comparison of what a tool unpacked with it.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use guest_tree::{Attributes, Content, Kind, Node, Origin, Tree};

/// The time of all files.
pub(crate) const TIME: u64 = 1_234_567_890;

/// Everything that a tree can hold, and sizes around all limits of blocks. `backwards` fills it from its end.
pub(crate) fn tree(dir: &Path, backwards: bool) -> Tree {
    let mut nodes = nodes(dir);
    if backwards {
        nodes.reverse();
    }
    let mut tree = Tree::new();
    for (path, node) in nodes {
        tree.put(&path, node).unwrap();
    }
    tree
}

fn nodes(dir: &Path) -> Vec<(String, Node)> {
    let origin = Origin::from("test");
    let node =
        |kind, mode, uid, gid| Node::new(kind, Attributes { uid, gid, ..Attributes::root(mode) }, &origin);
    let file = |content: Vec<u8>| Node::file(0o644, content, &origin);
    let mut nodes = Vec::new();
    let mut put = |path: &str, node| nodes.push((path.to_owned(), node));

    put("dev/null", node(Kind::CharDevice { major: 1, minor: 3 }, 0o666, 0, 0));
    put("dev/large", node(Kind::CharDevice { major: 511, minor: 70_000 }, 0o600, 0, 5));
    put("run/fifo", node(Kind::Fifo, 0o622, 1, 2));
    put("tmp", node(Kind::Directory, 0o1777, 0, 0));
    put("home/user", node(Kind::Directory, 0o2750, 1000, 1000));
    put("home/far", node(Kind::Directory, 0o700, 100_000, 4_000_000_000));
    put("home/far/file", node(Kind::File("far".into()), 0o640, 100_000, 65_536));
    put("bin/su", node(Kind::File("su".into()), 0o4755, 0, 0));
    put("lib", Node::symlink("usr/lib", &origin));
    put("long-link", Node::symlink("x/".repeat(2047), &origin));
    put(&"n".repeat(255), file(b"name".to_vec()));
    put("empty", file(vec![]));
    put("empty-dir", Node::directory(0o755, &origin));
    put("deep/er/and/deep/er/still", file(b"deep".to_vec()));
    put("!before-dot", file(b"!".to_vec()));
    put("\u{fc}ml\u{e4}ut", file(b"utf-8".to_vec()));
    for size in
        [1, 4031, 4032, 4064, 4065, 4095, 4096, 4097, 8191, 8192, 8193, 131_071, 131_072, 131_073, 300_001]
    {
        put(&format!("sizes/{size}"), file(text(size)));
    }
    put("noise", file(noise(200_000)));
    put("mixed", file([text(70_000), noise(50_000), text(1 << 20), noise(9), vec![0; 3 << 20]].concat()));
    for copy in 0..3 {
        put(&format!("copies/{copy}"), file(text(14_321)));
        put(&format!("copies/small-{copy}"), file(b"small".to_vec()));
    }
    for number in 0..1500 {
        put(&format!("many/a file whose name is not short, number {number}"), file(vec![]));
    }
    for number in 0..300 {
        put(&format!("many-dirs/{number}/x"), file(format!("{number}").into_bytes()));
    }
    let cached = dir.join("cached");
    fs::write(&cached, text(5 << 20)).unwrap();
    put("usr/lib/cached", Node::file(0o755, Content::of_file(cached).unwrap(), &origin));

    let mut ping = node(Kind::File("ping".into()), 0o755, 0, 0);
    // cap_net_raw+ep, revision 2, as `setcap` writes it.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    ping.attributes.xattrs.insert("security.capability".to_owned(), capability);
    put("bin/ping", ping);
    for (name, value) in [("one", vec![b'v'; 10]), ("two", vec![b'v'; 10]), ("three", vec![7; 2000])] {
        let mut node = file(name.as_bytes().to_vec());
        node.attributes.xattrs.insert("trusted.same".to_owned(), b"same".to_vec());
        node.attributes.xattrs.insert("user.own".to_owned(), value);
        put(&format!("xattrs/{name}"), node);
    }
    let mut directory = Node::directory(0o755, &origin);
    directory.attributes.xattrs.insert("user.of-a-directory".to_owned(), b"yes".to_vec());
    put("xattrs", directory);
    nodes
}

/// Lines that repeat a bit.
fn text(size: usize) -> Vec<u8> {
    (0..)
        .flat_map(|n: usize| format!("line {n} of {size}: {}\n", n * n % 1009).into_bytes())
        .take(size)
        .collect()
}

fn noise(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(|_| byte()).collect()
}

/// Compares a directory that somebody unpacked with the tree that was packed: all but extended attributes.
/// `lost` are the bits of files' modes that the tool cannot unpack.
pub(crate) fn compare(tree: &Tree, unpacked: &Path, lost: u32) {
    let mut there = 0;
    count(unpacked, &mut there);
    assert_eq!(there, tree.iter().count(), "another number of files");
    for (path, node) in tree.iter() {
        let at = unpacked.join(path);
        let found = fs::symlink_metadata(&at).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        compare_node(path, node, &at, &found, lost);
    }
}

fn compare_node(path: &Path, node: &Node, at: &Path, found: &Metadata, lost: u32) {
    let attributes = &node.attributes;
    assert_eq!((found.uid(), found.gid()), (attributes.uid, attributes.gid), "owner of {path:?}");
    let kept = if found.is_file() { attributes.mode & !lost } else { attributes.mode };
    if !found.is_symlink() {
        assert_eq!(found.mode() & 0o7777, kept, "mode of {path:?}");
    }
    match &node.kind {
        Kind::Directory => assert!(found.is_dir(), "{path:?}"),
        Kind::Fifo => assert!(found.file_type().is_fifo(), "{path:?}"),
        Kind::Symlink(target) => assert_eq!(fs::read_link(at).unwrap(), *target, "{path:?}"),
        Kind::CharDevice { major, minor } => {
            let number =
                (u64::from(*minor) & 0xff) | u64::from(*major) << 8 | (u64::from(*minor) & !0xff) << 12;
            assert!(found.file_type().is_char_device(), "{path:?}");
            assert_eq!(found.rdev(), number, "{path:?}");
        }
        Kind::File(content) => {
            assert!(fs::read(at).unwrap()[..] == content.bytes().unwrap()[..], "content of {path:?}");
            assert_eq!(found.mtime(), TIME as i64, "time of {path:?}");
        }
    }
}

fn count(path: &Path, there: &mut usize) {
    *there += 1;
    if fs::symlink_metadata(path).unwrap().is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| count(&entry.unwrap().path(), there));
    }
}

/// Owners and devices can be unpacked by root alone.
pub(crate) fn must_be_root(dir: &Path) {
    assert_eq!(
        fs::metadata(dir).unwrap().uid(),
        0,
        "this test unpacks owners and devices: it has to be root"
    );
}
