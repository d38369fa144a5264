//! The check of an image and its hash tree against the root hash: what the kernel does block by block as it
//! reads, done to all of them, with the name of the first that is wrong.

use std::io::Read;

use crate::error::{Error, reading_image};

use super::levels::{PER_BLOCK, blocks, levels};
use super::{BLOCK, DIGEST, FORMAT, Hash, Verity};

/// Checks an image with its hash tree behind it; for one on a device of its own, `data.chain(hash)` is that.
/// Each byte counts: of the data, of the tree, of the superblock, and there must be none behind them.
/// `expected` is believed.
///
/// Errors go from what is trusted to what is not: the superblock, then the tree from its root down, then the
/// data.
pub fn verify(mut image: impl Read, expected: &Verity) -> Result<(), Error> {
    let superblock = &expected.superblock;
    let hash = Hash::salted(&superblock.salt);
    let data = hash.of_blocks(&mut image, superblock.data_blocks)?;

    let mut block = [0; BLOCK];
    image.read_exact(&mut block).map_err(reading_image(FORMAT))?;
    superblock.check(&block)?;

    // The digests of the level above, of which a level's blocks must be: at first the root hash.
    let mut above = expected.root.0.to_vec();
    // Counted from the superblock, as `veritysetup` does.
    let mut first = 1;
    for (level, &count) in levels(superblock.data_blocks).iter().enumerate().rev() {
        let mut stored = Vec::new();
        for index in 0..count {
            image.read_exact(&mut block).map_err(reading_image(FORMAT))?;
            if hash.of(&block) != above[digest(index)] {
                let what =
                    format!("hash block {} (level {level}) is not what the root hash says", first + index);
                return Err(Error::Corrupt { format: FORMAT, what });
            }
            stored.extend_from_slice(&block);
        }
        first += count;
        above = stored;
    }
    debug_assert_eq!(first - 1, blocks(superblock.data_blocks));

    let wrong = (0..superblock.data_blocks).find(|&index| data[digest(index)] != above[digest(index)]);
    if let Some(index) = wrong {
        let what =
            format!("data block {index} (from byte {}) is not what the root hash says", index * BLOCK as u64);
        return Err(Error::Corrupt { format: FORMAT, what });
    }
    if image.read(&mut block).map_err(reading_image(FORMAT))? > 0 {
        let what = "there is something behind the hash tree".to_owned();
        return Err(Error::Corrupt { format: FORMAT, what });
    }
    Ok(())
}

/// Where a block's digest is among the digests of its level: they lie without a gap, since digests fill hash
/// blocks.
fn digest(index: u64) -> std::ops::Range<usize> {
    const { assert!(PER_BLOCK as usize * DIGEST == BLOCK) };
    let at = index as usize * DIGEST;
    at..at + DIGEST
}
