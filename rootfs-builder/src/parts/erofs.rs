//! erofs, as `guest_formats::erofs` writes it without compression; behind it its hash tree.

use std::collections::HashSet;

use super::{Part, below, slice, u16_at, u32_at, u64_at};

const SUPERBLOCK: u64 = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
const BLOCK: u64 = 4096;
/// What inodes are counted in.
const SLOT: u64 = 32;
/// An entry of a directory, without its name.
const ENTRY: u64 = 12;

const TYPE: u16 = 0o170_000;
const DIRECTORY: u16 = 0o040_000;
const FILE: u16 = 0o100_000;

pub(super) fn parts(image: &[u8]) -> Option<Vec<Part<'_>>> {
    if u32_at(image, SUPERBLOCK)? != MAGIC {
        return None;
    }
    let root = u64::from(u16_at(image, SUPERBLOCK + 14)?);
    let end = u64::from(u32_at(image, SUPERBLOCK + 36)?) * BLOCK;
    let mut reader = Reader { image: slice(image, 0, end)?, parts: Vec::new(), seen: HashSet::new() };
    reader.walk(root, "")?;
    let mut parts = reader.parts;
    parts.push(Part::derived("the hash tree", end, image.get(end as usize..)?));
    Some(parts)
}

struct Reader<'a> {
    image: &'a [u8],
    parts: Vec<Part<'a>>,
    /// Directories: none is in two places.
    seen: HashSet<u64>,
}

impl<'a> Reader<'a> {
    fn walk(&mut self, nid: u64, path: &str) -> Option<()> {
        let inode = nid.checked_mul(SLOT)?;
        slice(self.image, inode, SLOT)?;
        let kind = u16_at(self.image, inode + 4)? & TYPE;
        if kind == FILE {
            let part = Part { name: path.to_owned(), ..self.content(inode)? };
            self.parts.push(part);
        }
        if kind != DIRECTORY {
            return Some(());
        }
        if !self.seen.insert(nid) {
            return None;
        }
        let listing: Vec<u8> = self.content(inode)?.chunks().flatten().copied().collect();
        for block in listing.chunks(BLOCK as usize) {
            let count = u64::from(u16_at(block, 8)?) / ENTRY;
            for entry in (0..count).map(|index| index * ENTRY) {
                let name = u64::from(u16_at(block, entry + 8)?);
                let last = entry + ENTRY == count * ENTRY;
                let end = if last { block.len() as u64 } else { u16_at(block, entry + ENTRY + 8)?.into() };
                let name = slice(block, name, end.checked_sub(name)?)?;
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                if name != b"." && name != b".." {
                    self.walk(u64_at(block, entry)?, &below(path, name))?;
                }
            }
        }
        Some(())
    }

    /// Whole blocks, and what is left of them behind the inode.
    fn content(&self, inode: u64) -> Option<Part<'a>> {
        let format = u16_at(self.image, inode)?;
        let (length, size) = match format & 1 {
            0 => (32, u64::from(u32_at(self.image, inode + 8)?)),
            _ => (64, u64_at(self.image, inode + 8)?),
        };
        let xattrs = match u64::from(u16_at(self.image, inode + 2)?) {
            0 => 0,
            words => 12 + 4 * (words - 1),
        };
        let inline = match format >> 1 {
            0 => 0,
            2 => size % BLOCK,
            _ => return None,
        };
        let start = u64::from(u32_at(self.image, inode + 16)?) * BLOCK;
        let mut part = Part::plain("", start, slice(self.image, start, size - inline)?);
        let behind = inode + length + xattrs;
        part.push(behind, slice(self.image, behind, inline)?);
        Some(part)
    }
}
