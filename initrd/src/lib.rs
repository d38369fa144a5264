//! Initial ramdisks, bit for bit the same from the same content.
//!
//! An [`Initrd`] is a list of entries in memory. [`Initrd::to_cpio`] writes them in the kernel's "newc" form: sorted by
//! path, numbered from one, owned by root, at time zero. [`compress`] packs that with zstd. Nothing of the machine gets
//! in, because nothing is read from it: the caller hands over contents, not paths of files.

mod newc;

use std::collections::BTreeMap;

/// The levels above want windows of 32 MiB and more, and gain nothing on an archive this small.
const ZSTD_LEVEL: i32 = 19;

/// The kernel refuses longer names.
const PATH_MAX: usize = 4096;

/// A root file system under construction.
#[derive(Debug, Clone, Default)]
pub struct Initrd {
    /// By path without a leading slash. Sorted by bytes, so a directory comes before what is in it.
    entries: BTreeMap<String, Entry>,
}

/// What stands at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File(Vec<u8>),
    /// `implied`: made because something is in it; a caller may still say what it should be like.
    Directory {
        implied: bool,
    },
    Symlink(String),
    CharDevice {
        major: u32,
        minor: u32,
    },
}

/// Why something cannot be put into a ramdisk.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Not a path from the root, in its one plain form.
    #[error("initrd: {path:?} is not a plain absolute path")]
    Path {
        /// As it was given.
        path: String,
    },
    /// Longer than the kernel takes.
    #[error("initrd: {path:.40}... has {length} bytes, the kernel takes {max}", max = PATH_MAX - 1)]
    TooLong {
        /// As it was given.
        path: String,
        /// Its length.
        length: usize,
    },
    /// The path is taken.
    #[error("initrd: /{path} is there already")]
    Duplicate {
        /// Without its leading slash.
        path: String,
    },
    /// Something that is not a directory stands above the path.
    #[error("initrd: /{path} is not a directory, so nothing can be in it")]
    NotADirectory {
        /// Without its leading slash.
        path: String,
    },
    /// More than newc's 32-bit fields hold.
    #[error("initrd: /{path} is larger than 4 GiB")]
    TooLarge {
        /// Without its leading slash.
        path: String,
    },
    /// The compressor gave up.
    #[error("initrd: zstd: {0}")]
    Compress(String),
}

impl Initrd {
    /// An empty root.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a regular file.
    pub fn file(self, path: &str, mode: u32, content: Vec<u8>) -> Result<Self, Error> {
        self.add(path, Entry { kind: Kind::File(content), mode })
    }

    /// Adds a directory. Those above an entry need not be added: they are made with mode 0755.
    pub fn directory(self, path: &str, mode: u32) -> Result<Self, Error> {
        self.add(path, Entry { kind: Kind::Directory { implied: false }, mode })
    }

    /// Adds a symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Result<Self, Error> {
        self.add(path, Entry { kind: Kind::Symlink(target.to_owned()), mode: 0o777 })
    }

    /// Adds a character device.
    pub fn char_device(self, path: &str, mode: u32, major: u32, minor: u32) -> Result<Self, Error> {
        self.add(path, Entry { kind: Kind::CharDevice { major, minor }, mode })
    }

    /// The archive, uncompressed.
    pub fn to_cpio(&self) -> Result<Vec<u8>, Error> {
        newc::write(&self.entries)
    }

    fn add(mut self, path: &str, entry: Entry) -> Result<Self, Error> {
        let name = plain(path)?;
        for (slash, _) in name.match_indices('/') {
            let above = &name[..slash];
            let implied = Entry { kind: Kind::Directory { implied: true }, mode: 0o755 };
            let there = self.entries.entry(above.to_owned()).or_insert(implied);
            if !matches!(there.kind, Kind::Directory { .. }) {
                return Err(Error::NotADirectory { path: above.to_owned() });
            }
        }
        let is_directory = matches!(entry.kind, Kind::Directory { .. });
        match self.entries.get(name).map(|there| &there.kind) {
            None => {}
            Some(Kind::Directory { implied: true }) if is_directory => {}
            Some(_) => return Err(Error::Duplicate { path: name.to_owned() }),
        }
        self.entries.insert(name.to_owned(), entry);
        Ok(self)
    }
}

/// Packs an archive. One thread, one level, no time stamp: the same bytes from the same bytes.
pub fn compress(archive: &[u8]) -> Result<Vec<u8>, Error> {
    zstd::bulk::compress(archive, ZSTD_LEVEL).map_err(|e| Error::Compress(e.to_string()))
}

/// The path without its leading slash, if it is the only way to write it.
fn plain(path: &str) -> Result<&str, Error> {
    if path.len() >= PATH_MAX {
        return Err(Error::TooLong { path: path.to_owned(), length: path.len() });
    }
    let wrong = || Error::Path { path: path.to_owned() };
    let name = path.strip_prefix('/').ok_or_else(wrong)?;
    let odd = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
    if name.split('/').any(odd) { Err(wrong()) } else { Ok(name) }
}

#[cfg(test)]
mod tests;
