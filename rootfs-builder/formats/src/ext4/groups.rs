//! Descriptors and bitmaps of the groups (kernel: `filesystems/ext4/group_descr.rst`, `bitmaps.rst`). What is
//! taken, of blocks as of inodes, is always the first so many.

use super::body::File;
use super::checksum::{SEED, crc32c};
use super::layout::{BLOCKS_PER_GROUP, DESCRIPTOR, Layout};
use super::{BLOCK, record};

/// The inode table has been zeroed: the kernel need not do it in the background.
const INODE_ZEROED: u16 = 4;

/// Bytes of a block bitmap that are in the checksum: all.
const BLOCK_BITS: usize = BLOCKS_PER_GROUP as usize / 8;

/// All descriptors, in whole blocks.
pub(super) fn descriptors(layout: &Layout, files: &[File<'_>]) -> Vec<u8> {
    let mut directories = vec![0; layout.groups as usize];
    for file in files.iter().filter(|file| is_directory(file)) {
        directories[((file.number - 1) / layout.inodes_per_group) as usize] += 1;
    }
    let mut bytes: Vec<u8> =
        (0..).zip(directories).flat_map(|(group, count)| descriptor(layout, group, count)).collect();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// A block: one bit for each block of the group, ones for what is taken and for what is behind the end.
pub(super) fn block_bitmap(layout: &Layout, group: u32) -> Vec<u8> {
    let mut bitmap = vec![0; BLOCK];
    set(&mut bitmap, 0..layout.used_blocks_of(group));
    set(&mut bitmap, layout.blocks_of(group)..BLOCK as u32 * 8);
    bitmap
}

/// A block: the same for inodes.
pub(super) fn inode_bitmap(layout: &Layout, group: u32) -> Vec<u8> {
    let mut bitmap = vec![0; BLOCK];
    set(&mut bitmap, 0..layout.used_inodes_of(group));
    set(&mut bitmap, layout.inodes_per_group..BLOCK as u32 * 8);
    bitmap
}

fn descriptor(layout: &Layout, group: u32, directories: u32) -> [u8; DESCRIPTOR] {
    let mut bytes = [0; DESCRIPTOR];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0x00, &layout.block_bitmap(group).to_le_bytes());
    put(0x04, &layout.inode_bitmap(group).to_le_bytes());
    put(0x08, &layout.inode_table(group).to_le_bytes());
    // These counts are at most 32,768, and the checksums have two halves.
    let free_inodes = layout.inodes_per_group - layout.used_inodes_of(group);
    let block_bitmap = crc32c(SEED, &block_bitmap(layout, group)[..BLOCK_BITS]);
    let inode_bitmap = crc32c(SEED, &inode_bitmap(layout, group)[..layout.inodes_per_group as usize / 8]);
    put(0x0c, &((layout.blocks_of(group) - layout.used_blocks_of(group)) as u16).to_le_bytes());
    put(0x0e, &(free_inodes as u16).to_le_bytes());
    put(0x10, &(directories as u16).to_le_bytes());
    put(0x12, &INODE_ZEROED.to_le_bytes());
    put(0x18, &(block_bitmap as u16).to_le_bytes());
    put(0x1a, &(inode_bitmap as u16).to_le_bytes());
    put(0x1c, &(free_inodes as u16).to_le_bytes());
    put(0x38, &((block_bitmap >> 16) as u16).to_le_bytes());
    put(0x3a, &((inode_bitmap >> 16) as u16).to_le_bytes());
    let checksum = crc32c(crc32c(SEED, &group.to_le_bytes()), &bytes);
    bytes[0x1e..0x20].copy_from_slice(&(checksum as u16).to_le_bytes());
    bytes
}

fn is_directory(file: &File<'_>) -> bool {
    file.mode & record::TYPE == record::TYPE_DIRECTORY
}

fn set(bitmap: &mut [u8], bits: std::ops::Range<u32>) {
    bits.for_each(|bit| bitmap[bit as usize / 8] |= 1 << (bit % 8));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_counted_from_the_lowest() {
        let mut bitmap = [0; 3];
        set(&mut bitmap, 0..3);
        set(&mut bitmap, 15..18);
        assert_eq!(bitmap, [0b0000_0111, 0b1000_0000, 0b0000_0011]);
    }
}
