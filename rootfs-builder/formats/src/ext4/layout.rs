//! Where everything goes, and how much there is of it. One row: the superblock's block, descriptors, block
//! bitmaps, inode bitmaps, inode tables, what files have beside their contents, contents, free blocks.

use super::body::{Body, FIRST, File};
use super::{BLOCK, FORMAT, Size, extents, record};
use crate::error::Error;

/// As many as a bitmap of one block has bits.
pub(super) const BLOCKS_PER_GROUP: u32 = BLOCK as u32 * 8;

/// How many inodes a group has at most: for the same reason.
const INODES_PER_GROUP_MAX: u64 = BLOCK as u64 * 8;

/// The size of a group's descriptor.
pub(super) const DESCRIPTOR: usize = 64;

const INODES_PER_BLOCK: u32 = (BLOCK / record::LENGTH) as u32;

/// One inode for each 16 KiB that are free, as mke2fs has it.
const FREE_BLOCKS_PER_INODE: u64 = 4;

/// The order of a file system.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// All of its blocks.
    pub(super) blocks: u32,
    /// The first so many of them are taken.
    pub(super) used: u32,
    pub(super) groups: u32,
    pub(super) inodes_per_group: u32,
    /// The first so many of all inodes are taken.
    pub(super) used_inodes: u32,
    /// For each file.
    pub(super) places: Vec<Place>,
}

/// The blocks of one file. Where it has none of a kind the number is without meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The block of its attributes.
    pub(super) xattrs: u32,
    /// The first leaf of its extents.
    pub(super) leaves: u32,
    /// The first block of its content.
    pub(super) data: u32,
}

