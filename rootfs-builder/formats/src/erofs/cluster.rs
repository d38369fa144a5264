//! A compressed file: its content in stretches of any length, each in one block, and the index that finds them.
//!
//! The index has an entry for each 4096 bytes of content. One in which a stretch begins says at which byte, and in which
//! block the stretch is; the others say how far away the entries with beginnings are. So no two stretches may begin in the
//! same 4096 bytes: each but the last is at least that long.

use super::{BLOCK, lz4};

/// What a reader of one byte may have to decompress. It also bounds what is looked at to fill one block.
pub(super) const MAX_STRETCH: usize = 256 << 10;

/// What is before the index: which algorithm, LZ4 being 0, and a gap.
const INDEX_HEADER: usize = 16;

/// How a stretch is kept: the types of index entries in which one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    AsItIs = 0,
    Compressed = 1,
}

/// The type of an entry in which none begins.
const GOES_ON: u16 = 2;

/// The part of a file that one block holds.
#[derive(Debug, Clone)]
pub(super) struct Stretch {
    start: u64,
    kept: Kept,
}

/// The next stretch of a file: takes what fits one block from the front of `ahead`, which is the rest of the file or at
/// least [`MAX_STRETCH`] of it. The block, and how many bytes of content it holds.
pub(super) fn next(start: u64, ahead: &[u8]) -> (Stretch, usize, [u8; BLOCK]) {
    let ahead = &ahead[..ahead.len().min(MAX_STRETCH)];
    let mut block = [0; BLOCK];
    if ahead.len() > BLOCK {
        let (length, compressed) = lz4::fill_block(ahead);
        if length > BLOCK {
            // At the end of the block: the kernel takes the zeros before it for what they are (ZERO_PADDING).
            block[BLOCK - compressed.len()..].copy_from_slice(&compressed);
            return (Stretch { start, kept: Kept::Compressed }, length, block);
        }
    }
    let length = ahead.len().min(BLOCK);
    block[..length].copy_from_slice(&ahead[..length]);
    (Stretch { start, kept: Kept::AsItIs }, length, block)
}

/// The index of a file with this size, whose stretches lie in blocks from `first` on.
pub(super) fn index(stretches: &[Stretch], size: u64, first: u32) -> Vec<u8> {
    let mut bytes = vec![0; INDEX_HEADER];
    let mut put = |kind: u16, offset: u16, place: [u8; 4]| {
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&offset.to_le_bytes());
        bytes.extend_from_slice(&place);
    };
    let clusters = size.div_ceil(BLOCK as u64);
    let cluster_of = |stretch: &Stretch| stretch.start / BLOCK as u64;
    for (number, stretch) in stretches.iter().enumerate() {
        let head = cluster_of(stretch);
        let offset = (stretch.start % BLOCK as u64) as u16;
        put(stretch.kept as u16, offset, (first + number as u32).to_le_bytes());
        let next = stretches.get(number + 1).map_or(clusters, cluster_of);
        for cluster in head + 1..next {
            let (back, ahead) = ((cluster - head) as u16, (next - cluster) as u16);
            put(GOES_ON, 0, (u32::from(ahead) << 16 | u32::from(back)).to_le_bytes());
        }
    }
    bytes
}

/// How long the index of a file is.
pub(super) fn index_len(size: u64) -> usize {
    INDEX_HEADER + 8 * size.div_ceil(BLOCK as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretches(content: &[u8]) -> Vec<(Stretch, usize)> {
        let (mut list, mut at) = (Vec::new(), 0);
        while at < content.len() {
            let (stretch, length, _) = next(at as u64, &content[at..]);
            list.push((stretch, length));
            at += length;
        }
        list
    }

    #[test]
    fn an_entry_for_each_4096_bytes_leads_to_its_beginning() {
        let at = |start, kept| Stretch { start, kept };
        let list =
            [at(0, Kept::Compressed), at(3 * 4096 + 5, Kept::AsItIs), at(4 * 4096 + 5, Kept::Compressed)];
        let index = index(&list, 6 * 4096 + 1, 100);
        assert_eq!(index.len(), index_len(6 * 4096 + 1));
        let entries: Vec<_> = index[INDEX_HEADER..]
            .chunks(8)
            .map(|entry| std::array::from_fn(|i| u16::from_le_bytes([entry[2 * i], entry[2 * i + 1]])))
            .collect();
        let expected = [
            [1, 0, 100, 0],
            [2, 0, 1, 2],
            [2, 0, 2, 1],
            [0, 5, 101, 0],
            [1, 5, 102, 0],
            [2, 0, 1, 2],
            [2, 0, 2, 1],
        ];
        assert_eq!(entries, expected);
    }

    #[test]
    fn stretches_are_longer_than_a_block_or_the_last() {
        let mut content = Vec::new();
        for n in 0..3000_u32 {
            content.extend_from_slice(&n.wrapping_mul(0x9e37_79b1).to_le_bytes());
            content.extend_from_slice(if n / 500 % 2 == 0 { b"and the same text again" } else { b"" });
        }
        let list = stretches(&content);
        assert_eq!(list.iter().map(|(_, length)| length).sum::<usize>(), content.len());
        assert!(list.split_last().unwrap().1.iter().all(|(_, length)| *length >= BLOCK));
        let kept = |kind| list.iter().filter(|(stretch, _)| stretch.kept == kind).count();
        assert!(kept(Kept::AsItIs) > 0 && kept(Kept::Compressed) > 1);
    }
}
