//! ext4: what e2fsprogs think of what was written, and what they read back.

mod tools;

use std::fs::File;
use std::io::{self, Cursor, Seek, SeekFrom};
use std::path::Path;

use guest_formats::ext4::{Options, Size, Written, write};
use guest_tree::{Attributes, Content, Kind, Node, Origin, Tree};
use proptest::prelude::*;
use tools::text;

fn origin() -> Origin {
    Origin::from("test")
}

fn node(kind: Kind, mode: u32) -> Node {
    Node::new(kind, Attributes { uid: 1000, gid: 100_000, ..Attributes::root(mode) }, &origin())
}

/// One of everything.
fn rich() -> Tree {
    let mut tree = Tree::new();
    let long = |byte: u8| "x".repeat(byte.into());
    for (path, node) in [
        ("/bin/true", Node::file(0o4755, vec![1; 5000], &origin())),
        ("/empty", Node::file(0o600, "", &origin())),
        ("/block", Node::file(0o644, vec![2; 4096], &origin())),
        ("/tmp", node(Kind::Directory, 0o1777)),
        ("/owned", node(Kind::File(Content::from("mine")), 0o640)),
        ("/short", Node::symlink(long(59), &origin())),
        ("/long", Node::symlink(long(60), &origin())),
        ("/dev/console", node(Kind::CharDevice { major: 5, minor: 1 }, 0o600)),
        ("/dev/far", node(Kind::CharDevice { major: 300, minor: 70_000 }, 0o600)),
        ("/pipe", node(Kind::Fifo, 0o620)),
    ] {
        tree.put(path, node).unwrap();
    }
    for number in 0..400 {
        tree.put(format!("/many/{number}-{}", long(200)), Node::file(0o644, "", &origin())).unwrap();
        tree.put(format!("/etc/d{number}"), Node::directory(0o755, &origin())).unwrap();
    }
    let mut capable = Node::file(0o755, "ping", &origin());
    capable.attributes.xattrs.insert("security.capability".into(), vec![1; 20]);
    tree.put("/ping", capable.clone()).unwrap();
    capable.attributes.xattrs.insert("user.big".into(), vec![b'b'; 1001]);
    capable.attributes.xattrs.insert("user.a".into(), vec![]);
    capable.attributes.xattrs.insert("trusted.overlay.opaque".into(), b"y".to_vec());
    tree.put("/labelled", capable).unwrap();
    tree
}

fn options() -> Options {
    Options { time: 1_700_000_000, label: "husk root".into(), ..Options::default() }
}

fn written(tree: &Tree, options: &Options) -> (Vec<u8>, Written) {
    let mut image = Cursor::new(Vec::new());
    let written = write(tree, options, &mut image).unwrap();
    assert_eq!(image.position(), written.size);
    assert_eq!(image.get_ref().len() as u64, written.size);
    (image.into_inner(), written)
}

fn refusal(tree: &Tree, options: &Options) -> String {
    write(tree, options, Cursor::new(Vec::new())).unwrap_err().to_string()
}

fn in_file(image: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), image).unwrap();
    file
}

/// The same in a file, where what is zero is a hole.
fn sparse(tree: &Tree, options: &Options) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let written = write(tree, options, Holes(file.reopen().unwrap())).unwrap();
    assert_eq!(file.as_file().metadata().unwrap().len(), written.size);
    file
}

/// Nothing to find, nothing to ask.
fn check(image: &Path) {
    let said = text("e2fsck", "e2fsprogs", &[&"-f", &"-n", &image]);
    assert_eq!(said.lines().count(), 6, "five passes and a summary, no complaint:\n{said}");
}

fn debugfs(image: &Path, request: &str) -> String {
    text("debugfs", "e2fsprogs", &[&"-R", &request, &image])
}

fn dumpe2fs(image: &Path) -> String {
    text("dumpe2fs", "e2fsprogs", &[&"-h", &image])
}

/// A word behind another in what a program prints.
fn behind<'a>(text: &'a str, key: &str) -> &'a str {
    let rest = text.split_once(key).unwrap_or_else(|| panic!("no {key} in {text}")).1;
    rest.split_whitespace().next().unwrap_or_default()
}

#[test]
fn e2fsck_finds_nothing_in_any_size() {
    let sizes =
        [Size::Exact, Size::Free(1), Size::Free(200 << 20), Size::AtLeast(1), Size::AtLeast(300 << 20)];
    for (size, journal) in sizes.into_iter().flat_map(|size| [(size, false), (size, true)]) {
        for tree in [Tree::new(), rich()] {
            check(sparse(&tree, &Options { size, journal, ..options() }).path());
        }
    }
}

