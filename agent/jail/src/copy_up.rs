//! Filling a new tmpfs with what it covers (`tmpcopyup`), so that an image's `/var` stays an image's `/var`.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};

/// Deeper trees are not what this is for.
const MAX_DEPTH: usize = 64;

/// Copies files, directories and symbolic links, with owner and mode; other kinds of files are left out.
pub(crate) fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    directory(from, to, 0)
}

fn directory(from: &OwnedFd, to: &OwnedFd, depth: usize) -> Result<(), Errno> {
    if depth > MAX_DEPTH {
        return Err(Errno::ELOOP);
    }
    let mut entries =
        Dir::openat(from, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    for entry in entries.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let known = match entry.file_type() {
            Some(Type::File) => SFlag::S_IFREG,
            Some(Type::Directory) => SFlag::S_IFDIR,
            Some(Type::Symlink) => SFlag::S_IFLNK,
            _ => SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT,
        };
        match known {
            SFlag::S_IFDIR => {
                mkdirat(to, name, Mode::from_bits_truncate(0o700))?;
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let inner = openat(to, name, flags, Mode::empty())?;
                directory(&openat(from, name, flags, Mode::empty())?, &inner, depth + 1)?;
                own(&inner, &stat)?;
            }
            SFlag::S_IFREG => file(from, to, name, &stat)?,
            SFlag::S_IFLNK => {
                symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?;
                let (uid, gid) = owner(&stat);
                fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn file(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &FileStat) -> Result<(), Errno> {
    let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let mut source = File::from(openat(from, name, read, Mode::empty())?);
    let write = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mut target = File::from(openat(to, name, write, Mode::from_bits_truncate(0o600))?);
    std::io::copy(&mut source, &mut target)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    own(&target, stat)
}

fn own(fd: impl AsFd, stat: &FileStat) -> Result<(), Errno> {
    let (uid, gid) = owner(stat);
    fchown(fd.as_fd(), Some(uid), Some(gid))?;
    fchmod(fd.as_fd(), Mode::from_bits_truncate(stat.st_mode))
}

fn owner(stat: &FileStat) -> (Uid, Gid) {
    (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))
}
