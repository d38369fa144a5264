//! The first 96 bytes: where all tables are.

use super::compressor::Compression;

/// How long it is.
pub(super) const SIZE: usize = 96;

/// A table that is not there.
pub(super) const NONE: u64 = u64::MAX;

const MAGIC: u32 = 0x7371_7368;

/// The ends of files are in fragments; equal files were looked for; inodes can be found by number.
const FLAGS: u16 = 0x20 | 0x40 | 0x80;

#[derive(Debug)]
pub(super) struct Superblock {
    pub(super) inodes: u32,
    pub(super) time: u32,
    pub(super) block_size: u32,
    pub(super) fragments: u32,
    pub(super) compression: Compression,
    pub(super) ids: u16,
    /// Of the root's inode.
    pub(super) root: u64,
    pub(super) bytes_used: u64,
    pub(super) id_table: u64,
    pub(super) xattr_table: u64,
    pub(super) inode_table: u64,
    pub(super) directory_table: u64,
    pub(super) fragment_table: u64,
    pub(super) export_table: u64,
}

impl Superblock {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SIZE);
        for word in [MAGIC, self.inodes, self.time, self.block_size, self.fragments] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let compression = match self.compression {
            Compression::Xz => 4,
            Compression::Zstd => 6,
        };
        // The last two are the format's version, 4.0.
        for half in [compression, self.block_size.ilog2() as u16, FLAGS, self.ids, 4, 0] {
            bytes.extend_from_slice(&half.to_le_bytes());
        }
        for long in [
            self.root,
            self.bytes_used,
            self.id_table,
            self.xattr_table,
            self.inode_table,
            self.directory_table,
            self.fragment_table,
            self.export_table,
        ] {
            bytes.extend_from_slice(&long.to_le_bytes());
        }
        bytes
    }
}
