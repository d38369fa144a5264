//! Mount points: made where they are missing, reached without following a link, and mounted upon.
//!
//! A container can write to some of the directories that lead to a mount point. So each is opened once, by a walk that
//! refuses links, and used by its descriptor from there on.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use jail::inside;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use super::done::{Done, Step};
use super::{At as _, Fault};

const HANDLE: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// What is at `path`, without a link on the way.
pub(super) fn open(path: &Path) -> nix::Result<OwnedFd> {
    let root = nix::fcntl::open("/", HANDLE | OFlag::O_DIRECTORY, Mode::empty())?;
    inside::open_plain(&root, path, HANDLE)
}

/// The path by which a system call reaches what a descriptor refers to.
pub(super) fn path_of(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// The directory at `path`; it and its parents are made if they are missing.
///
/// A share may refuse the attempt (EROFS, ENOSYS): what is there already serves all the same, since it is looked for
/// first.
pub(super) fn directory(path: &Path, done: &mut Done) -> Result<OwnedFd, Fault> {
    make(path, done).at(|| format!("make the directory {path:?}"))
}

fn make(path: &Path, done: &mut Done) -> nix::Result<OwnedFd> {
    // ENOENT again after the parent was there: another storage's last reference took the parent away. It cannot go on.
    for _ in 0..8 {
        match open(path) {
            Err(Errno::ENOENT) => {}
            other => return other,
        }
        let name = path.file_name().ok_or(Errno::EINVAL)?;
        let parent = make(path.parent().unwrap_or(Path::new("/")), done)?;
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => done.note(Step::Directory(path.to_path_buf())),
            Err(Errno::EEXIST | Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::ENOENT)
}

/// A directory for what a mount writes, which goes with all that is in it when the mount does.
pub(super) fn scratch(path: &Path, done: &mut Done) -> Result<(), Fault> {
    let is_new = open(path).is_err();
    directory(path, done)?;
    if is_new {
        done.note(Step::Tree(path.to_path_buf()));
    }
    Ok(())
}

/// The file at `path`, empty if it is new.
pub(super) fn file(path: &Path, done: &mut Done) -> Result<OwnedFd, Fault> {
    let what = || format!("make the file {path:?}");
    let parent = directory(path.parent().unwrap_or(Path::new("/")), done)?;
    let name = path.file_name().ok_or(Errno::EINVAL).at(what)?;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(&parent, name, flags, Mode::from_bits_truncate(0o644)) {
        Ok(_) => done.note(Step::File(path.to_path_buf())),
        // The same errors as for a directory that the host made.
        Err(Errno::EEXIST | Errno::EROFS | Errno::ENOSYS) => {}
        Err(errno) => return Err(errno).at(what),
    }
    open(path).at(what)
}

/// A file system to be mounted, or a bind mount to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounting {
    pub(super) source: String,
    pub(super) fstype: String,
    pub(super) flags: MsFlags,
    pub(super) data: String,
}

impl Mounting {
    /// Mounts it at the directory `path`, which is made if it is missing.
    pub(super) fn mount(&self, path: &Path, done: &mut Done) -> Result<(), Fault> {
        let target = directory(path, done)?;
        let data = (!self.data.is_empty()).then_some(self.data.as_str());
        let (source, fstype) = (self.source.as_str(), self.fstype.as_str());
        mount(Some(source), &path_of(&target), Some(fstype), self.flags, data)
            .at(|| format!("mount {source:?} as {fstype:?} with {data:?}", data = self.data))?;
        done.note(Step::Mount(path.to_path_buf()));
        Ok(())
    }
}

/// Shows what is at `source` at `path` too. The mount point is made: a file for whatever is not a directory.
pub(super) fn bind(
    source: &Path,
    path: &Path,
    recursive: bool,
    flags: MsFlags,
    done: &mut Done,
) -> Result<(), Fault> {
    let what = || format!("bind {source:?}");
    let none = None::<&str>;
    let source = open(source).at(what)?;
    let kind = SFlag::from_bits_truncate(fstat(&source).at(what)?.st_mode) & SFlag::S_IFMT;
    let is_directory = kind == SFlag::S_IFDIR;
    let target = if is_directory { directory(path, done)? } else { file(path, done)? };
    let recursion = if recursive { MsFlags::MS_REC } else { MsFlags::empty() };
    mount(Some(&path_of(&source)), &path_of(&target), none, MsFlags::MS_BIND | recursion, none).at(what)?;
    done.note(Step::Mount(path.to_path_buf()));
    if !flags.is_empty() {
        // The mount lies on what was opened before, so it has to be opened again.
        let mounted = open(path).at(what)?;
        let flags = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
        mount(none, &path_of(&mounted), none, flags, none).at(|| format!("set the flags of {path:?}"))?;
    }
    Ok(())
}
