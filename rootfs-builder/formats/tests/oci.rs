//! OCI layouts: every digest holds, and GNU tar finds in the layer what the tree has.

mod tools;

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use guest_arch::Arch;
use guest_formats::oci::{Options, Process, Written, write};
use guest_tree::{Attributes, Content, Kind, Node, Origin, Tree};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tools::text;

fn options() -> Options {
    let process = Process {
        user: "1000:1000".into(),
        env: vec!["PATH=/bin".into()],
        cmd: vec!["sh".into(), "-l".into()],
        labels: [("b", "2"), ("a", "1")].map(|(key, value)| (key.into(), value.into())).into(),
        ..Process::default()
    };
    Options { time: 1_700_000_000, arch: Arch::Aarch64, reference: "v1".into(), process }
}

fn origin() -> Origin {
    Origin::from("test")
}

fn node(kind: Kind, attributes: Attributes) -> Node {
    Node::new(kind, attributes, &origin())
}

fn long() -> String {
    format!("{}/{}", "d".repeat(120), "n".repeat(120))
}

fn rich() -> Tree {
    let mut tree = Tree::new();
    for (path, node) in [
        ("/bin/busybox", Node::file(0o4755, vec![1; 1000], &origin())),
        ("/bin/sh", Node::symlink("busybox", &origin())),
        ("/dev/console", node(Kind::CharDevice { major: 5, minor: 1 }, Attributes::root(0o600))),
        ("/far", Node::symlink("t".repeat(101), &origin())),
        ("/pipe", node(Kind::Fifo, Attributes { uid: 7, gid: 8, ..Attributes::root(0o640) })),
        ("/tmp", Node::directory(0o1777, &origin())),
    ] {
        tree.put(path, node).unwrap();
    }
    tree.put(long(), Node::file(0o644, "long", &origin())).unwrap();
    let mut owned = Attributes { uid: 3_000_000, gid: 4_000_000_000, ..Attributes::root(0o644) };
    owned.xattrs.insert("user.note".into(), b"a\nb=c".to_vec());
    tree.put("/owned", node(Kind::File(Content::from("mine")), owned)).unwrap();
    tree
}

fn written(tree: &Tree) -> (tempfile::TempDir, Written) {
    let dir = tempfile::tempdir().unwrap();
    let written = write(tree, &options(), dir.path()).unwrap();
    (dir, written)
}

fn file(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn document(dir: &Path, path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs::read(dir.join(path)).unwrap()).unwrap()
}

/// A blob that is what its descriptor says.
fn blob(dir: &Path, descriptor: &Value) -> PathBuf {
    let digest = descriptor["digest"].as_str().unwrap();
    let path = PathBuf::from("blobs").join(digest.replace(':', "/"));
    let bytes = fs::read(dir.join(&path)).unwrap();
    assert_eq!(digest_of(&bytes), digest);
    assert_eq!(descriptor["size"].as_u64(), Some(bytes.len() as u64));
    path
}

fn digest_of(bytes: &[u8]) -> String {
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn layer(tree: &Tree) -> Vec<u8> {
    let (dir, written) = written(tree);
    let manifest = document(dir.path(), Path::new("blobs").join(written.manifest.replace(':', "/")));
    let packed = fs::read(dir.path().join(blob(dir.path(), &manifest["layers"][0]))).unwrap();
    let mut archive = Vec::new();
    GzDecoder::new(&packed[..]).read_to_end(&mut archive).unwrap();
    archive
}

#[test]
fn every_digest_holds_from_the_index_to_the_layer() {
    let (dir, written) = written(&rich());
    assert_eq!(document(dir.path(), "oci-layout")["imageLayoutVersion"], "1.0.0");
    let index = document(dir.path(), "index.json");
    let entry = &index["manifests"][0];
    assert_eq!(entry["digest"], written.manifest.as_str());
    assert_eq!(entry["platform"]["architecture"], "arm64");
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "v1");
    let manifest = document(dir.path(), blob(dir.path(), entry));
    let config = document(dir.path(), blob(dir.path(), &manifest["config"]));
    assert_eq!((&config["architecture"], &config["os"]), (&"arm64".into(), &"linux".into()));
    let expected = serde_json::json!({
        "User": "1000:1000", "Env": ["PATH=/bin"], "Cmd": ["sh", "-l"], "Labels": { "a": "1", "b": "2" },
    });
    assert_eq!(config["config"], expected);
    blob(dir.path(), &manifest["layers"][0]);
    assert_eq!(config["rootfs"]["diff_ids"][0], digest_of(&layer(&rich())));
    let mut found: Vec<_> = ["index.json", "oci-layout"].map(PathBuf::from).into();
    let blobs = fs::read_dir(dir.path().join("blobs/sha256")).unwrap();
    found.extend(blobs.map(|entry| Path::new("blobs/sha256").join(entry.unwrap().file_name())));
    found.sort();
    assert_eq!(written.files, found, "every file is listed, and none is left over");
}

