//! Where a file's blocks are (kernel: `filesystems/ext4/ifork.rst`, "Extent Tree"). Each file here is in one
//! piece, but an extent has 15 bits for its length, so a file of more than 128 MiB has several. Four fit into
//! the inode; of more there are leaves, and the inode has an index of those.

use super::checksum::{crc32c, inode_seed};
use super::{BLOCK, record};

/// How many leaves an inode can have an index of.
pub(super) const LEAVES_MAX: u64 = IN_INODE;

/// The longest extent of blocks that have been written.
const LENGTH_MAX: u64 = 32_768;

/// Entries in an inode.
const IN_INODE: u64 = 4;

/// Entries in a block, of 12 bytes each, between a header of 12 and a checksum of 4.
const IN_LEAF: u64 = 340;

const MAGIC: u16 = 0xf30a;

/// How many blocks beside its own a file of `blocks` needs.
pub(super) fn leaf_count(blocks: u64) -> u64 {
    let extents = blocks.div_ceil(LENGTH_MAX);
    if extents <= IN_INODE { 0 } else { extents.div_ceil(IN_LEAF) }
}

/// What is in the inode of a file of `blocks` from `first` on, whose leaves, if it needs any, start at
/// `leaf`.
pub(super) fn root(blocks: u64, first: u32, leaf: u32) -> [u8; record::INLINE] {
    let mut bytes = Vec::with_capacity(record::INLINE);
    let leaves = leaf_count(blocks);
    if leaves == 0 {
        bytes.extend(header(blocks.div_ceil(LENGTH_MAX), IN_INODE, 0));
        bytes.extend(extents(blocks, first).flatten());
    } else {
        bytes.extend(header(leaves, IN_INODE, 1));
        for index in 0..leaves as u32 {
            bytes.extend((index * (IN_LEAF * LENGTH_MAX) as u32).to_le_bytes());
            bytes.extend((leaf + index).to_le_bytes());
            bytes.extend([0; 4]); // the upper bits of the block's number
        }
    }
    bytes.resize(record::INLINE, 0);
    bytes.try_into().expect("a header and at most four entries")
}

/// The leaves of that file, whose inode is `number`: whole blocks.
pub(super) fn leaves(number: u32, blocks: u64, first: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    if leaf_count(blocks) == 0 {
        return bytes;
    }
    let extents: Vec<_> = extents(blocks, first).collect();
    for leaf in extents.chunks(IN_LEAF as usize) {
        let start = bytes.len();
        bytes.extend(header(leaf.len() as u64, IN_LEAF, 0));
        bytes.extend(leaf.as_flattened());
        bytes.resize(start + BLOCK - 4, 0);
        bytes.extend(crc32c(inode_seed(number), &bytes[start..]).to_le_bytes());
    }
    bytes
}

fn header(entries: u64, room: u64, depth: u16) -> [u8; 12] {
    let mut bytes = [0; 12];
    for (index, number) in [MAGIC, entries as u16, room as u16, depth].into_iter().enumerate() {
        bytes[2 * index..][..2].copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

fn extents(blocks: u64, first: u32) -> impl Iterator<Item = [u8; 12]> {
    (0..blocks).step_by(LENGTH_MAX as usize).map(move |at| {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&(at as u32).to_le_bytes());
        bytes[4..6].copy_from_slice(&((blocks - at).min(LENGTH_MAX) as u16).to_le_bytes());
        // At 6 the upper bits of the block's number.
        bytes[8..].copy_from_slice(&(first + at as u32).to_le_bytes());
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_for_more_than_512_mib() {
        let counts = [0, 1, 4 * 32_768, 4 * 32_768 + 1, 340 * 32_768, 340 * 32_768 + 1].map(leaf_count);
        assert_eq!(counts, [0, 0, 0, 1, 1, 2]);
        assert_eq!(leaf_count(4 * 340 * 32_768), LEAVES_MAX, "170 GiB");
        assert!(leaf_count(4 * 340 * 32_768 + 1) > LEAVES_MAX);
    }

    #[test]
    fn an_extent_is_at_most_32768_blocks() {
        let bytes = root(32_769, 1000, 0);
        assert_eq!(bytes[..12], [0x0a, 0xf3, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[12..24], [0, 0, 0, 0, 0, 0x80, 0, 0, 0xe8, 3, 0, 0]);
        assert_eq!(bytes[24..36], [0, 0x80, 0, 0, 1, 0, 0, 0, 0xe8, 0x83, 0, 0]);
        assert_eq!(bytes[36..], [0; 24]);
    }

    #[test]
    fn an_index_names_the_first_block_of_each_leaf() {
        let blocks = 341 * 32_768;
        let bytes = root(blocks, 1000, 77);
        assert_eq!(bytes[..12], [0x0a, 0xf3, 2, 0, 4, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[12..24], [0, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[24..36], [0, 0, 0xaa, 0, 78, 0, 0, 0, 0, 0, 0, 0]);
        let leaves = leaves(12, blocks, 1000);
        assert_eq!(leaves.len(), 2 * BLOCK);
        assert_eq!(leaves[BLOCK..BLOCK + 16], [0x0a, 0xf3, 1, 0, 84, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0xaa, 0]);
    }
}
