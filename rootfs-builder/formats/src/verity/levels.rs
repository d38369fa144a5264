//! The shape of a hash tree: how many blocks each level has and where it stands.

use super::{BLOCK, DIGEST};

/// How many digests a hash block holds.
pub(super) const PER_BLOCK: u64 = (BLOCK / DIGEST) as u64;

/// How many hash blocks each level has: the lowest, with the digests of the data, first; the last has one.
/// Data of one block has no tree: the block's digest is the root hash.
pub(super) fn levels(data_blocks: u64) -> Vec<u64> {
    let above = |blocks: &u64| (*blocks > 1).then(|| blocks.div_ceil(PER_BLOCK));
    std::iter::successors(above(&data_blocks), above).collect()
}

/// How many hash blocks there are on all levels.
pub(super) fn blocks(data_blocks: u64) -> u64 {
    levels(data_blocks).iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_has_a_block_for_each_128_below() {
        for (data, expected) in [
            (0, vec![]),
            (1, vec![]),
            (2, vec![1]),
            (128, vec![1]),
            (129, vec![2, 1]),
            (128 * 128, vec![128, 1]),
            (128 * 128 + 1, vec![129, 2, 1]),
        ] {
            assert_eq!(levels(data), expected, "{data}");
            assert_eq!(blocks(data), expected.iter().sum::<u64>(), "{data}");
        }
    }
}
