use std::io::{Cursor, SeekFrom};

use guest_tree::{Attributes, Kind, Node, Origin};

use super::*;

const PLAIN: Options = Options { time: 1_700_000_000, compression: Compression::None };
const LZ4: Options = Options { compression: Compression::Lz4, ..PLAIN };

fn file(content: &[u8]) -> Node {
    Node::file(0o644, content.to_vec(), &Origin::from("test"))
}

fn image(tree: &Tree, options: &Options) -> (Vec<u8>, Summary) {
    let mut out = Cursor::new(Vec::new());
    let summary = write(tree, options, &mut out).unwrap();
    assert_eq!(summary.size, out.get_ref().len() as u64);
    (out.into_inner(), summary)
}

fn tree(files: &[(&str, &[u8])]) -> Tree {
    let mut tree = Tree::new();
    files.iter().for_each(|(path, content)| tree.put(path, file(content)).unwrap());
    tree
}

#[test]
fn an_empty_tree_is_one_block() {
    let (bytes, summary) = image(&Tree::new(), &PLAIN);
    assert_eq!((bytes.len(), summary.inodes), (BLOCK, 1));
    assert_eq!(bytes[1024..1028], [0xe2, 0xe1, 0xf5, 0xe0]);
}

#[test]
fn the_order_of_filling_does_not_matter_but_each_byte_of_content_does() {
    let files: [(&str, &[u8]); 4] = [("a/b", b"1"), ("a/c", &[2; 9000]), ("d", b""), ("e", b"3")];
    let mut backwards = files;
    backwards.reverse();
    for options in [PLAIN, LZ4] {
        let (one, other) = (image(&tree(&files), &options), image(&tree(&backwards), &options));
        assert!(one == other);
        let changed = image(&tree(&[("a/b", b"1"), ("a/c", &[2; 9000]), ("d", b""), ("e", b"4")]), &options);
        assert_ne!(one.1.uuid, changed.1.uuid);
        let later = Options { time: options.time + 1, ..options };
        assert_ne!(one.1.uuid, image(&tree(&files), &later).1.uuid);
    }
}

#[test]
fn equal_contents_are_stored_once() {
    let content: Vec<u8> = (0..3 * BLOCK + 3000).map(|at| (at / 7) as u8).collect();
    let one = image(&tree(&[("a", &content)]), &PLAIN).0;
    let (three, summary) = image(&tree(&[("a", &content), ("b", &content), ("c/d", &content)]), &PLAIN);
    // The tails are 3000 bytes: a block for all three is less than one behind each.
    assert_eq!(three.len(), one.len());
    assert_eq!(summary.shared, 2 * content.len() as u64);
}

#[test]
fn tails_fill_the_blocks_of_inodes() {
    let contents: Vec<(String, Vec<u8>)> =
        (0..100).map(|n| (format!("f{n}"), vec![n as u8; 64 + n * 29])).collect();
    let files: Vec<_> = contents.iter().map(|(path, content)| (path.as_str(), &content[..])).collect();
    let total: usize = contents.iter().map(|(_, content)| (32 + content.len()).next_multiple_of(32)).sum();
    let (bytes, _) = image(&tree(&files), &PLAIN);
    assert!(bytes.len() < total + total / 20 + 2 * BLOCK, "{} for {total}", bytes.len());
}

#[test]
fn an_image_may_begin_inside_of_something() {
    let tree = tree(&[("a", &[1; 5000])]);
    let mut disk = Cursor::new(vec![9; 3 * BLOCK]);
    disk.seek(SeekFrom::Start(1000)).unwrap();
    let summary = write(&tree, &PLAIN, &mut disk).unwrap();
    assert_eq!(disk.position(), 1000 + summary.size);
    let bytes = disk.into_inner();
    assert!(bytes[..1000] == [9; 1000] && bytes[1000..][..summary.size as usize] == image(&tree, &PLAIN).0);
}

#[test]
fn noise_is_not_compressed_and_what_is_compressed_is_shorter() {
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(3 << 20)
    .collect();
    let size = |content: &[u8], options| image(&tree(&[("f", content)]), options).0.len();
    assert_eq!(size(&noise, &LZ4), size(&noise, &PLAIN));
    let text: Vec<u8> = (0..100_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
    assert!(size(&text, &LZ4) < size(&text, &PLAIN) / 2);
    // Starts like text, goes on as noise: it was worth beginning with, and costs but an index.
    let both = [&text[..], &noise].concat();
    assert!(size(&both, &LZ4) < size(&both, &PLAIN));
}

#[test]
fn what_has_no_place_is_refused_by_path() {
    let mut tree = tree(&[]);
    let device = Kind::CharDevice { major: 1, minor: 1 << 20 };
    tree.put("dev/x", Node::new(device, Attributes::root(0o600), &Origin::from("test"))).unwrap();
    let error = write(&tree, &PLAIN, Cursor::new(Vec::new())).unwrap_err().to_string();
    assert_eq!(error, "erofs: /dev/x has the device number 1:1048576, which Linux has not");
}

#[test]
fn a_full_disk_is_an_error_whenever_it_is_noticed() {
    let tree = tree(&[("a", &[1; 5000]), ("b", &[2; 3 << 20])]);
    let size = image(&tree, &PLAIN).0.len();
    for room in [0, 100, BLOCK, BLOCK + 1, size / 2, size - 1] {
        let error = write(&tree, &PLAIN, Cursor::new(&mut vec![0; room][..])).unwrap_err();
        assert_eq!(error.to_string(), "erofs: cannot write the image", "room for {room} of {size}");
    }
    write(&tree, &PLAIN, Cursor::new(&mut vec![0; size][..])).unwrap();
}
