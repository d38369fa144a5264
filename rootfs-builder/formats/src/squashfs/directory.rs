//! A directory's listing: runs of entries whose inodes are near each other. `.` and `..` are not in it.

use guest_tree::Kind;

use super::archive::Place;

/// The most entries in a run.
const MAX_RUN: usize = 256;

/// One name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    /// Its inode, in the table of inodes.
    pub(super) place: Place,
    /// Its inode's number.
    pub(super) number: u32,
    pub(super) kind: &'a Kind,
}

/// The listing of a directory; the entries are sorted by name.
pub(super) fn encode(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let near =
            |entry: &&Entry<'_>| entry.place.block == first.place.block && distance(first, entry).is_some();
        let (run, others) = rest.split_at(rest.iter().take(MAX_RUN).take_while(near).count());
        for word in [run.len() as u32 - 1, first.place.block, first.number] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for entry in run {
            bytes.extend_from_slice(&entry.place.offset.to_le_bytes());
            bytes.extend_from_slice(&distance(first, entry).unwrap_or_default().to_le_bytes());
            bytes.extend_from_slice(&kind_number(entry.kind).to_le_bytes());
            bytes.extend_from_slice(&(entry.name.len() as u16 - 1).to_le_bytes());
            bytes.extend_from_slice(entry.name);
        }
        rest = others;
    }
    bytes
}

fn distance(first: &Entry<'_>, entry: &Entry<'_>) -> Option<i16> {
    i16::try_from(i64::from(entry.number) - i64::from(first.number)).ok()
}

/// The number of a kind of inodes in its shorter form; the longer form's is larger by 7.
pub(super) fn kind_number(kind: &Kind) -> u16 {
    match kind {
        Kind::Directory => 1,
        Kind::File(_) => 2,
        Kind::Symlink(_) => 3,
        Kind::CharDevice { .. } => 5,
        Kind::Fifo => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &'static str, block: u32, number: u32) -> Entry<'static> {
        Entry { name: name.as_bytes(), place: Place { block, offset: 7 }, number, kind: &Kind::Fifo }
    }

    #[test]
    fn inodes_of_one_block_with_near_numbers_make_a_run() {
        let bytes = encode(&[entry("a", 0, 100), entry("bc", 0, 99), entry("d", 80, 101)]);
        let run = |count: u8, block: u8, number: u8| [count, 0, 0, 0, block, 0, 0, 0, number, 0, 0, 0];
        let expected = [
            &run(1, 0, 100)[..],
            b"\x07\0\0\0\x06\0\0\0a",
            b"\x07\0\xff\xff\x06\0\x01\0bc",
            &run(0, 80, 101),
            b"\x07\0\0\0\x06\0\0\0d",
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn a_run_ends_where_numbers_are_far_away_and_after_256_entries() {
        let far = encode(&[entry("a", 0, 1), entry("b", 0, 1 + 32767), entry("c", 0, 1 + 32768)]);
        assert_eq!(far.len(), 2 * 12 + 3 * 9);
        assert_eq!(encode(&vec![entry("x", 0, 1); 513]).len(), 3 * 12 + 513 * 9);
        assert_eq!(encode(&[]), b"");
    }
}
