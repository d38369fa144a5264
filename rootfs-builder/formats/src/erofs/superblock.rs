//! The first block: a gap for boot loaders, the superblock, and behind it the first inodes.

use super::{BLOCK, Compression};
use crate::Uuid;

/// Where the superblock stands in the image.
const START: usize = 1024;

/// Where it ends, and inodes may begin.
pub(super) const END: usize = START + 128;

const MAGIC: u32 = 0xe0f5_e1e2;

/// `SB_CHKSUM`: there is a checksum. `MTIME`: the one time that inodes have is that of modification.
const FEATURES: u32 = 0x1 | 0x2;

/// `ZERO_PADDING`: compressed data stands at the end of its block, behind zeros.
const ZERO_PADDING: u32 = 0x1;

/// How far back a match of LZ4 may reach.
const LZ4_DISTANCE: u16 = u16::MAX;

/// Where in the superblock its checksum and its UUID are: what depends on all the rest.
const CHECKSUM: usize = START + 4;
const UUID: usize = START + 48;

/// What the superblock says.
#[derive(Debug)]
pub(super) struct Superblock {
    pub(super) time: u64,
    pub(super) root: u16,
    pub(super) inodes: u64,
    pub(super) blocks: u32,
    pub(super) shared_xattrs: u32,
    pub(super) compression: Compression,
}

impl Superblock {
    /// Puts it into the first block of an image; UUID and checksum are zero yet.
    pub(super) fn put(&self, block: &mut [u8; BLOCK]) {
        let mut put =
            |at: usize, bytes: &[u8]| block[START + at..START + at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC.to_le_bytes());
        put(8, &FEATURES.to_le_bytes());
        put(12, &[BLOCK.ilog2() as u8]);
        put(14, &self.root.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(24, &self.time.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        // At 40 the block that inodes are counted from: the first.
        put(44, &self.shared_xattrs.to_le_bytes());
        if self.compression == Compression::Lz4 {
            put(80, &ZERO_PADDING.to_le_bytes());
            put(84, &LZ4_DISTANCE.to_le_bytes());
        }
    }
}

/// Puts the image's name into its first block, and the checksum that goes over it.
pub(super) fn seal(block: &mut [u8; BLOCK], uuid: Uuid) {
    block[UUID..UUID + 16].copy_from_slice(&uuid.0);
    let checksum = crc32c(&block[START..]);
    block[CHECKSUM..CHECKSUM + 4].copy_from_slice(&checksum.to_le_bytes());
}

/// CRC-32C as the kernel's function of that name computes it from `~0`: with no inversion at its end.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of CRC-32C, which inverts at the end.
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }
}
