//! A compressed file: its content in stretches of any length, each in one block, and the index that finds
//! them.
//!
//! The index has an entry for each 4096 bytes of content. One in which a stretch begins says at which byte,
//! and in which block the stretch is; the others say how far away the entries with beginnings are. So no two
//! stretches may begin in the same 4096 bytes: each but the last is at least that long. Where the last one
//! ends another seems to begin, as at the end of any other; else the kernel takes it to be as long as its
//! entries are (`z_erofs_do_map_blocks`), and refuses one that is not compressed and yet longer than its
//! block.

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

/// The next stretch of a file: takes what fits one block from the front of `ahead`, which is the rest of the
/// file or at least [`MAX_STRETCH`] of it. The block, and how many bytes of content it holds.
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
    let begun = stretches.last().map_or(0, |last| cluster_of(last) + 1);
    let end = (begun < clusters && !size.is_multiple_of(BLOCK as u64))
        .then_some(Stretch { start: size, kept: Kept::AsItIs });
    let places = (first..).map(Some).take(stretches.len()).chain([None]);
    let mut rest = stretches.iter().chain(&end).zip(places).peekable();
    while let Some((stretch, place)) = rest.next() {
        let head = cluster_of(stretch);
        let offset = (stretch.start % BLOCK as u64) as u16;
        put(stretch.kept as u16, offset, place.unwrap_or_default().to_le_bytes());
        let next = rest.peek().map_or(clusters, |(next, _)| cluster_of(next));
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

    fn entries(index: &[u8]) -> Vec<[u16; 4]> {
        let half = |entry: &[u8], i: usize| u16::from_le_bytes([entry[2 * i], entry[2 * i + 1]]);
        index[INDEX_HEADER..].chunks(8).map(|entry| std::array::from_fn(|i| half(entry, i))).collect()
    }

    fn at(start: u64, kept: Kept) -> Stretch {
        Stretch { start, kept }
    }

    #[test]
    fn an_entry_for_each_4096_bytes_leads_to_its_beginning() {
        let list =
            [at(0, Kept::Compressed), at(3 * 4096 + 5, Kept::AsItIs), at(4 * 4096 + 5, Kept::Compressed)];
        let index = index(&list, 7 * 4096, 100);
        assert_eq!(index.len(), index_len(7 * 4096));
        let expected = [
            [1, 0, 100, 0],
            [2, 0, 1, 2],
            [2, 0, 2, 1],
            [0, 5, 101, 0],
            [1, 5, 102, 0],
            [2, 0, 1, 2],
            [2, 0, 2, 1],
        ];
        assert_eq!(entries(&index), expected);
    }

    #[test]
    fn where_the_last_stretch_ends_another_seems_to_begin() {
        let list = [at(0, Kept::Compressed), at(4096 + 3000, Kept::AsItIs)];
        let ends_later = [[1, 0, 9, 0], [0, 3000, 10, 0], [0, 7, 0, 0]];
        assert_eq!(entries(&index(&list, 2 * 4096 + 7, 9)), ends_later);
        let ends_with_its_block = [[1, 0, 9, 0], [0, 3000, 10, 0]];
        assert_eq!(entries(&index(&list, 2 * 4096, 9)), ends_with_its_block);
        assert_eq!(entries(&index(&list, 4096 + 3500, 9)), ends_with_its_block);
    }

    /// How the kernel finds what a byte is in: the stretch's first byte, the byte behind it, and its type.
    fn mapped(entries: &[[u16; 4]], byte: u64) -> (u64, u64, u16) {
        let (cluster, offset) = ((byte / BLOCK as u64) as usize, (byte % BLOCK as u64) as u16);
        let [kind, begins, back, _] = entries[cluster];
        let at = |cluster: usize, offset: u16| cluster as u64 * BLOCK as u64 + u64::from(offset);
        let (head, end) = match kind {
            GOES_ON => (cluster - usize::from(back), at(cluster + 1, 0)),
            _ if offset >= begins => (cluster, at(cluster + 1, 0)),
            _ => match entries[cluster - 1] {
                [GOES_ON, _, back, _] => (cluster - 1 - usize::from(back), at(cluster, begins)),
                _ => (cluster - 1, at(cluster, begins)),
            },
        };
        (at(head, entries[head][1]), end, entries[head][0])
    }

    #[test]
    fn the_kernel_finds_every_byte_and_no_stretch_too_long_for_its_block() {
        for size in [4097, 8191, 8192, 8193, 50_000, 65_536, 65_537, 131_073, 200_000] {
            let content: Vec<u8> = (0..)
                .flat_map(|n: u32| format!("{n} of {size}: {}", n.pow(2) % 1009).into_bytes())
                .take(size)
                .collect();
            let list = stretches(&content);
            let kept: Vec<_> = list.iter().map(|(stretch, _)| stretch.clone()).collect();
            let entries = entries(&index(&kept, size as u64, 1));
            for (stretch, length) in &list {
                for byte in [stretch.start, stretch.start + *length as u64 - 1] {
                    let (start, end, kind) = mapped(&entries, byte);
                    assert_eq!((start, kind), (stretch.start, stretch.kept as u16), "byte {byte} of {size}");
                    assert!(
                        kind == Kept::Compressed as u16 || end - start <= BLOCK as u64,
                        "byte {byte} of {size}"
                    );
                }
            }
        }
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
