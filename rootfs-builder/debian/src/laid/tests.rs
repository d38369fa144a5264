use std::path::{Path, PathBuf};

use tar::EntryType;

use super::*;
use crate::unpacked::tests::{Part, package};

const FILE: EntryType = EntryType::Regular;
const DIRECTORY: EntryType = EntryType::Directory;
const LINK: EntryType = EntryType::Symlink;

/// Lays packages that are given by their files.
fn laid(packages: &[&[Part<'_>]]) -> Result<Tree, String> {
    let dirs: Vec<_> = packages.iter().map(|_| tempfile::tempdir().unwrap()).collect();
    let apart: Vec<_> = packages.iter().zip(&dirs).map(|(p, dir)| package(p, dir.path()).unwrap()).collect();
    let mut tree = Tree::new();
    merge_usr(&mut tree, apart.iter().flat_map(|one| &one.entries)).unwrap();
    for (number, one) in apart.iter().enumerate() {
        put_all(&mut tree, &Origin::from(format!("package {number}")), one)
            .map_err(|error| error.to_string())?;
    }
    Ok(tree)
}

fn kind(tree: &Tree, path: &str) -> Option<Kind> {
    tree.get(path).map(|node| node.kind.clone())
}

#[test]
fn all_of_the_root_goes_into_usr() {
    let tree = laid(&[
        &[
            ("./lib64/", DIRECTORY, "", b""),
            ("./lib64/ld.so", FILE, "", b"ld"),
            ("./bin/sh", FILE, "", b"sh"),
        ],
        &[("./lib", LINK, "usr/lib", b""), ("./library/x", FILE, "", b"x"), ("./sbin/", DIRECTORY, "", b"")],
    ])
    .unwrap();
    for top in ["bin", "sbin", "lib", "lib64"] {
        assert_eq!(kind(&tree, top), Some(Kind::Symlink(format!("usr/{top}").into())), "{top}");
    }
    assert_eq!(tree.resolve("/lib64/ld.so"), Some(PathBuf::from("usr/lib64/ld.so")));
    assert!(tree.get("usr/bin/sh").is_some() && tree.get("usr/library").is_none());
    assert_eq!(tree.get("library").map(|node| &node.kind), Some(&Kind::Directory));
}

#[test]
fn a_link_out_of_the_tree_leads_nowhere_but_into_it() {
    let tree = laid(&[&[("./out", LINK, "../../../etc", b""), ("./out/x", FILE, "", b"x")]]).unwrap();
    assert!(tree.get("etc/x").is_some());
    assert!(!Path::new("/etc/x").exists());
}

#[test]
fn two_packages_with_one_file_are_both_named() {
    let error = laid(&[&[("a", FILE, "", b"1")], &[("a", FILE, "", b"2")]]).unwrap_err();
    assert_eq!(error, "tree: /a is there already: of package 0, and wanted by package 1");
    let error = laid(&[&[("lib", LINK, "elsewhere", b"")]]).unwrap_err();
    assert_eq!(error, "tree: /lib is there already: of the merged /usr, and wanted by package 0");
}

#[test]
fn set_id_files_are_told() {
    let tree = laid(&[&[("usr/bin/su", FILE, "", b"su"), ("d", DIRECTORY, "", b"")]]).unwrap();
    let found = set_id_files(&tree);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].path.as_str(), found[0].mode, found[0].uid), ("usr/bin/su", 0o4755, 7));
    assert_eq!(&*found[0].origin, "package 0");
}
