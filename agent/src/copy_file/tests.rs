use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use super::*;

struct Share {
    root: PathBuf,
    uploads: Uploads,
}

impl Share {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("husk-copy-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("share")).unwrap();
        Self { root, uploads: Uploads::default() }
    }

    fn root(&self) -> PathBuf {
        self.root.join("share")
    }

    fn request(&self, path: &str, data: &[u8]) -> CopyFileRequest {
        CopyFileRequest {
            path: format!("{}/{path}", self.root().display()),
            file_size: data.len() as i64,
            file_mode: libc::S_IFREG | 0o640,
            data: data.to_vec(),
            ..Default::default()
        }
    }

    fn copy(&self, request: &CopyFileRequest) -> Result<(), Error> {
        self.uploads.take(request, &self.root())
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.root().join(path)).unwrap()
    }

    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root().join(path)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn refused(result: Result<(), Error>) -> &'static str {
    match result {
        Err(Error::Field { field, .. }) => field,
        other => panic!("expected a refused field, got {other:?}"),
    }
}

#[test]
fn a_whole_file_arrives_with_mode_and_owner() {
    let share = Share::new("whole");
    let request =
        CopyFileRequest { uid: 11, gid: 12, file_mode: 0o104_755, ..share.request("a/b/file", b"content") };
    share.copy(&request).unwrap();
    assert_eq!(share.read("a/b/file"), b"content");
    let found = fs::metadata(share.root().join("a/b/file")).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (11, 12, 0o4755));
    let parent = fs::metadata(share.root().join("a/b")).unwrap();
    // TRAP: one of the peers leaves dir_mode at zero.
    assert_eq!((parent.uid(), parent.gid(), parent.mode() & 0o7777), (11, 12, 0o755));
    assert_eq!(share.names("a/b"), ["file"]);
}

#[test]
fn type_bits_of_the_other_language_are_no_mode() {
    let share = Share::new("bits");
    // os.ModeDir of Go is the highest bit.
    share.copy(&CopyFileRequest { dir_mode: 1 << 31 | 0o750, ..share.request("d/f", b"x") }).unwrap();
    assert_eq!(fs::metadata(share.root().join("d")).unwrap().mode() & 0o7777, 0o750);
}

#[test]
fn chunks_in_order_make_a_file_and_nothing_is_seen_before() {
    let share = Share::new("chunks");
    share.copy(&share.request("f", b"old")).unwrap();
    let chunk = |offset: i64, data: &[u8]| CopyFileRequest {
        offset,
        file_size: 6,
        data: data.to_vec(),
        ..share.request("f", b"")
    };
    share.copy(&chunk(0, b"ab")).unwrap();
    assert_eq!(share.read("f"), b"old");
    assert_eq!(refused(share.copy(&chunk(4, b"ef"))), "offset");
    share.copy(&chunk(2, b"cd")).unwrap();
    assert_eq!(refused(share.copy(&chunk(2, b"cd"))), "offset");
    share.copy(&chunk(4, b"ef")).unwrap();
    assert_eq!(share.read("f"), b"abcdef");
    assert_eq!(share.names(""), ["f"]);
    assert_eq!(refused(share.copy(&chunk(4, b"ef"))), "offset", "it is complete");
}

#[test]
fn a_file_that_begins_again_forgets_its_first_beginning() {
    let share = Share::new("again");
    let first = CopyFileRequest { file_size: 10, ..share.request("f", b"abc") };
    share.copy(&first).unwrap();
    share.copy(&share.request("f", b"xy")).unwrap();
    assert_eq!(share.read("f"), b"xy");
    assert_eq!(share.names(""), ["f"]);
    assert!(share.uploads.uploads().is_empty());
}

/// WEAK: the peer's agent replaces the extension, so that these two are one.
#[test]
fn siblings_do_not_collide_on_their_way() {
    let share = Share::new("siblings");
    for name in ["f.a", "f.b", "f.tmp"] {
        share.copy(&CopyFileRequest { file_size: 6, ..share.request(name, name.as_bytes()) }).unwrap();
    }
    for name in ["f.b", "f.a", "f.tmp"] {
        let size = name.len() as i64;
        let rest = vec![b'!'; 6 - name.len()];
        let last = CopyFileRequest { offset: size, file_size: 6, data: rest, ..share.request(name, b"") };
        if size < 6 {
            share.copy(&last).unwrap();
        }
    }
    assert_eq!((share.read("f.a"), share.read("f.b")), (b"f.a!!!".to_vec(), b"f.b!!!".to_vec()));
    assert_eq!(share.names(""), ["f.a", "f.b", "f.tmp"]);
}

#[test]
fn an_empty_file_takes_one_call() {
    let share = Share::new("empty");
    share.copy(&share.request("f", b"")).unwrap();
    assert_eq!(share.read("f"), b"");
}

