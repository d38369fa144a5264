//! Every format as it is written, read back; and what is said of a byte that was changed.

use std::fs;
use std::path::Path;

use guest_arch::Arch;
use guest_tree::{Kind, Node, Origin, Tree};
use kernel_config::Kernel;

use super::*;
use crate::write;

/// A file of blocks and something more, which gains nothing from being compressed.
pub(crate) const LARGE: &str = "/lib/large";

/// The tree of all these tests.
pub(crate) fn tree() -> Tree {
    let (mut tree, origin) = (Tree::new(), Origin::from("test"));
    let mut state = 1u32;
    let large: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(300_000)
    .collect();
    tree.put(LARGE, Node::file(0o644, large, &origin)).unwrap();
    tree.put("/bin/small", Node::file(0o755, "a small one", &origin)).unwrap();
    tree.put("/bin/twin", Node::file(0o755, "a small one", &origin)).unwrap();
    tree.put("/etc/text", Node::file(0o644, "all the same ".repeat(20_000).as_str(), &origin)).unwrap();
    tree.put("/etc/empty", Node::file(0o644, "", &origin)).unwrap();
    tree.put("/bin/link", Node::symlink("small", &origin)).unwrap();
    let mut with_xattr = Node::file(0o644, "xattr", &origin);
    with_xattr.attributes.xattrs.insert("user.x".into(), vec![7; 9]);
    tree.put("/etc/xattr", with_xattr).unwrap();
    for number in 0..300 {
        tree.put(format!("/many/{number:0100}"), Node::file(0o644, number.to_string().as_str(), &origin))
            .unwrap();
    }
    tree
}

/// A tree in a format; the kernel and the stub are none.
pub(crate) fn image(format: Format, tree: &Tree) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let stub = stub();
    let kernel = Kernel {
        image: put("vmlinux", b"kernel"),
        compressed: put("bzImage", &stub[..0x100]),
        config: put("config", b""),
        version: "6.12.1".into(),
    };
    let efi_stub = put("stub", &stub);
    let mut tree = tree.clone();
    if matches!(format, Format::Initrd(_) | Format::Uki) {
        tree.iter_mut().for_each(|(_, node)| node.attributes.xattrs.clear()); // it has no place for any
    }
    let root = write::Root {
        tree: &tree,
        arch: Arch::X86_64,
        cmdline: &["quiet".to_owned()],
        name: "test",
        kernel: &kernel,
        efi_stub: Some(&efi_stub),
        ramdisk: Default::default(),
    };
    write::image(format, &root, dir.path()).unwrap();
    fs::read(dir.path().join(format.file())).unwrap()
}

/// The smallest program for EFI that sections can be added to.
fn stub() -> Vec<u8> {
    let mut bytes = vec![0; 0x204];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"MZ");
    put(0x3c, &[0x40]);
    put(0x40, b"PE\0\0\x64\x86\x01");
    put(0x54, &[112, 0, 0, 0, 0x0b, 0x02]);
    put(0x58 + 33, &[0x10]);
    put(0x58 + 36, &[4]);
    put(0x58 + 60, &[0, 2]);
    put(0xc8, b".text\0\0\0\x04\0\0\0\0\x20\0\0\x04\0\0\0\0\x02\0\0");
    put(0x200, b"code");
    bytes
}

/// What the name of a file begins with in a format.
pub(crate) fn prefix(format: Format) -> &'static str {
    match format {
        Format::Disk(guest_formats::disk::Scheme::Gpt) => "partition root: ",
        Format::Disk(_) | Format::Kata(_) => "partition 1: ",
        Format::Oci => "layer 1: ",
        Format::Uki => "section .initrd: ",
        _ => "",
    }
}

/// Whether a file's bytes can be found in the image as they are.
pub(crate) fn is_plain(format: Format) -> bool {
    let packed = matches!(format, Format::Initrd(compression) if compression != initrd::Compression::None);
    !packed && !matches!(format, Format::Oci | Format::Uki)
}

/// Where some bytes are. Much of a disk is zeros, and these tests are not optimised.
pub(crate) fn find(image: &[u8], needle: &[u8]) -> usize {
    const BLOCK: usize = 4096;
    let found = (0..image.len()).step_by(BLOCK).find_map(|start| {
        let block = &image[start..image.len().min(start + BLOCK + needle.len())];
        if block.starts_with(&[0; BLOCK]) {
            return None;
        }
        Some(start + block.windows(needle.len()).position(|window| window == needle)?)
    });
    found.expect("it is in the image")
}

fn said(format: Format, image: &[u8], offset: usize) -> String {
    at(&of(format.file(), image).unwrap(), offset as u64).unwrap()
}

#[test]
fn all_files_are_found_with_all_their_bytes() {
    let tree = tree();
    for format in Format::ALL {
        let image = image(format, &tree);
        let parts = of(format.file(), &image).unwrap();
        let mut files = 0;
        for (path, node) in tree.iter() {
            let Kind::File(content) = &node.kind else { continue };
            let name = format!("{}{}", prefix(format), Path::new("/").join(path).display());
            let mut named = parts.iter().filter(|part| part.name == name);
            let part = named.next().unwrap_or_else(|| panic!("{format}: no {name}"));
            let bytes: Vec<u8> = part.chunks().flatten().copied().collect();
            assert!(bytes == *content.bytes().unwrap(), "{format}: {name}");
            assert!(named.next().is_none(), "{format}: {name} twice");
            files += 1;
        }
        assert_eq!(files, 306);
    }
}

