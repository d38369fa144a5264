//! Layers as registries have them, and as somebody who means harm would make them.

use serde_json::json;
use tar::{EntryType as T, Header};

use super::*;
use crate::recipe::{Place, Said};

/// One entry of a layer: kind, path, target or content, mode.
type Part<'a> = (T, &'a str, &'a str, u32);

/// A tar with just these, written by hand where the library would refuse to.
fn tar(entries: &[Part<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, path, what, mode) in entries {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(0);
        let content = if matches!(kind, T::Regular) { what.as_bytes() } else { &[] };
        header.set_size(content.len() as u64);
        if matches!(kind, T::Symlink | T::Link) {
            header.as_old_mut().linkname[..what.len()].copy_from_slice(what.as_bytes());
        }
        header.set_cksum();
        bytes.extend(header.as_bytes());
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn put(dir: &Path, bytes: &[u8], kind: &str) -> serde_json::Value {
    let digest = sha256(bytes);
    std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    std::fs::write(dir.join("blobs/sha256").join(&digest), bytes).unwrap();
    json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()})
}

/// A layout with an image of these layers.
fn layout(dir: &Path, layers: &[Vec<u8>]) -> Base {
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let layers: Vec<_> = layers.iter().map(|layer| put(dir, layer, kind)).collect();
    let manifest = json!({"layers": layers}).to_string();
    let mut entry = put(dir, manifest.as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
    entry["annotations"] = json!({REF_NAME: "latest"});
    std::fs::write(dir.join("index.json"), json!({"manifests": [entry]}).to_string()).unwrap();
    let said = Said { value: "base".to_owned(), place: Place::for_tests() };
    Base { layout: dir.to_owned(), reference: Some("latest".to_owned()), said }
}

fn unpack(layers: &[Vec<u8>]) -> Result<Tree, String> {
    let dir = tempfile::tempdir().unwrap();
    unpack_base(&layout(dir.path(), layers))
}

fn unpack_base(base: &Base) -> Result<Tree, String> {
    let mut tree = Tree::new();
    let added = add(&mut tree, base, Arch::X86_64, &Origin::from("base"));
    added.map(|()| tree).map_err(|error| error.to_string())
}

fn paths(tree: &Tree) -> Vec<&str> {
    tree.iter().map(|(path, _)| path.to_str().unwrap()).filter(|path| !path.is_empty()).collect()
}

#[test]
fn higher_layers_hide_and_replace() {
    let tree = unpack(&[
        tar(&[
            (T::Directory, "./etc/", "", 0o755),
            (T::Regular, "./etc/a", "a", 0o640),
            (T::Regular, "etc/b", "b", 0o644),
            (T::Regular, "opt/x/y", "", 0o644),
            (T::Symlink, "lib", "usr/lib", 0),
            (T::Directory, "usr/lib", "", 0o755),
        ]),
        tar(&[
            (T::Regular, "etc/.wh.b", "", 0o644),
            (T::Regular, "opt/.wh..wh..opq", "", 0o644),
            (T::Regular, "opt/new", "n", 0o644),
            (T::Regular, "lib/c", "c", 0o644),
            (T::Directory, "lib", "", 0o700),
            (T::Link, "etc/d", "etc/a", 0o777),
        ]),
    ])
    .unwrap();
    let expected = ["etc", "etc/a", "etc/d", "lib", "opt", "opt/new", "usr", "usr/lib", "usr/lib/c"];
    assert_eq!(paths(&tree), expected);
    let linked = tree.get("etc/d").unwrap();
    assert_eq!(
        (&linked.kind, linked.attributes.mode, linked.attributes.uid),
        (&Kind::File("a".into()), 0o640, 7)
    );
}

#[test]
fn what_would_leave_the_image_is_refused() {
    let error = |entry: Part<'_>| unpack(&[tar(&[entry])]).unwrap_err();
    assert!(error((T::Regular, "../x", "", 0o644)).ends_with("entry \"../x\" has .. in its path"));
    assert!(error((T::Regular, "a/../../x", "", 0o644)).contains("has .. in its path"));
    assert!(error((T::Regular, "/etc/passwd", "", 0o644)).ends_with("entry \"/etc/passwd\" is absolute"));
    assert!(error((T::Link, "x", "../../etc/shadow", 0o644)).ends_with("its target has .. in its path"));
    assert!(error((T::Link, "x", "/etc/shadow", 0o644)).ends_with("its target is absolute"));
    assert!(error((T::Link, "x", "etc/shadow", 0o644)).contains("is no file of the image"));
    assert!(error((T::Block, "dev/sda", "", 0o644)).ends_with("entry dev/sda: is a device node"));
    assert!(error((T::Char, "dev/mem", "", 0o644)).contains("is a device node"));
    assert!(error((T::Regular, "etc/.wh...", "", 0o644)).contains("takes away what has no name"));
    assert!(error((T::Regular, ".", "x", 0o644)).contains("the root can only be a directory"));
}

#[test]
fn a_link_leads_to_a_place_in_the_image() {
    let tree = unpack(&[tar(&[
        (T::Symlink, "up", "../../../../tmp", 0),
        (T::Regular, "up/x", "x", 0o644),
        (T::Symlink, "etc", "/run", 0),
        (T::Regular, "etc/y", "y", 0o644),
    ])])
    .unwrap();
    assert_eq!(paths(&tree), ["etc", "run", "run/y", "tmp", "tmp/x", "up"]);
}

/// A file that is all hole: 512 bytes of archive, 7 GiB of image.
#[test]
fn a_huge_file_is_refused_before_it_is_read() {
    let mut header = Header::new_gnu();
    header.set_path("big").unwrap();
    header.set_entry_type(T::GNUSparse);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    let gnu = header.as_gnu_mut().unwrap();
    let size = format!("{:011o}\0", 7u64 << 30).into_bytes();
    gnu.realsize.copy_from_slice(&size);
    gnu.sparse[0].offset.copy_from_slice(&size);
    gnu.sparse[0].numbytes.copy_from_slice(b"00000000000\0");
    header.set_cksum();
    let mut layer = header.as_bytes().to_vec();
    layer.resize(512 + 1024, 0);
    let error = unpack(&[layer]).unwrap_err();
    assert!(error.contains("entry big: the base is larger than 4 GiB"), "{error}");
}

/// A pax record.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let length = (1..=3).map(|digits| rest.len() + digits).find(|n| n.to_string().len() + rest.len() == *n);
    [length.unwrap().to_string().into_bytes(), rest].concat()
}

