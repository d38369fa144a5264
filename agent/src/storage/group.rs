//! `fs_group`: the files of a volume, given to a group.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::{ffi::CStr, fs};

use agent_api::agent::Storage;
use agent_api::types::FSGroupChangePolicy;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{Gid, fchownat};

use super::{At as _, Fault, point};

/// Read and write for the group; read alone in a volume that is read-only.
const FILE: u32 = 0o660;
const FILE_READ_ONLY: u32 = 0o440;
/// A directory can be entered too, and what is made in it belongs to the group.
const DIRECTORY: u32 = 0o2110;

/// How deep a volume may be. Beyond that it is not one that somebody made in earnest, and each level holds a descriptor.
const DEPTH: u32 = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    gid: u32,
    /// Whether a volume whose top fits already is taken to fit as a whole.
    trust_root: bool,
    read_only: bool,
}

impl Group {
    pub(super) fn of(storage: &Storage) -> Option<Self> {
        let asked = storage.fs_group.as_ref()?;
        Some(Self {
            gid: asked.group_id,
            trust_root: asked.group_change_policy.enum_value() == Ok(FSGroupChangePolicy::OnRootMismatch),
            read_only: storage.options.iter().any(|option| option == "ro"),
        })
    }

    /// Changes everything below `top`, and `top` itself last: a volume whose top fits has been done to its end.
    pub(super) fn apply(self, top: &Path) -> Result<(), Fault> {
        let what = || format!("give {top:?} to the group {}", self.gid);
        let handle = point::open(top).at(what)?;
        let stat = fstat(&handle).at(what)?;
        if self.trust_root && self.fits(&stat) {
            return Ok(());
        }
        match self.change(&handle, &stat, DEPTH) {
            // Nothing can be changed there, and nobody who may only read needs it to be.
            Err(Errno::EROFS) if self.read_only => Ok(()),
            changed => changed.map_err(io::Error::from).at(what),
        }
    }

    fn fits(self, stat: &FileStat) -> bool {
        let wanted = self.bits(stat);
        stat.st_gid == self.gid && stat.st_mode & wanted == wanted
    }

    fn bits(self, stat: &FileStat) -> u32 {
        let file = if self.read_only { FILE_READ_ONLY } else { FILE };
        if kind(stat) == SFlag::S_IFDIR { file | DIRECTORY } else { file }
    }

    /// By descriptors all the way: a container that has the volume already may swap a directory for a link meanwhile.
    fn change(self, handle: &OwnedFd, stat: &FileStat, depth: u32) -> nix::Result<()> {
        match kind(stat) {
            SFlag::S_IFLNK => return Ok(()),
            SFlag::S_IFDIR if depth == 0 => return Err(Errno::ELOOP),
            SFlag::S_IFDIR => {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let mut directory = Dir::openat(handle, ".", flags, Mode::empty())?;
                let names: Vec<_> = directory
                    .iter()
                    .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
                    .filter(|name| name.as_ref().map_or(true, |name| !is_dots(name)))
                    .collect::<nix::Result<_>>()?;
                drop(directory);
                for name in names {
                    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                    let child = match openat(handle, name.as_c_str(), flags, Mode::empty()) {
                        // It was removed since the directory was read.
                        Err(Errno::ENOENT) => continue,
                        other => other?,
                    };
                    let stat = fstat(&child)?;
                    self.change(&child, &stat, depth - 1)?;
                }
            }
            _ => {}
        }
        fchownat(handle.as_fd(), c"", None, Some(Gid::from_raw(self.gid)), AtFlags::AT_EMPTY_PATH)?;
        let mode = fs::Permissions::from_mode(stat.st_mode & 0o7777 | self.bits(stat));
        let changed = fs::set_permissions(point::path_of(handle), mode);
        changed.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    #[test]
    fn files_directories_and_their_top_change_and_links_do_not() {
        let top = std::env::temp_dir().join(format!("husk-group-{}", std::process::id()));
        let outside = std::env::temp_dir().join(format!("husk-group-outside-{}", std::process::id()));
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(top.join("a/b/file"), "").unwrap();
        fs::set_permissions(top.join("a/b/file"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&outside, "").unwrap();
        symlink(&outside, top.join("link")).unwrap();
        let before = fs::metadata(&outside).unwrap();

        let group = Group { gid: 4711, trust_root: true, read_only: false };
        group.apply(&top).unwrap();
        let seen =
            |path: &str| fs::metadata(top.join(path)).map(|is| (is.gid(), is.mode() & 0o7777)).unwrap();
        assert_eq!(seen("a/b/file"), (4711, 0o660));
        assert_eq!(seen("a/b"), (4711, 0o2775));
        assert_eq!(seen(""), (4711, 0o2775));
        let after = fs::metadata(&outside).unwrap();
        assert_eq!((after.gid(), after.mode()), (before.gid(), before.mode()));

        fs::set_permissions(top.join("a/b/file"), fs::Permissions::from_mode(0o600)).unwrap();
        group.apply(&top).unwrap();
        assert_eq!(seen("a/b/file").1, 0o600, "the top fits, so the rest is not looked at");
        Group { trust_root: false, read_only: true, ..group }.apply(&top).unwrap();
        assert_eq!(seen("a/b/file").1, 0o640, "to be read, not to be written");
        fs::remove_dir_all(top).unwrap();
        fs::remove_file(outside).unwrap();
    }
}
