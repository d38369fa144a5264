//! A tree's files with the numbers and the blocks that they get, but not yet their places.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use guest_tree::{Content, Kind};

use super::xattrs::{self, Xattrs};
use super::{BLOCK, FORMAT, directory, extents, journal, record};
use crate::error::{Error, unsupported};
use crate::inodes::Inode;

/// The number of the root directory.
const ROOT: u32 = 2;

/// The first number that is not reserved.
pub(super) const FIRST: u32 = 11;

/// With more names than this a directory says 1, which stands for "many" (`dir_nlink`).
const LINKS_MAX: u32 = 65_000;

/// One file.
#[derive(Debug)]
pub(super) struct File<'a> {
    /// Its inode's.
    pub(super) number: u32,
    /// In the tree.
    pub(super) path: &'a Path,
    /// Type and permissions.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u16,
    pub(super) body: Body<'a>,
    pub(super) xattrs: Xattrs,
}

/// What is in a file.
#[derive(Debug)]
pub(super) enum Body<'a> {
    /// A device's number or a short link's target: it is in the inode, and has no block.
    Inline { bytes: [u8; record::INLINE], size: u64 },
    /// What was made here: a directory, a long link's target, the journal. Whole blocks.
    Blocks { bytes: Vec<u8>, size: u64 },
    /// A regular file's bytes.
    Content(&'a Content),
}

impl Body<'_> {
    /// How long the file is.
    pub(super) fn size(&self) -> u64 {
        match self {
            Body::Inline { size, .. } | Body::Blocks { size, .. } => *size,
            Body::Content(content) => content.len(),
        }
    }

    /// How many blocks that takes.
    pub(super) fn blocks(&self) -> u64 {
        match self {
            Body::Inline { .. } => 0,
            Body::Blocks { bytes, .. } => (bytes.len() / BLOCK) as u64,
            Body::Content(content) => content.len().div_ceil(BLOCK as u64),
        }
    }
}

/// All files in the order of their numbers: the root, the journal if there is one, the others in the tree's
/// order.
pub(super) fn files<'a>(inodes: &'a [Inode<'a>], journal: bool) -> Result<Vec<File<'a>>, Error> {
    if u32::try_from(inodes.len()).map_or(true, |count| count > u32::MAX - FIRST) {
        let what = format!("{} files, and inodes are numbered with 32 bits", inodes.len());
        return Err(Error::Limit { format: FORMAT, what });
    }
    let mut files = Vec::with_capacity(inodes.len() + 1);
    for index in 0..inodes.len() {
        files.push(file(inodes, index)?);
        if index == 0 && journal {
            files.push(journal::file());
        }
    }
    Ok(files)
}

fn file<'a>(inodes: &'a [Inode<'a>], index: usize) -> Result<File<'a>, Error> {
    let inode = &inodes[index];
    let body = body(inodes, index)?;
    if extents::leaf_count(body.blocks()) > extents::LEAVES_MAX {
        return Err(unsupported(FORMAT, inode.path, "is larger than 170 GiB"));
    }
    let links = inode.links(inodes);
    Ok(File {
        number: number(index),
        path: inode.path,
        mode: inode.mode(),
        uid: inode.attributes.uid,
        gid: inode.attributes.gid,
        links: if links > LINKS_MAX { 1 } else { links as u16 },
        body,
        xattrs: xattrs::pack(inode.path, &inode.attributes.xattrs)?,
    })
}

fn body<'a>(inodes: &'a [Inode<'a>], index: usize) -> Result<Body<'a>, Error> {
    let inode = &inodes[index];
    Ok(match inode.kind {
        Kind::File(content) => Body::Content(content),
        Kind::Directory => {
            let entries = inode.entries.iter().map(|(name, index)| directory::Entry {
                name,
                number: number(*index),
                kind: inodes[*index].kind,
            });
            let bytes = directory::blocks(number(index), number(inode.parent), entries);
            Body::Blocks { size: bytes.len() as u64, bytes }
        }
        Kind::Symlink(target) => {
            let target = target.as_os_str().as_bytes();
            // A target in the inode ends with a zero there.
            if target.len() < record::INLINE {
                inline(target, target.len() as u64)
            } else {
                let mut bytes = target.to_vec();
                bytes.resize(BLOCK, 0);
                Body::Blocks { bytes, size: target.len() as u64 }
            }
        }
        Kind::CharDevice { .. } | Kind::Fifo => match inode.device_number(FORMAT)? {
            // The first word is for numbers of 16 bits, the second for all others.
            Some(number) if number <= 0xffff => inline(&number.to_le_bytes(), 0),
            Some(number) => inline(&(u64::from(number) << 32).to_le_bytes(), 0),
            None => inline(&[], 0),
        },
    })
}

fn inline<'a>(start: &[u8], size: u64) -> Body<'a> {
    let mut bytes = [0; record::INLINE];
    bytes[..start.len()].copy_from_slice(start);
    Body::Inline { bytes, size }
}

/// The inode's number of a place in the list: the root's is given, the others follow the reserved ones.
fn number(index: usize) -> u32 {
    if index == 0 { ROOT } else { FIRST - 1 + index as u32 }
}
