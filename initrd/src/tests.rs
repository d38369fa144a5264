//! Golden bytes, refusals, and what cpio makes of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use guest_tree::{Attributes, Content, Kind, Node, Origin, Tree};

use super::*;

fn origin() -> Origin {
    Origin::from("test")
}

fn char_device(mode: u32, major: u32, minor: u32) -> Node {
    Node::new(Kind::CharDevice { major, minor }, Attributes::root(mode), &origin())
}

fn small() -> Tree {
    let mut tree = Tree::new();
    tree.put("/dev/console", char_device(0o600, 5, 1)).unwrap();
    tree.put("/init", Node::file(0o755, "hello", &origin())).unwrap();
    tree.put("/sbin", Node::symlink("bin", &origin())).unwrap();
    tree
}

fn with(path: impl AsRef<Path>, node: Node) -> Result<(), Error> {
    let mut tree = small();
    tree.put(path, node).unwrap();
    write(&tree, 0, Compression::None, io::sink())
}

fn refusal(path: impl AsRef<Path>, node: Node) -> String {
    with(path, node).unwrap_err().to_string()
}

#[test]
fn golden() {
    // One line per part of the file; `.` stands for a NUL, and `,` for the name of the root.
    let expected = [
        "070701 00000001 000041ed 00000000 00000000 00000002 00000009 00000000",
        "00000000 00000000 00000000 00000000 00000002 00000000 ,.",
        "070701 00000002 000041ed 00000000 00000000 00000002 00000009 00000000",
        "00000000 00000000 00000000 00000000 00000004 00000000 dev. ..",
        "070701 00000003 00002180 00000000 00000000 00000001 00000009 00000000",
        "00000000 00000000 00000005 00000001 0000000c 00000000 dev/console. ..",
        "070701 00000004 000081ed 00000000 00000000 00000001 00000009 00000005",
        "00000000 00000000 00000000 00000000 00000005 00000000 init. . hello ...",
        "070701 00000005 0000a1ff 00000000 00000000 00000001 00000009 00000003",
        "00000000 00000000 00000000 00000000 00000005 00000000 sbin. . bin .",
        "070701 00000000 00000000 00000000 00000000 00000001 00000000 00000000",
        "00000000 00000000 00000000 00000000 0000000b 00000000 TRAILER!!!. ...",
    ];
    let cpio = to_vec(&small(), 9, Compression::None).unwrap();
    let shown = |byte: &u8| match byte {
        0 => '.',
        b'.' => ',',
        other => char::from(*other),
    };
    assert_eq!(cpio.iter().map(shown).collect::<String>(), expected.concat().replace(' ', ""));
    assert_eq!(newc::length(&small()), cpio.len() as u64);
}