#[test]
fn directories_and_links_replace_files_and_keep_directories() {
    let share = Share::new("kinds");
    let directory = |path: &str| CopyFileRequest {
        file_mode: libc::S_IFDIR | 0o2750,
        uid: 5,
        gid: 6,
        ..share.request(path, b"")
    };
    share.copy(&share.request("d", b"a file")).unwrap();
    share.copy(&directory("d")).unwrap();
    share.copy(&share.request("d/inside", b"x")).unwrap();
    share.copy(&directory("d")).unwrap();
    assert_eq!(share.read("d/inside"), b"x");
    let found = fs::metadata(share.root().join("d")).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (5, 6, 0o2750));

    let link = |path: &str, target: &[u8]| CopyFileRequest {
        file_mode: libc::S_IFLNK | 0o777,
        ..share.request(path, target)
    };
    share.copy(&link("l", b"..data/x")).unwrap();
    share.copy(&link("l", b"/anywhere/else")).unwrap();
    assert_eq!(fs::read_link(share.root().join("l")).unwrap(), Path::new("/anywhere/else"));
    // The link is replaced, not followed.
    share.copy(&share.request("l", b"a file")).unwrap();
    assert_eq!(share.read("l"), b"a file");
    assert_eq!(refused(share.copy(&link("l", b""))), "data");
    assert_eq!(refused(share.copy(&link("l", b"a\0b"))), "data");
}

#[test]
fn planted_links_lead_nowhere_outside() {
    let share = Share::new("planted");
    let outside = share.root.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "unharmed").unwrap();
    symlink(&outside, share.root().join("absolute")).unwrap();
    symlink("../outside", share.root().join("relative")).unwrap();
    symlink("/proc/self/root", share.root().join("magic")).unwrap();
    symlink(outside.join("victim"), share.root().join("last")).unwrap();
    symlink(&outside, share.root().join("directory")).unwrap();
    for path in ["absolute/victim", "relative/victim", "magic/victim", "last"] {
        let _ = share.copy(&share.request(path, b"harm"));
    }
    let directory = CopyFileRequest { file_mode: libc::S_IFDIR | 0o777, ..share.request("directory", b"") };
    share.copy(&directory).unwrap();
    assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "unharmed");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(share.read("last"), b"harm", "the link itself was replaced");
    assert!(fs::symlink_metadata(share.root().join("directory")).unwrap().is_dir());
    assert!(!fs::metadata(&outside).unwrap().mode() & 0o777 != 0, "its mode is its own");
}

#[test]
fn each_bad_field_is_named() {
    let share = Share::new("fields");
    let good = || share.request("f", b"abc");
    for (request, field) in [
        (CopyFileRequest { path: String::new(), ..good() }, "path"),
        (CopyFileRequest { path: "f".into(), ..good() }, "path"),
        (CopyFileRequest { path: "/etc/passwd".into(), ..good() }, "path"),
        (CopyFileRequest { path: format!("{}", share.root().display()), ..good() }, "path"),
        (CopyFileRequest { path: format!("{}/.", share.root().display()), ..good() }, "path"),
        (CopyFileRequest { path: format!("{}x/f", share.root().display()), ..good() }, "path"),
        (share.request("../f", b"x"), "path"),
        (share.request("a/../../f", b"x"), "path"),
        (share.request("a/..", b"x"), "path"),
        (share.request("a\0b", b"x"), "path"),
        (CopyFileRequest { file_size: -1, ..good() }, "file_size"),
        (CopyFileRequest { offset: -1, ..good() }, "offset"),
        (CopyFileRequest { offset: 3, file_size: 6, ..good() }, "offset"),
        (CopyFileRequest { file_size: 2, ..good() }, "data"),
        (CopyFileRequest { offset: i64::MAX, file_size: i64::MAX, ..good() }, "data"),
        (CopyFileRequest { data: Vec::new(), ..good() }, "data"),
        (CopyFileRequest { uid: -1, ..good() }, "uid"),
        (CopyFileRequest { gid: -1, ..good() }, "gid"),
    ] {
        assert_eq!(refused(share.copy(&request)), field, "{request:?}");
    }
    assert!(share.names("").is_empty(), "nothing half-made is left");
    // Beyond two thousand millions ids are negative numbers here.
    share.copy(&CopyFileRequest { uid: -2, ..good() }).unwrap();
    assert_eq!(fs::metadata(share.root().join("f")).unwrap().uid(), u32::MAX - 1);
}

#[test]
fn uploads_that_nobody_ends_do_not_add_up() {
    let share = Share::new("many");
    for number in 0..MAX_UPLOADS + 10 {
        let request = CopyFileRequest { file_size: 10, ..share.request(&number.to_string(), b"abc") };
        share.copy(&request).unwrap();
    }
    assert_eq!(share.names("").len(), MAX_UPLOADS);
    let last = MAX_UPLOADS + 9;
    let rest = CopyFileRequest { offset: 3, file_size: 10, ..share.request(&last.to_string(), b"defghij") };
    share.copy(&CopyFileRequest { file_size: 10, ..rest }).unwrap();
    assert_eq!(share.read(&last.to_string()), b"abcdefghij");
    share.uploads.clear();
    assert_eq!(share.names(""), [last.to_string()]);
}