/// A layer with one empty file, and these bytes as its pax records.
fn with_records(records: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_entry_type(T::XHeader);
    header.set_size(records.len() as u64);
    header.set_cksum();
    let mut layer = header.as_bytes().to_vec();
    layer.extend(records);
    layer.resize(layer.len().next_multiple_of(512), 0);
    layer.extend(tar(&[(T::Regular, "f", "", 0o644)]));
    layer
}

#[test]
fn attributes_have_any_bytes_and_no_other_records_in_them() {
    let value = b"\n\0\n";
    let records = [record("SCHILY.xattr.user.x", value), record("uid", b"3000000")].concat();
    let tree = unpack(&[with_records(&records)]).unwrap();
    let attributes = &tree.get("f").unwrap().attributes;
    assert_eq!((&attributes.xattrs["user.x"][..], attributes.uid), (&value[..], 3_000_000));
    assert!(unpack(&[with_records(&records[1..])]).unwrap_err().contains("malformed"));
    // To the tar crate this would be the file "g".
    let error = unpack(&[with_records(&record("SCHILY.xattr.user.x", b"\n10 path=g\n"))]).unwrap_err();
    assert!(error.ends_with("its path can be read in two ways"), "{error}");
}

#[test]
fn what_our_own_writer_says_of_attributes_is_read() {
    let (mut tree, origin) = (Tree::new(), Origin::from("base"));
    for (name, value) in [("a", &b"\n"[..]), ("b", b"x\n13 path=zzzz\ny"), ("c", b"")] {
        let mut node = Node::file(0o644, name, &origin);
        node.attributes.xattrs.insert("user.x".to_owned(), value.to_vec());
        node.attributes.uid = 1 << 30;
        tree.put(format!("{}/{name}", "d".repeat(200)), node).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let options = guest_formats::oci::Options {
        time: 0,
        arch: Arch::X86_64,
        reference: "latest".to_owned(),
        process: guest_formats::oci::Process::default(),
    };
    guest_formats::oci::write(&tree, &options, dir.path()).unwrap();
    let mut read = Tree::new();
    add_layout(&mut read, dir.path(), None, Arch::X86_64, &origin).unwrap();
    for (path, node) in tree.iter().filter(|(_, node)| node.kind != Kind::Directory) {
        assert_eq!(read.get(path).unwrap().attributes, node.attributes, "{}", path.display());
    }
}

#[test]
fn names_that_end_early_are_refused() {
    let error = unpack(&[with_records(&record("path", b"a\0bc"))]).unwrap_err();
    assert!(error.contains("has a zero byte in its path"), "{error}");
    let link =
        [&with_records(&record("linkpath", b"x\0y"))[..1024], &tar(&[(T::Symlink, "l", "x", 0)])].concat();
    assert!(unpack(&[link]).unwrap_err().ends_with("has a zero byte in its path"));
    assert!(unpack(&[tar(&[(T::Symlink, "l", "", 0)])]).unwrap_err().ends_with("is a link to nothing"));
    let sparse = unpack(&[with_records(&record("GNU.sparse.major", b"1"))]).unwrap_err();
    assert!(sparse.ends_with("is a sparse file in a form that is not known"), "{sparse}");
}

#[test]
fn another_blob_than_the_named_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let layer = tar(&[(T::Regular, "x", "x", 0o644)]);
    let base = layout(dir.path(), std::slice::from_ref(&layer));
    let path = dir.path().join("blobs/sha256").join(sha256(&layer));
    for (spoil, expected) in
        [(&layer[1..], "bytes instead of"), (&[b"y", &layer[1..]].concat()[..], "has the digest")]
    {
        std::fs::write(&path, spoil).unwrap();
        let error = unpack_base(&base).unwrap_err();
        assert!(error.contains(expected) && error.contains(&sha256(&layer)), "{error}");
    }
    std::fs::write(&path, [&layer[..], b"x"].concat()).unwrap();
    assert!(unpack_base(&base).unwrap_err().contains("more than"));
    std::fs::remove_file(&path).unwrap();
    assert!(unpack_base(&base).unwrap_err().contains("cannot open blob sha256:"));
}

#[test]
fn the_image_that_is_meant_is_told_from_others() {
    let dir = tempfile::tempdir().unwrap();
    let base = layout(dir.path(), &[]);
    let mut tree = Tree::new();
    let error = add(&mut tree, &base, Arch::S390x, &Origin::from("base")).unwrap_err().to_string();
    assert!(error.ends_with("it has no image for linux/s390x"), "{error}");
    let other = Base { reference: Some("v2".to_owned()), ..base };
    assert!(unpack_base(&other).unwrap_err().ends_with("it has no such image; it has latest"));
    assert!(unpack_base(&Base { reference: None, ..other }).is_ok());
}