#[test]
fn the_size_is_what_was_asked_for() {
    let size = |size| written(&rich(), &Options { size, ..options() }).1.size;
    let exact = size(Size::Exact);
    let image = in_file(&written(&rich(), &options()).0);
    let facts = dumpe2fs(image.path());
    assert_eq!(behind(&facts, "Free blocks:"), "0");
    assert!(behind(&facts, "Free inodes:").parse::<u32>().unwrap() < 16, "what fills a block");
    assert_eq!(size(Size::AtLeast(1)), exact);
    assert_eq!(size(Size::AtLeast(30 << 20)), 30 << 20);
    // A free megabyte comes with 64 inodes.
    assert_eq!(size(Size::Free(1 << 20)), exact + (1 << 20) + 64 * 256);
}

#[test]
fn debugfs_reads_every_file_back() {
    let image = in_file(&written(&rich(), &options()).0);
    let stat = |path: &str| debugfs(image.path(), &format!("stat {path}"));
    let fact = |path: &str, key: &str| behind(&stat(path), key).to_owned();
    assert_eq!(debugfs(image.path(), "cat /owned"), "mine");
    assert_eq!((fact("/owned", "User:"), fact("/owned", "Group:")), ("1000".into(), "100000".into()));
    assert_eq!((fact("/bin/true", "Mode:"), fact("/bin/true", "Size:")), ("04755".into(), "5000".into()));
    assert_eq!((fact("/tmp", "Mode:"), fact("/tmp", "Type:")), ("01777".into(), "directory".into()));
    assert_eq!(fact("/pipe", "Type:"), "FIFO");
    assert!(stat("/dev/console").contains("Device major/minor number: 05:01"), "{}", stat("/dev/console"));
    assert!(stat("/dev/far").contains("Device major/minor number: 300:70000"), "{}", stat("/dev/far"));
    assert!(stat("/short").contains(&format!("Fast link dest: \"{}\"", "x".repeat(59))));
    assert_eq!((fact("/long", "Size:"), fact("/long", "Blockcount:")), ("60".into(), "8".into()));
    assert_eq!(fact("/etc", "Links:"), "402");
    let names = debugfs(image.path(), "ls -p /many");
    assert_eq!(names.lines().filter(|line| line.starts_with('/') && line.contains("xxx")).count(), 400);
    for key in ["ctime:", "atime:", "mtime:", "crtime:"] {
        assert_eq!(fact("/owned", key), "0x6553f100:00000000");
    }
}

#[test]
fn contents_are_those_of_the_tree() {
    let image = in_file(&written(&rich(), &options()).0);
    let dir = tempfile::tempdir().unwrap();
    debugfs(image.path(), &format!("rdump /bin /block /empty {}", dir.path().display()));
    for (path, content) in [("bin/true", vec![1; 5000]), ("block", vec![2; 4096]), ("empty", vec![])] {
        assert_eq!(std::fs::read(dir.path().join(path)).unwrap(), content, "{path}");
    }
}

#[test]
fn extended_attributes_are_found_by_name() {
    let image = in_file(&written(&rich(), &options()).0);
    let get = |path: &str, name: &str| debugfs(image.path(), &format!("ea_get -x {path} {name}"));
    for path in ["/ping", "/labelled"] {
        assert_eq!(get(path, "security.capability").matches("01 ").count(), 20);
    }
    let big = debugfs(image.path(), "ea_get /labelled user.big");
    assert!(big.contains(&"b".repeat(1001)), "{big}");
    let list = debugfs(image.path(), "ea_list /labelled");
    for line in ["user.a (0)", "user.big (1001)", "trusted.overlay.opaque (1)", "security.capability (20)"] {
        assert!(list.contains(line), "{line} in {list}");
    }
}

#[test]
fn a_large_file_has_leaves_of_extents() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let length = (600 << 20) + 1;
    File::create(&source).unwrap().set_len(length).unwrap();
    let mut tree = Tree::new();
    tree.put("/large", Node::file(0o644, Content::of_file(&source).unwrap(), &origin())).unwrap();
    let image = sparse(&tree, &options());
    check(image.path());
    let facts = debugfs(image.path(), "stat /large");
    assert_eq!(behind(&facts, "Size:"), length.to_string());
    assert!(facts.contains("(ETB0)"), "an extent tree with a block: {facts}");
}

#[test]
fn more_directories_than_links_can_count() {
    let mut tree = Tree::new();
    for number in 0..65_000 {
        tree.put(format!("d{number}"), Node::directory(0o755, &origin())).unwrap();
    }
    let image = sparse(&tree, &options());
    check(image.path());
    assert_eq!(behind(&debugfs(image.path(), "stat /"), "Links:"), "1");
}

