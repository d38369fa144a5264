//! A directory that a layer is unpacked into. Every path is resolved by the kernel with this directory as its root
//! (openat2, RESOLVE_IN_ROOT): a symbolic link in the tree, wherever it points, leads to a place in the tree.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{
    Mode, SFlag, UtimensatFlags, fchmod, fstatat, futimens, makedev, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, geteuid, linkat, symlinkat, unlinkat};

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink(PathBuf),
    /// To another path of the tree.
    Hardlink(PathBuf),
    Char((u64, u64)),
    Block((u64, u64)),
    Fifo,
}

/// What an entry has besides content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
}

/// The tree.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// Only root can give files away and make devices; others own all of the tree themselves.
    privileged: bool,
}

const NEW_DIR: Mode = Mode::from_bits_truncate(0o755);

impl Tree {
    pub(super) fn open(dir: &Path) -> io::Result<Tree> {
        let root = open(dir, OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Tree { root, privileged: geteuid().is_root() })
    }

    /// Makes an entry, replacing what is there; a directory is kept and changed.
    pub(super) fn add(
        &self,
        path: &Path,
        kind: &Kind,
        meta: &Meta,
        content: &mut impl Read,
    ) -> io::Result<()> {
        let Some((parent, name)) = self.parent(path, true)? else {
            return match kind {
                Kind::Directory => self.dress_directory(&self.open_dir(Path::new("."))?, meta),
                _ => Err(io::Error::other("the root can only be a directory")),
            };
        };
        let name = name.as_os_str();
        match kind {
            Kind::Directory => {
                if !is_directory(&parent, name)? {
                    remove(&parent, name)?;
                    mkdirat(&parent, name, NEW_DIR)?;
                }
                let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                self.dress_directory(&openat(&parent, name, flags, Mode::empty())?, meta)
            }
            Kind::File => {
                remove(&parent, name)?;
                let flags =
                    OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let mut file = File::from(openat(&parent, name, flags, Mode::from_bits_truncate(0o600))?);
                io::copy(content, &mut file)?;
                self.own(&file, meta)?;
                fchmod(&file, Mode::from_bits_truncate(meta.mode))?;
                Ok(futimens(&file, &TimeSpec::UTIME_OMIT, &time(meta.mtime))?)
            }
            Kind::Symlink(target) => {
                remove(&parent, name)?;
                symlinkat(target.as_path(), &parent, name)?;
                self.own_at(&parent, name, meta)?;
                Ok(utimensat(
                    &parent,
                    name,
                    &TimeSpec::UTIME_OMIT,
                    &time(meta.mtime),
                    UtimensatFlags::NoFollowSymlink,
                )?)
            }
            Kind::Hardlink(target) => {
                let (from, source) =
                    self.parent(target, false)?.ok_or_else(|| io::Error::other("a link to the root"))?;
                remove(&parent, name)?;
                Ok(linkat(&from, source.as_os_str(), &parent, name, AtFlags::empty())?)
            }
            Kind::Char(number) => self.node(&parent, name, SFlag::S_IFCHR, *number, meta),
            Kind::Block(number) => self.node(&parent, name, SFlag::S_IFBLK, *number, meta),
            Kind::Fifo => self.node(&parent, name, SFlag::S_IFIFO, (0, 0), meta),
        }
    }

    /// Removes a path and all below it. One that is not there is no error.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        match self.parent(path, false) {
            Ok(Some((parent, name))) => remove(&parent, &name),
            Ok(None) => Err(io::Error::other("the root cannot be hidden")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Removes all that is in a directory.
    pub(super) fn empty(&self, path: &Path) -> io::Result<()> {
        let normal = normalise(path)?;
        let path = if normal.as_os_str().is_empty() { Path::new(".") } else { &normal };
        match self.open_dir(path) {
            Ok(dir) => empty(dir),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Sets a directory's time of change.
    pub(super) fn set_time(&self, path: &Path, mtime: i64) -> io::Result<()> {
        let normal = normalise(path)?;
        let path = if normal.as_os_str().is_empty() { Path::new(".") } else { &normal };
        match self.open_dir(path) {
            Ok(dir) => Ok(futimens(&dir, &TimeSpec::UTIME_OMIT, &time(mtime))?),
            // A later entry of the same layer replaced it.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// The directory an entry lies in, and its name there; `None` for the root itself.
    fn parent(&self, path: &Path, create: bool) -> io::Result<Option<(OwnedFd, OsString)>> {
        let path = normalise(path)?;
        let Some(name) = path.file_name() else { return Ok(None) };
        let name = name.to_owned();
        let parent = path.parent().unwrap_or(Path::new(""));
        if parent.as_os_str().is_empty() {
            return Ok(Some((self.root.try_clone()?, name)));
        }
        let dir = match self.resolve(parent) {
            Err(Errno::ENOENT) if create => self.make_parents(parent)?,
            found => found?,
        };
        Ok(Some((dir, name)))
    }

    /// Directories a layer leaves out, as other tools make them: 0755, root's.
    fn make_parents(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut at = PathBuf::new();
        let mut dir = self.root.try_clone()?;
        for component in path.components() {
            at.push(component);
            dir = match self.resolve(&at) {
                Err(Errno::ENOENT) => {
                    mkdirat(&dir, component.as_os_str(), NEW_DIR)?;
                    self.resolve(&at)?
                }
                found => found?,
            };
        }
        Ok(dir)
    }

    fn resolve(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.root, path, how)
    }

    fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        Ok(openat2(&self.root, path, how)?)
    }

    fn dress_directory(&self, dir: &OwnedFd, meta: &Meta) -> io::Result<()> {
        self.own(dir, meta)?;
        Ok(fchmod(dir, Mode::from_bits_truncate(meta.mode))?)
    }

    /// Devices need root; without it they are left out, since a guest has its own /dev.
    fn node(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        kind: SFlag,
        number: (u64, u64),
        meta: &Meta,
    ) -> io::Result<()> {
        if !self.privileged && kind != SFlag::S_IFIFO {
            return Ok(());
        }
        remove(parent, name)?;
        mknodat(parent, name, kind, Mode::from_bits_truncate(0o600), makedev(number.0, number.1))?;
        self.own_at(parent, name, meta)?;
        // Not through a descriptor: opening a device or a FIFO has effects.
        let mode = Mode::from_bits_truncate(meta.mode);
        nix::sys::stat::fchmodat(parent, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
        Ok(())
    }

    fn own(&self, fd: &impl AsFd, meta: &Meta) -> io::Result<()> {
        if self.privileged {
            fchown(fd, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
        }
        Ok(())
    }

    fn own_at(&self, parent: &OwnedFd, name: &OsStr, meta: &Meta) -> io::Result<()> {
        if self.privileged {
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }
}

/// `path` without its root and without dots. `..` is refused: no tool writes it, and it means no good.
fn normalise(path: &Path) -> io::Result<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) if name.as_bytes().contains(&0) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            Component::Normal(name) => normal.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other("a path with .. in it"));
            }
        }
    }
    Ok(normal)
}

fn time(seconds: i64) -> TimeSpec {
    TimeSpec::new(seconds, 0)
}

fn is_directory(parent: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR),
        Err(Errno::ENOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Removes `name` and all below it, following nothing.
fn remove(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    if is_directory(parent, name)? {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        empty(openat(parent, name, flags, Mode::empty())?)?;
        return Ok(unlinkat(parent, name, UnlinkatFlags::RemoveDir)?);
    }
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn empty(dir: OwnedFd) -> io::Result<()> {
    let handle = dir.try_clone()?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(dir)?.iter() {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.iter().try_for_each(|name| remove(&handle, name))
}
