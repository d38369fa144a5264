//! The content of a directory: blocks of entries, each block with its names behind them. The kernel looks a
//! name up by binary search, first among blocks and then in one, so names are sorted by their bytes over the
//! whole directory.

use super::BLOCK;
use guest_tree::Kind;

/// The fixed part of an entry.
const ENTRY: usize = 12;

/// One name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dirent<'a> {
    pub(super) name: &'a [u8],
    /// Which inode it leads to, as the kernel counts them.
    pub(super) nid: u64,
    pub(super) kind: &'a Kind,
}

/// How long a directory with these names is; they are sorted.
pub(super) fn size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let (mut blocks, mut used) = (0, 0);
    for name in names {
        if used + ENTRY + name.len() > BLOCK {
            (blocks, used) = (blocks + 1, 0);
        }
        used += ENTRY + name.len();
    }
    blocks * BLOCK as u64 + used as u64
}

/// The content of a directory; the entries are sorted by name.
pub(super) fn encode(entries: &[Dirent<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let mut used = 0;
        let fits = |entry: &&Dirent<'_>| {
            used += ENTRY + entry.name.len();
            used <= BLOCK
        };
        let (block, others) = rest.split_at(rest.iter().take_while(fits).count());
        // Only the last block is shorter than a block.
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        put_block(&mut bytes, block);
        rest = others;
    }
    bytes
}

fn put_block(bytes: &mut Vec<u8>, entries: &[Dirent<'_>]) {
    let mut name_at = entries.len() * ENTRY;
    for entry in entries {
        bytes.extend_from_slice(&entry.nid.to_le_bytes());
        bytes.extend_from_slice(&(name_at as u16).to_le_bytes());
        bytes.extend_from_slice(&[file_type(entry.kind), 0]);
        name_at += entry.name.len();
    }
    entries.iter().for_each(|entry| bytes.extend_from_slice(entry.name));
}

/// The kernel's `FT_*`.
fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) => 1,
        Kind::Directory => 2,
        Kind::CharDevice { .. } => 3,
        Kind::Fifo => 5,
        Kind::Symlink(_) => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_before_their_names() {
        let entry = |name, nid| Dirent { name, nid, kind: &Kind::Directory };
        let bytes = encode(&[entry(b".", 36), entry(b"..", 36), entry(b"etc", 0x1_0000_0001)]);
        assert_eq!(bytes.len(), 3 * ENTRY + 6);
        assert_eq!(bytes[..ENTRY], [36, 0, 0, 0, 0, 0, 0, 0, 36, 0, 2, 0]);
        assert_eq!(bytes[2 * ENTRY..3 * ENTRY], [1, 0, 0, 0, 1, 0, 0, 0, 39, 0, 2, 0]);
        assert_eq!(&bytes[3 * ENTRY..], b"...etc");
    }

    #[test]
    fn the_size_is_known_before_the_entries_are() {
        for (count, length) in [(0, 1), (1, 255), (15, 255), (16, 255), (256, 4), (257, 4), (5000, 31)] {
            let names: Vec<_> = (0..count).map(|n| format!("{n:0length$}").into_bytes()).collect();
            let entries: Vec<_> =
                names.iter().map(|name| Dirent { name, nid: 1, kind: &Kind::Fifo }).collect();
            let expected = encode(&entries).len() as u64;
            assert_eq!(size(names.iter().map(Vec::as_slice)), expected, "{count} of {length}");
        }
        assert_eq!(size([&[b'x'; 4][..]; 256].into_iter()), 4096, "a full block");
    }
}
