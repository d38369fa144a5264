//! Walking inside a container's root from outside, without ever being led out of it.
//!
//! Symbolic links and `..` are followed as the container would; the magic links of `/proc` are not followed at all.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};

use crate::sys::{self, resolve};

type Result<T> = std::result::Result<T, Errno>;

/// Opens what `path` means inside `root`.
pub(crate) fn open(root: impl AsFd, path: &Path, flags: OFlag) -> Result<OwnedFd> {
    let path = relative(path);
    // EAGAIN: something was renamed or mounted meanwhile and the kernel could not be sure. Others in the container's
    // namespace can do that for ever; sixteen tries are plenty for an accident.
    for _ in 0..16 {
        match sys::openat2(root.as_fd(), path, flags.bits(), 0, resolve::IN_ROOT | resolve::NO_MAGICLINKS) {
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

/// The directory at `path`, made with its parents if it is missing.
pub(crate) fn make_directories(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    match open(root.as_fd(), path, flags) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let (directory, name) = make_parent(root.as_fd(), path)?;
    match mkdirat(&directory, name, Mode::from_bits_truncate(0o755)) {
        Err(Errno::EEXIST) | Ok(()) => open(root, path, flags),
        Err(errno) => Err(errno),
    }
}

/// What is at `path`; an empty file is made there if nothing is.
pub(crate) fn make_file(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    match open(root.as_fd(), path, OFlag::O_PATH) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let (directory, name) = make_parent(root.as_fd(), path)?;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(&directory, name, flags, Mode::from_bits_truncate(0o644)) {
        Err(Errno::EEXIST) | Ok(_) => open(root, path, OFlag::O_PATH),
        Err(errno) => Err(errno),
    }
}

/// The directory `path` lies in, made if missing, and its last name.
pub(crate) fn make_parent(root: impl AsFd, path: &Path) -> Result<(OwnedFd, &Path)> {
    let name = path.file_name().ok_or(Errno::EINVAL)?;
    let directory = make_directories(root, path.parent().unwrap_or(Path::new("/")))?;
    Ok((directory, Path::new(name)))
}

/// `openat2` wants a path that starts at the descriptor; `/` alone becomes `.`.
fn relative(path: &Path) -> &Path {
    let path = path.strip_prefix("/").unwrap_or(path);
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn new(name: &str) -> (Scratch, OwnedFd) {
            let path = std::env::temp_dir().join(format!("husk-jail-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            let fd = nix::fcntl::open(&path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
            (Scratch(path), fd)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn links_are_followed_inside_only() {
        let (scratch, root) = Scratch::new("links");
        fs::create_dir(scratch.0.join("etc")).unwrap();
        fs::write(scratch.0.join("etc/hostname"), "inside").unwrap();
        symlink("/etc", scratch.0.join("abs")).unwrap();
        symlink("../../../etc", scratch.0.join("up")).unwrap();
        for path in ["/abs/hostname", "/up/hostname", "/abs/../../etc/hostname"] {
            let file = open(&root, Path::new(path), OFlag::O_RDONLY).unwrap();
            assert_eq!(std::io::read_to_string(fs::File::from(file)).unwrap(), "inside", "{path}");
        }
    }

    #[test]
    fn directories_and_files_are_made_through_links_but_never_outside() {
        let (scratch, root) = Scratch::new("make");
        symlink("/real", scratch.0.join("link")).unwrap();
        fs::create_dir(scratch.0.join("real")).unwrap();
        make_directories(&root, Path::new("/link/a/b")).unwrap();
        make_file(&root, Path::new("/link/a/file")).unwrap();
        assert!(scratch.0.join("real/a/b").is_dir());
        assert!(scratch.0.join("real/a/file").is_file());
        // A link to nothing is not a place to make something at.
        symlink("/nowhere/at/all", scratch.0.join("dangling")).unwrap();
        assert_eq!(make_directories(&root, Path::new("/dangling")).unwrap_err(), Errno::ENOENT);
        assert_eq!(make_file(&root, Path::new("/dangling")).unwrap_err(), Errno::ENOENT);
        assert!(!Path::new("/nowhere").exists() && !scratch.0.join("nowhere").exists());
    }
}
