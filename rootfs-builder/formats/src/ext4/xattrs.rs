//! Extended attributes (kernel: `filesystems/ext4/attributes.rst`): behind the fields of the inode if they
//! fit there, else all of them in a block.
//!
//! Entries with the names grow from the front, values from the back. The kernel looks for a name in the order
//! in which entries are sorted here.

use std::collections::BTreeMap;
use std::path::Path;

use super::checksum::{SEED, crc32c};
use super::{BLOCK, FORMAT, record};
use crate::error::{Error, unsupported};

const MAGIC: u32 = 0xea02_0000;

/// The head of a block: magic, references, blocks, hash, checksum.
const BLOCK_HEAD: usize = 32;

/// The fields of an entry before its name.
const ENTRY: usize = 16;

/// The zero that ends the entries.
const END: usize = 4;

/// What is left of an inode.
const IN_INODE: usize = record::LENGTH - record::FIELDS - 4;

const IN_BLOCK: usize = BLOCK - BLOCK_HEAD;

/// The beginnings of names that are written as a number. POSIX ACLs (`system.`) have a form of their own
/// here, and no source of ours has any.
const PREFIXES: [(&str, u8); 3] = [("user.", 1), ("trusted.", 4), ("security.", 6)];

/// A file's attributes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Xattrs {
    None,
    /// What stands in the inode behind its fields.
    Inode(Vec<u8>),
    /// A block, without its checksum.
    Block(Vec<u8>),
}

impl Xattrs {
    pub(super) fn has_block(&self) -> bool {
        matches!(self, Xattrs::Block(_))
    }

    /// The block, if there is one, as it is at `place`.
    pub(super) fn block(&self, place: u32) -> Option<Vec<u8>> {
        let Xattrs::Block(block) = self else { return None };
        let mut block = block.clone();
        let checksum = crc32c(crc32c(SEED, &u64::from(place).to_le_bytes()), &block);
        block[0x10..0x14].copy_from_slice(&checksum.to_le_bytes());
        Some(block)
    }
}

/// The attributes of the file at `path`.
pub(super) fn pack(path: &Path, xattrs: &BTreeMap<String, Vec<u8>>) -> Result<Xattrs, Error> {
    if xattrs.is_empty() {
        return Ok(Xattrs::None);
    }
    let mut entries = xattrs
        .iter()
        .map(|(name, value)| Entry::new(name, value).ok_or(name))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|name| {
            unsupported(FORMAT, path, format!("has an extended attribute {name:?}, which has no place"))
        })?;
    entries.sort_by_key(|entry| (entry.prefix, entry.name.len(), entry.name));
    let needed = entries.iter().map(Entry::length).sum::<usize>() + END;
    if needed <= IN_INODE {
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        bytes.extend(fill(&entries, 0, IN_INODE));
        return Ok(Xattrs::Inode(bytes));
    }
    if needed <= IN_BLOCK {
        let mut bytes = vec![0; BLOCK_HEAD];
        // Magic, one reference, one block, the hash.
        for (word, number) in [MAGIC, 1, 1, hash(&entries)].into_iter().enumerate() {
            bytes[4 * word..][..4].copy_from_slice(&number.to_le_bytes());
        }
        bytes.extend(fill(&entries, BLOCK_HEAD, IN_BLOCK));
        return Ok(Xattrs::Block(bytes));
    }
    let what = format!("has extended attributes of {needed} bytes, and there is room for {IN_BLOCK}");
    Err(unsupported(FORMAT, path, what))
}

struct Entry<'a> {
    prefix: u8,
    /// Without its prefix.
    name: &'a [u8],
    value: &'a [u8],
}

impl<'a> Entry<'a> {
    /// None for a name that cannot be written.
    fn new(name: &'a str, value: &'a [u8]) -> Option<Self> {
        let (prefix, name) =
            PREFIXES.iter().find_map(|(text, prefix)| Some((*prefix, name.strip_prefix(text)?)))?;
        let fits = !name.is_empty() && name.len() <= 255 && !name.contains('\0');
        fits.then_some(Entry { prefix, name: name.as_bytes(), value })
    }

    fn length(&self) -> usize {
        ENTRY + self.name.len().next_multiple_of(4) + self.value.len().next_multiple_of(4)
    }

    /// Over name and value, the latter in whole words.
    fn hash(&self) -> u32 {
        let name = self.name.iter().fold(0u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
        self.value.chunks(4).fold(name, |hash, chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            hash.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }
}

/// Entries and values in an area of `room` bytes; places are counted from `before` bytes in front of it.
fn fill(entries: &[Entry<'_>], before: usize, room: usize) -> Vec<u8> {
    let mut area = vec![0; room];
    let (mut front, mut back) = (0, room);
    for entry in entries {
        back -= entry.value.len().next_multiple_of(4);
        area[back..back + entry.value.len()].copy_from_slice(entry.value);
        let place = if entry.value.is_empty() { 0 } else { before + back };
        let mut put =
            |at: usize, bytes: &[u8]| area[front + at..front + at + bytes.len()].copy_from_slice(bytes);
        put(0, &[entry.name.len() as u8, entry.prefix]);
        put(2, &(place as u16).to_le_bytes());
        put(8, &(entry.value.len() as u32).to_le_bytes());
        put(12, &entry.hash().to_le_bytes());
        put(ENTRY, entry.name);
        front += ENTRY + entry.name.len().next_multiple_of(4);
    }
    area
}

/// Of a block. Zero says that the kernel must not let files share it.
fn hash(entries: &[Entry<'_>]) -> u32 {
    let hashes: Vec<_> = entries.iter().map(Entry::hash).collect();
    if hashes.contains(&0) { 0 } else { hashes.iter().fold(0, |all: u32, hash| all.rotate_left(16) ^ hash) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(xattrs: &[(&str, usize)]) -> Result<Xattrs, String> {
        let xattrs = xattrs.iter().map(|(name, length)| ((*name).to_owned(), vec![7; *length])).collect();
        pack(Path::new("a/b"), &xattrs).map_err(|error| error.to_string())
    }

    #[test]
    fn small_ones_are_in_the_inode() {
        assert_eq!(packed(&[]), Ok(Xattrs::None));
        // The terminator, an entry of 16, a name of 12, a value of 60 bytes fill 92.
        assert!(
            matches!(packed(&[("security.capability", 60)]), Ok(Xattrs::Inode(bytes)) if bytes.len() == 96)
        );
        assert!(
            matches!(packed(&[("security.capability", 61)]), Ok(Xattrs::Block(bytes)) if bytes.len() == BLOCK)
        );
    }

    #[test]
    fn what_has_no_place_is_refused() {
        for name in ["system.posix_acl_access", "nonsense", "user.", "user.a\0b"] {
            let expected = format!("ext4: /a/b has an extended attribute {name:?}, which has no place");
            assert_eq!(packed(&[(name, 1)]), Err(expected));
        }
        assert!(packed(&[("user.x", IN_BLOCK - END - ENTRY - 4)]).is_ok());
        let error = packed(&[("user.x", IN_BLOCK - END - ENTRY - 3)]).unwrap_err();
        assert_eq!(error, "ext4: /a/b has extended attributes of 4068 bytes, and there is room for 4064");
    }
}
