//! ext4, as `guest_formats::ext4` writes it.

use std::collections::HashSet;

use super::{Part, below, slice, u16_at, u32_at};

const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;
const BLOCK: u64 = 4096;
const DESCRIPTOR: u64 = 64;
const INODE: u64 = 256;
const ROOT: u32 = 2;
const JOURNAL: u32 = 8;

const TYPE: u16 = 0o170_000;
const DIRECTORY: u16 = 0o040_000;
const FILE: u16 = 0o100_000;

pub(super) fn parts(image: &[u8]) -> Option<Vec<Part<'_>>> {
    if u16_at(image, SUPERBLOCK + 0x38)? != MAGIC {
        return None;
    }
    let inodes_per_group = u32_at(image, SUPERBLOCK + 0x28)?;
    let mut reader = Reader { image, inodes_per_group, parts: Vec::new(), seen: HashSet::new() };
    reader.walk(ROOT, "")?;
    let mut parts = reader.parts;
    if u32_at(image, SUPERBLOCK + 0xe0)? == JOURNAL {
        let reader = Reader { image, inodes_per_group, parts: Vec::new(), seen: HashSet::new() };
        let journal = reader.content(reader.inode(JOURNAL)?)?;
        parts.push(Part { name: "the journal".to_owned(), is_derived: true, ..journal });
    }
    Some(parts)
}

struct Reader<'a> {
    image: &'a [u8],
    inodes_per_group: u32,
    parts: Vec<Part<'a>>,
    /// Directories: none is in two places.
    seen: HashSet<u32>,
}

impl<'a> Reader<'a> {
    fn walk(&mut self, number: u32, path: &str) -> Option<()> {
        let inode = self.inode(number)?;
        let kind = u16_at(inode, 0)? & TYPE;
        if kind == FILE {
            let part = Part { name: path.to_owned(), ..self.content(inode)? };
            self.parts.push(part);
        }
        if kind != DIRECTORY {
            return Some(());
        }
        if !self.seen.insert(number) {
            return None;
        }
        let listing: Vec<u8> = self.content(inode)?.chunks().flatten().copied().collect();
        let mut at = 0;
        while at < listing.len() as u64 {
            let (number, length) = (u32_at(&listing, at)?, u64::from(u16_at(&listing, at + 4)?));
            let name = slice(&listing, at + 8, u64::from(*listing.get(at as usize + 6)?))?;
            if number != 0 && name != b"." && name != b".." {
                self.walk(number, &below(path, name))?;
            }
            at += (length > 0).then_some(length)?;
        }
        Some(())
    }

    fn inode(&self, number: u32) -> Option<&'a [u8]> {
        let index = number.checked_sub(1)?;
        let group = u64::from(index.checked_div(self.inodes_per_group)?);
        let table = u64::from(u32_at(self.image, BLOCK + group * DESCRIPTOR + 8)?) * BLOCK;
        slice(self.image, table + u64::from(index % self.inodes_per_group) * INODE, INODE)
    }

    fn content(&self, inode: &[u8]) -> Option<Part<'a>> {
        let size = u64::from(u32_at(inode, 4)?) | u64::from(u32_at(inode, 0x6c)?) << 32;
        let mut part = Part::default();
        self.extents(slice(inode, 0x28, 60)?, 0, size, &mut part)?;
        Some(part)
    }

    /// Those of a node of the tree: of the inode itself, or of a leaf.
    fn extents(&self, node: &[u8], depth: u32, size: u64, part: &mut Part<'a>) -> Option<()> {
        let (entries, levels) = (u64::from(u16_at(node, 2)?), u16_at(node, 6)?);
        for at in (1..=entries).map(|index| index * 12) {
            if levels == 0 {
                let first = u64::from(u32_at(node, at)?) * BLOCK;
                let length = (u64::from(u16_at(node, at + 4)?) * BLOCK).min(size.saturating_sub(first));
                let start = u64::from(u32_at(node, at + 8)?) * BLOCK;
                part.push(start, slice(self.image, start, length)?);
            } else if depth == 0 {
                let leaf = u64::from(u32_at(node, at + 4)?) * BLOCK;
                self.extents(slice(self.image, leaf, BLOCK)?, 1, size, part)?;
            } else {
                return None;
            }
        }
        Some(())
    }
}
