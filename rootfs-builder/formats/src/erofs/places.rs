//! Where inodes stand. One with its attributes and the end of its content does not cross a block, unless it
//! is longer than one; they fill blocks so that little is left over.

use std::collections::BTreeSet;

use super::BLOCK;

/// Inodes are counted in these: an inode's number is its position divided by this.
pub(super) const SLOT: usize = 32;

/// What is still free in the blocks that have inodes.
#[derive(Debug)]
pub(super) struct Places {
    /// How many bytes at the end of which block.
    free: BTreeSet<(usize, u64)>,
    next: u64,
}

impl Places {
    /// The end of the first block, and then blocks from `next` on.
    pub(super) fn new(used_of_first: usize, next: u64) -> Self {
        Places { free: BTreeSet::from([(BLOCK - used_of_first, 0)]), next }
    }

    /// The position in the image for an inode of this size: where it fits best, the first such block.
    pub(super) fn take(&mut self, size: usize) -> u64 {
        let size = size.next_multiple_of(SLOT);
        let (free, block) = match self.free.range((size, 0)..).next().copied() {
            Some(place) => place,
            None => {
                let place = (size.next_multiple_of(BLOCK), self.next);
                self.next += size.div_ceil(BLOCK) as u64;
                place
            }
        };
        self.free.remove(&(free, block));
        let position = block * BLOCK as u64 + (free.next_multiple_of(BLOCK) - free) as u64;
        // What is left lies at the end of the last block.
        let left = free - size;
        if left >= SLOT {
            self.free.insert((left, (position + size as u64) / BLOCK as u64));
        }
        position
    }

    /// The block after the last.
    pub(super) fn end(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_block_that_has_room_is_taken() {
        let mut places = Places::new(1152, 10);
        assert_eq!(places.take(32), 1152, "the root comes first, behind the superblock");
        assert_eq!(places.take(3000), 10 * 4096);
        assert_eq!(places.take(33), 10 * 4096 + 3008, "the block with less room than the first");
        assert_eq!(places.take(1100), 1184);
        assert_eq!(places.take(4096), 11 * 4096, "a block of its own");
        assert_eq!(places.end(), 12);
    }

    #[test]
    fn longer_ones_take_blocks_in_a_row_and_leave_the_rest_to_others() {
        let mut places = Places::new(4096, 1);
        assert_eq!(places.take(2 * 4096 + 64), 4096);
        assert_eq!(places.end(), 4);
        assert_eq!(places.take(4032), 3 * 4096 + 64);
        assert_eq!(places.take(32), 4 * 4096);
    }
}
