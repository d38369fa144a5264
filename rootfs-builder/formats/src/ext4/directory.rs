//! Directory blocks (kernel: `filesystems/ext4/directory.rst`, "Linear (Classic) Directories").
//!
//! An entry is an inode's number, its own length, the length of the name, the type of the file, the name. The
//! last of a block reaches to the checksum, which looks like an entry of no file.

use guest_tree::Kind;

use super::BLOCK;
use super::checksum::{crc32c, inode_seed};

/// Number, lengths, type.
const HEAD: usize = 8;

/// The entry that holds the checksum.
const TAIL: usize = 12;

/// The type that it claims.
const TAIL_TYPE: u8 = 0xde;

const TYPE_DIRECTORY: u8 = 2;

/// A name in a directory.
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    /// The inode's.
    pub(super) number: u32,
    pub(super) kind: &'a Kind,
}

/// The blocks of the directory `own`, which is in `parent`.
pub(super) fn blocks<'a>(own: u32, parent: u32, entries: impl Iterator<Item = Entry<'a>>) -> Vec<u8> {
    let mut blocks = Blocks { bytes: Vec::new(), last: 0, seed: inode_seed(own) };
    blocks.push(b".", own, TYPE_DIRECTORY);
    blocks.push(b"..", parent, TYPE_DIRECTORY);
    entries.for_each(|entry| blocks.push(entry.name, entry.number, file_type(entry.kind)));
    blocks.close();
    blocks.bytes
}

fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) => 1,
        Kind::Directory => TYPE_DIRECTORY,
        Kind::CharDevice { .. } => 3,
        Kind::Fifo => 5,
        Kind::Symlink(_) => 7,
    }
}

struct Blocks {
    bytes: Vec<u8>,
    /// Where the last entry begins.
    last: usize,
    seed: u32,
}

impl Blocks {
    fn push(&mut self, name: &[u8], number: u32, file_type: u8) {
        let length = (HEAD + name.len()).next_multiple_of(4);
        if self.bytes.len() % BLOCK + length > BLOCK - TAIL {
            self.close();
        }
        self.last = self.bytes.len();
        self.bytes.extend(number.to_le_bytes());
        self.bytes.extend((length as u16).to_le_bytes());
        self.bytes.extend([name.len() as u8, file_type]);
        self.bytes.extend(name);
        self.bytes.resize(self.last + length, 0);
    }

    /// Ends a block.
    fn close(&mut self) {
        let start = self.last - self.last % BLOCK;
        let end = start + BLOCK - TAIL;
        let length = (end - self.last) as u16;
        self.bytes[self.last + 4..self.last + 6].copy_from_slice(&length.to_le_bytes());
        self.bytes.resize(end, 0);
        let checksum = crc32c(self.seed, &self.bytes[start..]);
        self.bytes.extend([0, 0, 0, 0, TAIL as u8, 0, 0, TAIL_TYPE]);
        self.bytes.extend(checksum.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names, as a reader steps from one to the next.
    fn names(bytes: &[u8]) -> Vec<(u32, usize)> {
        let mut names = Vec::new();
        for block in bytes.chunks(BLOCK) {
            let mut at = 0;
            while at < BLOCK - TAIL {
                let number = u32::from_le_bytes(block[at..at + 4].try_into().unwrap());
                names.push((number, block[at + 6] as usize));
                at += usize::from(u16::from_le_bytes([block[at + 4], block[at + 5]]));
            }
            assert_eq!(at, BLOCK - TAIL, "entries end at the checksum");
        }
        names
    }

    #[test]
    fn an_entry_is_in_one_block() {
        let name = [b'x'; 255];
        let entry = |number| Entry { name: &name, number, kind: &Kind::Fifo };
        // Two short entries of 12 bytes and 15 of 264 fill 3984 of 4084 bytes.
        let bytes = blocks(11, 2, (100..131).map(entry));
        assert_eq!(bytes.len(), 3 * BLOCK);
        let expected: Vec<_> = [(11, 1), (2, 2)].into_iter().chain((100..131).map(|n| (n, 255))).collect();
        assert_eq!(names(&bytes), expected);
    }

    #[test]
    fn a_block_may_be_full_to_its_last_byte() {
        let name = [b'x'; 248];
        let entry = |number| Entry { name: &name, number, kind: &Kind::Directory };
        let short = Entry { name: &[b'y'; 212], number: 200, kind: &Kind::Directory };
        // 24 + 15 * 256 + 220 = 4084.
        let bytes = blocks(11, 2, (100..115).map(entry).chain([short]));
        assert_eq!((bytes.len(), names(&bytes).len()), (BLOCK, 18));
    }
}
