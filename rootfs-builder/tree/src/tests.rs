use std::io::Read;

use super::*;

fn origin(name: &str) -> Origin {
    Origin::from(name)
}

fn file(text: &str) -> Node {
    Node::file(0o644, text, &origin("test"))
}

fn paths(tree: &Tree) -> Vec<&str> {
    tree.iter().map(|(path, _)| path.to_str().unwrap()).collect()
}

#[test]
fn directories_come_before_what_is_in_them() {
    let mut tree = Tree::new();
    for path in ["/b", "/a/b/c", "a-b", "a.b/x"] {
        tree.put(path, file("x")).unwrap();
    }
    assert_eq!(paths(&tree), ["", "a", "a/b", "a/b/c", "a-b", "a.b", "a.b/x", "b"]);
    assert_eq!(tree.content_size(), 4);
    let below: Vec<_> = tree.below(Path::new("a")).map(|(path, _)| path.to_owned()).collect();
    assert_eq!(below, [Path::new("a/b"), Path::new("a/b/c")]);
}

#[test]
fn what_is_there_stays_and_both_sources_are_named() {
    let mut tree = Tree::new();
    tree.put("/etc/x", Node::file(0o644, "1", &origin("one"))).unwrap();
    let error = tree.put("/etc/x", Node::file(0o644, "2", &origin("two"))).unwrap_err();
    assert_eq!(error.to_string(), "tree: /etc/x is there already: of one, and wanted by two");
    assert!(tree.put("/etc/x/y", file("")).unwrap_err().to_string().contains("/etc/x is not a directory"));
    tree.replace("/etc/x", file("3")).unwrap();
    assert_eq!(tree.get("etc/x"), Some(&file("3")));
    assert_eq!(tree.replace("/etc", file("")), Err(Error::NotEmpty { path: "etc".into() }));
}

#[test]
fn the_first_word_on_a_directory_counts_but_an_implied_one_said_nothing() {
    let mut tree = Tree::new();
    tree.put("/tmp/x", file("")).unwrap();
    tree.put("/tmp", Node::directory(0o1777, &origin("one"))).unwrap();
    tree.put("/tmp", Node::directory(0o700, &origin("two"))).unwrap();
    assert_eq!(tree.get("/tmp").unwrap().attributes.mode, 0o1777);
}

#[test]
fn links_above_are_followed_inside_the_tree() {
    let mut tree = Tree::new();
    tree.put("/usr/lib", Node::directory(0o755, &origin("base"))).unwrap();
    tree.put("/lib", Node::symlink("usr/lib", &origin("base"))).unwrap();
    tree.put("/lib", Node::directory(0o755, &origin("old package"))).unwrap();
    tree.put("/lib/a", file("a")).unwrap();
    tree.put("/out", Node::symlink("../../../usr", &origin("hostile"))).unwrap();
    tree.put("/out/b", file("b")).unwrap();
    tree.put("/abs", Node::symlink("/usr", &origin("hostile"))).unwrap();
    tree.put("/abs/c", file("c")).unwrap();
    assert_eq!(paths(&tree), ["", "abs", "lib", "out", "usr", "usr/b", "usr/c", "usr/lib", "usr/lib/a"]);
    assert_eq!(tree.resolve("/lib/a").unwrap(), Path::new("usr/lib/a"));
    assert_eq!(tree.resolve("/lib").unwrap(), Path::new("usr/lib"));
    assert_eq!(tree.resolve("/lib/none"), None);
}

#[test]
fn what_climbs_or_runs_in_circles_is_refused() {
    let mut tree = Tree::new();
    assert_eq!(tree.put("/a/../../b", file("")), Err(Error::Parent { path: "/a/../../b".into() }));
    tree.put("/x", Node::symlink("y", &origin("hostile"))).unwrap();
    tree.put("/y", Node::symlink("x", &origin("hostile"))).unwrap();
    assert_eq!(tree.put("/x/z", file("")), Err(Error::Links { path: "/x/z".into() }));
    assert_eq!(tree.resolve("/x"), None);
}

#[test]
fn removal_takes_all_below() {
    let mut tree = Tree::new();
    for path in ["/a/b/c", "/a/d", "/ab"] {
        tree.put(path, file("")).unwrap();
    }
    assert!(tree.remove("/a") && !tree.remove("/a"));
    assert_eq!(paths(&tree), ["", "ab"]);
}

#[test]
fn a_file_that_changes_its_length_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, "12345").unwrap();
    let content = Content::of_file(&path).unwrap();
    assert_eq!(content.bytes().unwrap()[..], *b"12345");
    for changed in ["1234", "123456"] {
        std::fs::write(&path, changed).unwrap();
        assert!(content.reader().unwrap().read_to_end(&mut Vec::new()).is_err(), "{changed}");
    }
}
