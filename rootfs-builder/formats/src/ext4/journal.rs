//! An empty journal (kernel: `filesystems/ext4/journal.rst`): a superblock of its own, and blocks with
//! nothing in them.

use std::path::Path;

use super::BLOCK;
use super::body::{Body, File};
use super::xattrs::Xattrs;

/// The number of its inode.
pub(super) const NUMBER: u32 = 8;

/// The fewest that the kernel takes, 4 MiB.
const BLOCKS: u32 = 1024;

const MAGIC: u32 = 0xc03b_3998;
const SUPERBLOCK_V2: u32 = 4;

/// The journal as a file.
pub(super) fn file<'a>() -> File<'a> {
    let mut bytes = vec![0; BLOCKS as usize * BLOCK];
    // All numbers are big endian: header, block size, length, first block of the log, first transaction. That
    // the log starts at 0 means that it is empty.
    let sequence = 1;
    for (at, number) in [
        (0x00, MAGIC),
        (0x04, SUPERBLOCK_V2),
        (0x0c, BLOCK as u32),
        (0x10, BLOCKS),
        (0x14, 1),
        (0x18, sequence),
    ] {
        bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
    }
    // How many file systems use it.
    bytes[0x40..0x44].copy_from_slice(&1u32.to_be_bytes());
    let size = bytes.len() as u64;
    File {
        number: NUMBER,
        path: Path::new("(journal)"),
        mode: 0o100_600,
        uid: 0,
        gid: 0,
        links: 1,
        body: Body::Blocks { bytes, size },
        xattrs: Xattrs::None,
    }
}