#[test]
fn owners_modes_and_all_types_of_files_are_kept() {
    let mut tree = Tree::new();
    let attributes = Attributes { uid: 1000, gid: 70_000, ..Attributes::root(0o4751) };
    tree.put("/a", Node::new(Kind::File(Content::from("x")), attributes, &origin())).unwrap();
    tree.put("/f", Node::new(Kind::Fifo, Attributes::root(0o620), &origin())).unwrap();
    tree.put("/t", Node::directory(0o1777, &origin())).unwrap();
    let cpio = to_vec(&tree, 0, Compression::None).unwrap();
    let text = String::from_utf8_lossy(&cpio);
    for part in ["000089e9000003e800011170", "00001190", "000043ff"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn what_the_kernel_would_skip_is_refused() {
    let file = |text: &str| Node::file(0o644, text, &origin());
    let path = |length: usize| format!("{}{}", "d/".repeat(2000), "x".repeat(length - 4000));
    assert!(with(path(4095), file("")).is_ok());
    assert!(refusal(path(4096), file("")).ends_with("has a path of more than the kernel's 4095 bytes"));
    assert_eq!(refusal(OsStr::from_bytes(b"/a\0b"), file("")), "initrd: /a\0b has a NUL in its path");
    assert_eq!(refusal("/TRAILER!!!", file("")), "initrd: /TRAILER!!! has the name that ends an archive");
    assert!(with("/a/TRAILER!!!", file("")).is_ok());

    let link = |target: &str| Node::symlink(target, &origin());
    assert_eq!(refusal("/l", link("")), "initrd: /l is a symbolic link to nowhere");
    assert!(refusal("/l", link(&"x".repeat(4096))).contains("a target of more than"));
    assert!(with("/l", link(&"x".repeat(4095))).is_ok());
    assert!(refusal("/l", link("a\0b")).contains("a NUL in its target"));

    let mut capable = file("");
    capable.attributes.xattrs.insert("security.capability".into(), vec![1]);
    assert!(refusal("/ping", capable).starts_with("initrd: /ping has extended attributes"));
}

#[test]
fn a_file_of_4_gib_is_refused_before_anything_is_written() {
    let sparse = tempfile::NamedTempFile::new().unwrap();
    sparse.as_file().set_len(1 << 32).unwrap();
    let huge = Content::of_file(sparse.path()).unwrap();
    assert_eq!(refusal("/huge", Node::file(0o644, huge, &origin())), "initrd: /huge is larger than 4 GiB");
}

#[test]
fn a_file_that_changed_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let content = Content::of_file(file.path()).unwrap();
    std::fs::write(file.path(), "more").unwrap();
    let error = with("/changed", Node::file(0o644, content, &origin())).unwrap_err();
    assert_eq!(error.to_string(), "initrd: cannot read what is to be /changed");
}

#[test]
fn a_full_disk_is_an_error_with_each_compression() {
    for compression in Compression::ALL {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = write(&small(), 0, compression, full).unwrap_err();
        assert!(matches!(error, Error::Write(_)), "{compression}: {error}");
    }
}

#[test]
fn compression_keeps_the_bytes_and_repeats() {
    let cpio = to_vec(&small(), 0, Compression::None).unwrap();
    let gzip = to_vec(&small(), 0, Compression::Gzip).unwrap();
    let mut unpacked = Vec::new();
    io::copy(&mut flate2::read::GzDecoder::new(&gzip[..]), &mut unpacked).unwrap();
    assert_eq!(unpacked, cpio);
    assert_eq!(gzip[4..8], [0; 4], "no time");
    let zstd = to_vec(&small(), 0, Compression::Zstd).unwrap();
    assert_eq!(zstd::bulk::decompress(&zstd, cpio.len()).unwrap(), cpio);
    let content_size = zstd::zstd_safe::get_frame_content_size(&zstd).unwrap();
    assert_eq!(content_size, Some(cpio.len() as u64), "what the kernel's window is as large as");
    for compression in Compression::ALL {
        let [a, b] = [0, 1].map(|_| to_vec(&small(), 0, compression).unwrap());
        assert_eq!(a, b);
    }
}

#[test]
fn names_of_compressions_parse_back() {
    for compression in Compression::ALL {
        assert_eq!(compression.to_string().parse(), Ok(compression));
    }
    let error = "xz".parse::<Compression>().unwrap_err();
    assert_eq!(error.to_string(), "unknown compression \"xz\"; known are none gz zst");
}

#[test]
fn cpio_lists_it() {
    let mut cpio = Command::new("cpio")
        .args(["--list", "--verbose", "--numeric-uid-gid"])
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cpio is installed");
    write(&small(), 0, Compression::None, cpio.stdin.take().unwrap()).unwrap();
    let listed = String::from_utf8(cpio.wait_with_output().unwrap().stdout).unwrap();
    let words = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    assert_eq!(
        words.collect::<Vec<_>>(),
        [
            "drwxr-xr-x 2 0 0 0 Jan 1 1970 .",
            "drwxr-xr-x 2 0 0 0 Jan 1 1970 dev",
            "crw------- 1 0 0 5, 1 Jan 1 1970 dev/console",
            "-rwxr-xr-x 1 0 0 5 Jan 1 1970 init",
            "lrwxrwxrwx 1 0 0 3 Jan 1 1970 sbin -> bin",
        ]
    );
}
