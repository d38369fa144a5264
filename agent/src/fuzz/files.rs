//! `CopyFile` in a directory that whoever sends it has planted with links, as a container could.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use agent_api::agent::CopyFileRequest;
use nix::libc;
use nix::unistd::{Uid, geteuid, setfsuid};

use crate::copy_file::Uploads;

/// Who writes, if we could be anybody: should a path lead out after all, it must not do so with the rights of root.
const NOBODY: u32 = 65_534;

/// Requests, one a line: `f`, `d` or `l` for a file, a directory or a link, a path below the root, and the data, all
/// apart by spaces. Whatever they are, what lies beside the root stays as it is.
pub fn copy_file(bytes: &[u8]) {
    let scratch = Scratch::new();
    let (root, beside) = (scratch.0.join("root"), scratch.0.join("beside"));
    let uploads = Uploads::default();
    let owner = geteuid().as_raw();
    if owner == 0 {
        setfsuid(Uid::from_raw(NOBODY));
    }
    for line in bytes.split(|byte| *byte == b'\n').take(16) {
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let (kind, path, data) =
            (words.next(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let file_mode = match kind {
            Some(b"d") => libc::S_IFDIR | 0o755,
            Some(b"l") => libc::S_IFLNK,
            _ => libc::S_IFREG | 0o644,
        };
        let writer = if owner == 0 { NOBODY } else { owner };
        let request = CopyFileRequest {
            path: format!("{}/{}", root.display(), String::from_utf8_lossy(path)),
            file_size: data.len() as i64,
            file_mode,
            uid: writer as i32,
            gid: writer as i32,
            data: data.to_vec(),
            ..Default::default()
        };
        let _refused_or_not = uploads.take(&request, &root);
    }
    if owner == 0 {
        setfsuid(Uid::from_raw(owner));
    }
    let names: Vec<_> =
        fs::read_dir(&beside).expect("it is there").map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["kept"], "something came out of the root");
    assert_eq!(fs::read(beside.join("kept")).expect("it is there"), b"as it was");
    assert!(fs::symlink_metadata(&root).expect("it is there").is_dir(), "the root itself was replaced");
}

/// A root with links in it, and what lies beside it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let scratch = base.join(format!("husk-fuzz-{}-{number}", std::process::id()));
        let (root, beside) = (scratch.join("root"), scratch.join("beside"));
        fs::create_dir_all(&root).expect("a directory in a new directory");
        fs::create_dir(&beside).expect("a directory in a new directory");
        fs::write(beside.join("kept"), "as it was").expect("a file in a new directory");
        for (name, target) in
            [("up", "../beside"), ("kept", "../beside/kept"), ("all", "/"), ("loop", "loop")]
        {
            symlink(target, root.join(name)).expect("a link in a new directory");
        }
        symlink(&beside, root.join("there")).expect("a link in a new directory");
        if geteuid().is_root() {
            for path in [&scratch, &root, &beside] {
                chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
            }
            chown(beside.join("kept"), Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        Self(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