#[test]
fn tar_lists_what_the_tree_has() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "layer.tar", &layer(&rich()));
    let words = ["-tv", "--numeric-owner", "--utc", "--full-time", "--xattrs", "--xattrs-include=*", "-f"];
    let mut arguments: Vec<&dyn AsRef<OsStr>> = words.iter().map(|word| word as _).collect();
    arguments.push(&path);
    let listed = text("tar", "tar", &arguments);
    let lines = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let (d, n, t) = ("d".repeat(120), "n".repeat(120), "t".repeat(101));
    assert_eq!(
        lines.collect::<Vec<_>>(),
        [
            "drwxr-xr-x 0/0 0 2023-11-14 22:13:20 bin/".to_owned(),
            "-rwsr-xr-x 0/0 1000 2023-11-14 22:13:20 bin/busybox".to_owned(),
            "lrwxrwxrwx 0/0 0 2023-11-14 22:13:20 bin/sh -> busybox".to_owned(),
            format!("drwxr-xr-x 0/0 0 2023-11-14 22:13:20 {d}/"),
            format!("-rw-r--r-- 0/0 4 2023-11-14 22:13:20 {d}/{n}"),
            "drwxr-xr-x 0/0 0 2023-11-14 22:13:20 dev/".to_owned(),
            "crw------- 0/0 5,1 2023-11-14 22:13:20 dev/console".to_owned(),
            format!("lrwxrwxrwx 0/0 0 2023-11-14 22:13:20 far -> {t}"),
            "-rw-r--r--* 3000000/4000000000 4 2023-11-14 22:13:20 owned".to_owned(),
            "prw-r----- 7/8 0 2023-11-14 22:13:20 pipe".to_owned(),
            "drwxrwxrwt 0/0 0 2023-11-14 22:13:20 tmp/".to_owned(),
        ]
    );
}

/// Not with the tar crate, which ends a record at the first newline and not where its length says.
#[test]
fn extended_attributes_may_be_any_bytes() {
    let archive = layer(&rich());
    let record = " SCHILY.xattr.user.note=a\nb=c\n";
    let record = format!("{}{record}", record.len() + 2);
    assert!(archive.windows(record.len()).any(|window| window == record.as_bytes()), "{record}");
}

#[test]
fn there_is_no_pax_header_that_is_not_needed() {
    let archive = layer(&rich());
    let entries = tar::Archive::new(&archive[..]).into_inner();
    let headers =
        entries.chunks(512).filter(|block| block[257..262] == *b"ustar" && block[156] == b'x').count();
    assert_eq!(headers, 4, "two long names, a long target, and numbers with an attribute");
}

#[test]
fn the_root_has_an_entry_when_it_has_something_to_say() {
    let mut tree = Tree::new();
    tree.put("/a", Node::file(0o644, "", &origin())).unwrap();
    let names = |tree: &Tree| {
        let archive = layer(tree);
        let mut archive = tar::Archive::new(&archive[..]);
        let entries = archive.entries().unwrap();
        entries.map(|entry| entry.unwrap().path().unwrap().into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&tree), [Path::new("a")]);
    tree.put("/", Node::directory(0o700, &origin())).unwrap();
    assert_eq!(names(&tree), [Path::new("./"), Path::new("a")]);
}

#[test]
fn the_same_tree_makes_the_same_layout() {
    let (first, a) = written(&rich());
    let (second, b) = written(&rich());
    assert_eq!(a, b);
    for path in &a.files {
        assert_eq!(fs::read(first.path().join(path)).unwrap(), fs::read(second.path().join(path)).unwrap());
    }
}

#[test]
fn what_would_be_something_else_in_a_layer_is_refused() {
    let refusal = |path: &str, node: Node| {
        let mut tree = Tree::new();
        tree.put(path, node).unwrap();
        write(&tree, &options(), tempfile::tempdir().unwrap().path()).unwrap_err().to_string()
    };
    let hides = refusal("/etc/.wh.passwd", Node::file(0o644, "", &origin()));
    assert_eq!(hides, "oci: /etc/.wh.passwd has a name that would hide another file");
    let mut attributes = Attributes::root(0o644);
    attributes.xattrs.insert("user.a=b".into(), vec![]);
    let attribute = refusal("/x", node(Kind::Fifo, attributes));
    assert_eq!(attribute, "oci: /x has an extended attribute \"user.a=b\", which has no place");
    let device = Kind::CharDevice { major: 1, minor: 1 << 20 };
    assert!(refusal("/dev/x", node(device, Attributes::root(0o600))).contains("device number"));
}

#[test]
fn another_layout_is_not_written_over() {
    let (dir, _) = written(&rich());
    let error = write(&rich(), &options(), dir.path()).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, format!("{} is not empty", dir.path().display()));
}

#[test]
fn a_lost_file_is_named() {
    let content = {
        let file = tempfile::NamedTempFile::new().unwrap();
        Content::of_file(file.path()).unwrap()
    };
    let mut tree = Tree::new();
    tree.put("/lost", Node::file(0o644, content, &origin())).unwrap();
    let error = write(&tree, &options(), tempfile::tempdir().unwrap().path()).unwrap_err();
    assert_eq!(error.to_string(), "oci: cannot read what is to be /lost");
}