#[test]
fn the_same_tree_makes_the_same_bytes_wherever_it_is_written() {
    let (image, first) = written(&rich(), &options());
    let mut elsewhere = Cursor::new(vec![9; 12_345]);
    elsewhere.set_position(12_345);
    let second = write(&rich(), &options(), &mut elsewhere).unwrap();
    assert_eq!(first, second);
    assert!(elsewhere.into_inner()[12_345..] == image);
}

#[test]
fn the_uuid_is_that_of_the_content() {
    let uuid = |tree: &Tree, options: &Options| written(tree, options).1.uuid;
    let mut tree = rich();
    let first = uuid(&tree, &options());
    let facts = dumpe2fs(in_file(&written(&tree, &options()).0).path());
    assert_eq!(behind(&facts, "Filesystem UUID:"), first.to_string());
    assert_eq!(behind(&facts, "Filesystem volume name:"), "husk");
    tree.replace("/owned", node(Kind::File(Content::from("thine")), 0o640)).unwrap();
    let others = [
        uuid(&tree, &options()),
        uuid(&rich(), &Options { label: "other".into(), ..options() }),
        uuid(&rich(), &Options { time: 1, ..options() }),
        uuid(&rich(), &Options { size: Size::Free(1 << 20), ..options() }),
    ];
    for (index, other) in others.iter().enumerate() {
        assert!(*other != first && !others[..index].contains(other), "{index}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let tree = Tree::new();
    let label = |label: &str| Options { label: label.into(), ..options() };
    assert_eq!(
        refusal(&tree, &label("seventeen letters")),
        "ext4: the label \"seventeen letters\" is none of at most 16 bytes"
    );
    assert!(refusal(&tree, &label("a\0b")).contains("the label"));
    assert!(
        refusal(&tree, &Options { time: 0x3_8000_0000, ..options() })
            .contains("the time 15032385536 is after")
    );
    let too_many = Options { size: Size::AtLeast(17 << 40), ..options() };
    assert!(
        refusal(&tree, &too_many).contains("4563402752 blocks of 4096 bytes"),
        "{}",
        refusal(&tree, &too_many)
    );

    let with = |path: &str, node: Node| {
        let mut tree = Tree::new();
        tree.put(path, node).unwrap();
        refusal(&tree, &options())
    };
    let device = node(Kind::CharDevice { major: 4096, minor: 0 }, 0o600);
    assert!(with("/dev/x", device).starts_with("ext4: /dev/x has the device number 4096:0"));
    let huge = tempfile::NamedTempFile::new().unwrap();
    huge.as_file().set_len((170 << 30) + 1).unwrap();
    let huge = Node::file(0o644, Content::of_file(huge.path()).unwrap(), &origin());
    assert_eq!(with("/huge", huge), "ext4: /huge is larger than 170 GiB");
}

#[test]
fn a_full_disk_and_a_lost_file_are_told_apart() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "text").unwrap();
    let mut tree = Tree::new();
    tree.put("/lost", Node::file(0o644, Content::of_file(file.path()).unwrap(), &origin())).unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let error = write(&tree, &options(), full).unwrap_err();
    assert_eq!(error.to_string(), "ext4: cannot write the image");
    drop(file);
    assert_eq!(refusal(&tree, &options()), "ext4: cannot read what is to be /lost");
}

/// Few directories, so that they are shared, and long names, so that they are large.
const PATH: &str = "[a-c]{1,2}(/[a-c]{1,3}){0,3}/[a-z]{5,255}";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn e2fsck_finds_nothing_in_any_tree(
        files in proptest::collection::btree_map(PATH, 0..20_000_usize, 0..60),
        attribute in proptest::collection::vec(any::<u8>(), 0..2000),
        free in 0..4_u64 << 20,
        journal: bool,
    ) {
        let mut tree = Tree::new();
        for (path, length) in files {
            let mut node = Node::file(0o644, vec![3; length], &origin());
            if length % 3 == 0 {
                node.attributes.xattrs.insert("user.x".into(), attribute.clone());
            }
            // A path through a file is the tree's to refuse.
            let _ = tree.put(path, node);
        }
        check(sparse(&tree, &Options { size: Size::Free(free), journal, ..options() }).path());
    }
}

/// A file in which what is zero stays a hole.
struct Holes(File);

impl io::Write for Holes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > 1 && bytes.iter().all(|byte| *byte == 0) {
            self.0.seek(SeekFrom::Current(bytes.len() as i64 - 1))?;
            self.0.write_all(&bytes[..1])?;
            return Ok(bytes.len());
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl io::Seek for Holes {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}