#[test]
fn a_byte_is_told_by_file_and_offset() {
    let tree = tree();
    let Kind::File(content) = &tree.get(LARGE).unwrap().kind else { unreachable!() };
    let content = content.bytes().unwrap();
    for format in Format::ALL.into_iter().filter(|format| is_plain(*format)) {
        let image = image(format, &tree);
        // In the first block, in the last, and in what is left.
        for byte in [0, 70_000, 299_990] {
            let needle = &content[byte..byte + 10];
            let offset = find(&image, needle);
            let expected = format!("{}{LARGE} at its byte {byte}", prefix(format));
            assert_eq!(said(format, &image, offset), expected, "{format}");
        }
    }
}

#[test]
fn what_is_packed_with_others_is_told_as_that() {
    let image = image(Format::Squashfs, &tree());
    let parts = of("rootfs.squashfs", &image).unwrap();
    let text = parts.iter().find(|part| part.name == "/etc/text").unwrap();
    let Place::Packed(place, _) = text.pieces[0].place else { panic!("it is not compressed") };
    let said = at(&parts, place + 1).unwrap();
    assert_eq!(said, "/etc/text in what is packed from its byte 0 on");
}

#[test]
fn twins_are_told_as_such() {
    let image = image(Format::Ext4, &tree());
    let mut image = image;
    let offset = find(&image, b"a small one");
    assert_eq!(said(Format::Ext4, &image, offset + 2), "/bin/small at its byte 2");
    // The same blocks for two files.
    let tree = tree();
    image = self::image(Format::Squashfs, &tree);
    let parts = of("rootfs.squashfs", &image).unwrap();
    let twin = parts.iter().find(|part| part.name == "/bin/twin").unwrap();
    let place = match twin.pieces[0].place {
        Place::Packed(at, _) | Place::Plain(at) => at,
        Place::Unknown => panic!("it has no place"),
    };
    assert!(at(&parts, place).unwrap().contains(", or one of "));
}

#[test]
fn what_is_no_file_is_told_as_metadata_or_hash_tree() {
    use guest_formats::{disk::Scheme, kata::Head};
    let tree = tree();
    let own = "its own metadata";
    let partition = "partition 1: its own metadata";
    for (format, offset, expected) in [
        // UUIDs, or times, of file systems.
        (Format::Erofs, 1024 + 48, own),
        (Format::Squashfs, 8, own),
        (Format::Ext4, 1024 + 0x68, own),
        // Of disks, and of what is in their first partition.
        (Format::Disk(Scheme::Gpt), 512 + 56, own),
        (Format::Disk(Scheme::Gpt), (1 << 20) + 1024 + 48, "partition root: its own metadata"),
        (Format::Disk(Scheme::Mbr), 440, own),
        (Format::Disk(Scheme::Mbr), (1 << 20) + 1024 + 48, partition),
        (Format::Kata(Head::None), (1 << 20) + 1024 + 0x68, partition),
        (Format::Kata(Head::Dax), 4096, own),
        (Format::Kata(Head::Dax), (3 << 20) + 1024 + 0x68, partition),
        (Format::Uki, 0x46, own),
        (Format::Initrd(initrd::Compression::None), 2, "the header of / at its byte 2"),
    ] {
        let image = image(format, &tree);
        let said = said(format, &image, offset);
        assert_eq!(said, expected, "{format} {offset}");
    }
    let kata = self::image(Format::Kata(Head::None), &tree);
    let last = kata.iter().rposition(|byte| *byte != 0).unwrap();
    assert!(
        said(Format::Kata(Head::None), &kata, last).starts_with("partition 2: the hash tree at its byte ")
    );
    for format in [Format::Erofs, Format::Squashfs, Format::Disk(Scheme::Gpt)] {
        let image = image(format, &tree);
        let tree = image.windows(8).rposition(|window| window == b"verity\0\0").unwrap();
        let said = said(format, &image, tree + 9);
        assert!(said.ends_with("the hash tree at its byte 9"), "{format}: {said}");
    }
}

#[test]
fn documents_and_sections_are_told_by_name() {
    let image = image(Format::Oci, &tree());
    let find = |text: &[u8]| image.windows(text.len()).position(|window| window == text).unwrap();
    for (text, name) in [
        (&b"{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest"[..], "the manifest"),
        (b"{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index", "/index.json"),
        (b"{\"architecture\"", "the configuration"),
        (b"\x1f\x8b", "layer 1"),
    ] {
        assert_eq!(said(Format::Oci, &image, find(text)), format!("{name} at its byte 0"));
    }
    let image = self::image(Format::Uki, &tree());
    let cmdline = image.windows(5).position(|window| window == b"quiet").unwrap();
    assert_eq!(said(Format::Uki, &image, cmdline + 3), "section .cmdline at its byte 3");
}

#[test]
fn damage_is_no_panic() {
    let tree = tree();
    for format in Format::ALL {
        let image = image(format, &tree);
        assert!(of(format.file(), &image[..image.len().min(2000)]).is_none_or(|parts| !parts.is_empty()));
        // Metadata is near the beginning or the end of all of them.
        let end = image.len();
        let places = (0..4096).step_by(127).chain((end.saturating_sub(9000)..end).step_by(997));
        for offset in places.filter(|offset| *offset < end) {
            let mut damaged = image.clone();
            damaged[offset] ^= if offset % 2 == 0 { 0xff } else { 1 };
            let _whatever_it_is = of(format.file(), &damaged);
        }
    }
}