impl Layout {
    /// A layout for files in the order of their numbers.
    pub(super) fn new(files: &[File<'_>], size: Size) -> Result<Layout, Error> {
        let used_inodes = files.last().map_or(0, |file| file.number).max(FIRST - 1);
        let data = files.iter().map(|file| beside(file) + file.body.blocks()).sum();
        let Frame { blocks, groups, inodes_per_group } = frame(u64::from(used_inodes), data, size);
        let Ok(blocks) = u32::try_from(blocks) else {
            let what =
                format!("{blocks} blocks of {BLOCK} bytes, and it is written with at most {}", u32::MAX);
            return Err(Error::Limit { format: FORMAT, what });
        };
        let mut layout =
            Layout { blocks, used: 0, groups, inodes_per_group, used_inodes, places: Vec::new() };
        layout.used = layout.inode_table(groups);
        layout.place(files);
        Ok(layout)
    }

    pub(super) fn all_inodes(&self) -> u32 {
        self.groups * self.inodes_per_group
    }

    pub(super) fn block_bitmap(&self, group: u32) -> u32 {
        1 + descriptor_blocks(u64::from(self.groups)) as u32 + group
    }

    pub(super) fn inode_bitmap(&self, group: u32) -> u32 {
        self.block_bitmap(self.groups) + group
    }

    /// Behind the last group's is what follows the tables.
    pub(super) fn inode_table(&self, group: u32) -> u32 {
        self.inode_bitmap(self.groups) + group * (self.inodes_per_group / INODES_PER_BLOCK)
    }

    /// How many blocks a group has: all but the last have the same.
    pub(super) fn blocks_of(&self, group: u32) -> u32 {
        (self.blocks - group * BLOCKS_PER_GROUP).min(BLOCKS_PER_GROUP)
    }

    pub(super) fn used_blocks_of(&self, group: u32) -> u32 {
        self.used.saturating_sub(group * BLOCKS_PER_GROUP).min(BLOCKS_PER_GROUP)
    }

    pub(super) fn used_inodes_of(&self, group: u32) -> u32 {
        self.used_inodes.saturating_sub(group * self.inodes_per_group).min(self.inodes_per_group)
    }

    /// What files have beside their contents comes first, so that a search reads one part of the disk.
    fn place(&mut self, files: &[File<'_>]) {
        let mut take = |blocks: u64| {
            let at = self.used;
            self.used += blocks as u32; // no more in all than the frame has
            at
        };
        for file in files {
            let xattrs = take(u64::from(file.xattrs.has_block()));
            let leaves = take(extents::leaf_count(file.body.blocks()));
            let data = if is_content(file) { 0 } else { take(file.body.blocks()) };
            self.places.push(Place { xattrs, leaves, data });
        }
        for (file, place) in files.iter().zip(&mut self.places).filter(|(file, _)| is_content(file)) {
            place.data = take(file.body.blocks());
        }
    }
}

struct Frame {
    blocks: u64,
    groups: u32,
    inodes_per_group: u32,
}

/// How many blocks, groups and inodes it takes. More groups need more blocks for their tables, so this is
/// tried until it fits; the last group has one block at least, for which a few more may be free than asked
/// for.
fn frame(used_inodes: u64, data: u64, size: Size) -> Frame {
    let free = match size {
        Size::Exact => 0,
        Size::Free(bytes) => bytes.div_ceil(BLOCK as u64),
        Size::AtLeast(bytes) => bytes.div_ceil(BLOCK as u64).saturating_sub(data),
    };
    let inodes = used_inodes + free / FREE_BLOCKS_PER_INODE;
    let per_group = u64::from(BLOCKS_PER_GROUP);
    let mut groups = 1;
    loop {
        let inodes_per_group = inodes.div_ceil(groups).next_multiple_of(u64::from(INODES_PER_BLOCK));
        let tables = inodes_per_group / u64::from(INODES_PER_BLOCK);
        let needed = 1 + descriptor_blocks(groups) + groups * (2 + tables) + data;
        let blocks = match size {
            Size::Exact | Size::Free(_) => needed + free,
            Size::AtLeast(bytes) => needed.max(bytes.div_ceil(BLOCK as u64)),
        };
        let more = blocks.div_ceil(per_group).max(inodes.div_ceil(INODES_PER_GROUP_MAX));
        if more <= groups {
            let blocks = blocks.max((groups - 1) * per_group + 1);
            return Frame { blocks, groups: groups as u32, inodes_per_group: inodes_per_group as u32 };
        }
        groups = more;
    }
}

fn descriptor_blocks(groups: u64) -> u64 {
    groups.div_ceil((BLOCK / DESCRIPTOR) as u64)
}

/// The blocks a file has beside its content.
pub(super) fn beside(file: &File<'_>) -> u64 {
    u64::from(file.xattrs.has_block()) + extents::leaf_count(file.body.blocks())
}

fn is_content(file: &File<'_>) -> bool {
    matches!(file.body, Body::Content(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(frame: &Frame) -> (u64, u32, u32) {
        (frame.blocks, frame.groups, frame.inodes_per_group)
    }

    #[test]
    fn the_smallest_has_a_handful_of_blocks() {
        // Superblock, descriptors, two bitmaps, one block of inodes, the root directory.
        assert_eq!(numbers(&frame(10, 1, Size::Exact)), (6, 1, 16));
        assert_eq!(numbers(&frame(17, 1, Size::Exact)), (7, 1, 32));
    }

    #[test]
    fn what_is_free_has_inodes_too() {
        // 256 free blocks have 64 inodes, with 10 that is five blocks of them.
        assert_eq!(numbers(&frame(10, 1, Size::Free(1 << 20))), (5 + 5 + 256, 1, 80));
        let (blocks, ..) = numbers(&frame(10, 1, Size::AtLeast(1 << 20)));
        assert_eq!(blocks, 256);
        let (blocks, ..) = numbers(&frame(10, 1000, Size::AtLeast(1 << 20)));
        assert_eq!(blocks, 1005, "what the tree needs is more");
    }

    #[test]
    fn a_group_more_takes_blocks_of_its_own() {
        let full = u64::from(BLOCKS_PER_GROUP);
        assert_eq!(numbers(&frame(10, full - 5, Size::Exact)), (full, 1, 16));
        assert_eq!(numbers(&frame(10, full - 4, Size::Exact)), (full + 4, 2, 16));
    }

    #[test]
    fn groups_are_added_for_inodes() {
        let (blocks, groups, per_group) = numbers(&frame(100_000, 10, Size::Exact));
        assert_eq!((groups, per_group), (4, 25_008));
        assert_eq!(blocks, 3 * u64::from(BLOCKS_PER_GROUP) + 1);
    }
}
