//! Walking inside a container's root from outside, without ever being led out of it.
//!
//! Symbolic links and `..` are followed as the container would; the magic links of `/proc` are not followed at all.
//! The agent reaches what is in a container's root or in a shared directory through here too.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, mkdirat};

use crate::sys::{self, resolve};

type Result<T> = std::result::Result<T, Errno>;

/// Opens what `path` means inside `root`.
pub fn open(root: impl AsFd, path: &Path, flags: OFlag) -> Result<OwnedFd> {
    walk(root.as_fd(), path, flags, resolve::IN_ROOT | resolve::NO_MAGICLINKS)
}

/// Opens `path` below `root` where no symbolic link and no `..` lies on the way, the last name included.
pub fn open_plain(root: impl AsFd, path: &Path, flags: OFlag) -> Result<OwnedFd> {
    walk(root.as_fd(), path, flags, resolve::BENEATH | resolve::NO_SYMLINKS | resolve::NO_MAGICLINKS)
}

fn walk(root: BorrowedFd<'_>, path: &Path, flags: OFlag, how: u64) -> Result<OwnedFd> {
    let path = relative(path);
    // EAGAIN: something was renamed or mounted meanwhile and the kernel could not be sure. Others in the container's
    // namespace can do that for ever; sixteen tries are plenty for an accident.
    for _ in 0..16 {
        match sys::openat2(root, path, flags.bits(), 0, how) {
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

/// How many links in a row may lead to what is not there yet: the kernel's own limit (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// The directory at `path`, made with its parents if it is missing. A link that leads nowhere gets what it names.
pub(crate) fn make_directories(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    make(root.as_fd(), path, OFlag::O_PATH | OFlag::O_DIRECTORY, MAX_LINKS, &|directory, name| {
        mkdirat(directory, name, Mode::from_bits_truncate(0o755))
    })
}

/// What is at `path`; an empty file is made there if nothing is. A link that leads nowhere gets what it names.
pub(crate) fn make_file(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    make(root.as_fd(), path, OFlag::O_PATH, MAX_LINKS, &|directory, name| {
        openat(directory, name, flags, Mode::from_bits_truncate(0o644)).map(drop)
    })
}

fn make(
    root: BorrowedFd<'_>,
    path: &Path,
    open_flags: OFlag,
    links: u32,
    create: &dyn Fn(&OwnedFd, &Path) -> Result<()>,
) -> Result<OwnedFd> {
    match open(root, path, open_flags) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let (directory, name) = make_parent(root, path)?;
    match create(&directory, name) {
        Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
        Ok(()) => return open(root, path, open_flags),
    }
    match open(root, path, open_flags) {
        Err(Errno::ENOENT) if links > 0 => {
            let target = readlinkat(&directory, name)?;
            // An absolute target replaces the whole path: it starts at the container's root.
            let target = path.parent().unwrap_or(Path::new("/")).join(target);
            make(root, &target, open_flags, links - 1, create)
        }
        Err(Errno::ENOENT) => Err(Errno::ELOOP),
        other => other,
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
    fn a_plain_path_has_no_links_and_no_way_up() {
        let (scratch, root) = Scratch::new("plain");
        fs::create_dir(scratch.0.join("etc")).unwrap();
        symlink("etc", scratch.0.join("link")).unwrap();
        let flags = OFlag::O_PATH;
        assert!(open_plain(&root, Path::new("/etc"), flags).is_ok());
        assert_eq!(open_plain(&root, Path::new("/link"), flags).unwrap_err(), Errno::ELOOP);
        assert_eq!(open_plain(&root, Path::new("link/x"), flags).unwrap_err(), Errno::ELOOP);
        assert_eq!(open_plain(&root, Path::new("../etc"), flags).unwrap_err(), Errno::EXDEV);
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
    }

    #[test]
    fn a_link_that_leads_nowhere_gets_what_it_names_inside() {
        let (scratch, root) = Scratch::new("dangling");
        fs::create_dir(scratch.0.join("etc")).unwrap();
        symlink("../run/resolve/stub.conf", scratch.0.join("etc/resolv.conf")).unwrap();
        symlink("/../../husk-nowhere/all", scratch.0.join("up")).unwrap();
        make_file(&root, Path::new("/etc/resolv.conf")).unwrap();
        make_directories(&root, Path::new("/up")).unwrap();
        assert!(scratch.0.join("run/resolve/stub.conf").is_file());
        assert!(scratch.0.join("husk-nowhere/all").is_dir());
        assert!(!Path::new("/husk-nowhere").exists());
        symlink("self", scratch.0.join("self")).unwrap();
        assert_eq!(make_file(&root, Path::new("/self")).unwrap_err(), Errno::ELOOP);
    }
}
