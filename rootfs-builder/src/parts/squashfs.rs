//! squashfs, as `guest_formats::squashfs` writes it with zstd; behind it its hash tree.

use std::collections::{HashMap, HashSet};

use super::{Part, Piece, Place, below, slice, u16_at, u32_at, u64_at};

const MAGIC: u32 = 0x7371_7368;
const ZSTD: u16 = 6;
/// The largest block that the format knows.
const BLOCK_MAX: u32 = 1 << 20;
/// The most that a block of metadata holds.
const METADATA: u64 = 8192;
/// In a block's size: it is not compressed.
const AS_IT_WAS: u32 = 1 << 24;
const METADATA_AS_IT_WAS: u16 = 1 << 15;
const NO_FRAGMENT: u32 = u32::MAX;
/// What a directory's length counts beside its listing.
const DOTS: u64 = 3;

pub(super) fn parts(image: &[u8]) -> Option<Vec<Part<'_>>> {
    let block_size = u32_at(image, 12)?;
    if u32_at(image, 0)? != MAGIC || u16_at(image, 20)? != ZSTD || block_size > BLOCK_MAX {
        return None;
    }
    let used = u64_at(image, 40)?;
    let mut reader = Reader {
        image: slice(image, 0, used)?,
        block_size,
        inodes: u64_at(image, 64)?,
        directories: u64_at(image, 72)?,
        fragments: u64_at(image, 80)?,
        metadata: HashMap::new(),
        unpacked: HashMap::new(),
        parts: Vec::new(),
        seen: HashSet::new(),
    };
    reader.walk(u64_at(image, 32)?, "")?;
    let mut parts = reader.parts;
    let end = used.next_multiple_of(4096);
    parts.push(Part::derived("the hash tree", end, image.get(end as usize..)?));
    Some(parts)
}

struct Reader<'a> {
    image: &'a [u8],
    block_size: u32,
    /// Where these tables begin.
    inodes: u64,
    directories: u64,
    fragments: u64,
    /// Blocks of metadata that were read, and where the next is.
    metadata: HashMap<u64, (Vec<u8>, u64)>,
    /// Fragments that were read.
    unpacked: HashMap<u32, Vec<u8>>,
    parts: Vec<Part<'a>>,
    /// Directories: none is in two places.
    seen: HashSet<u64>,
}

impl<'a> Reader<'a> {
    /// An inode is known by where in its table its block is, and where it is in that.
    fn walk(&mut self, reference: u64, path: &str) -> Option<()> {
        let (block, offset) = (self.inodes.checked_add(reference >> 16)?, reference & 0xffff);
        let kind = u16_at(&self.read(block, offset, 2)?, 0)?;
        match kind {
            2 | 9 => {
                let part = Part { name: path.to_owned(), ..self.content(block, offset, kind == 9)? };
                self.parts.push(part);
                return Some(());
            }
            1 | 8 => {}
            _ => return Some(()),
        }
        if !self.seen.insert(reference) {
            return None;
        }
        let (start, size, within) = if kind == 1 {
            let inode = self.read(block, offset, 32)?;
            (u32_at(&inode, 16)?, u64::from(u16_at(&inode, 24)?), u16_at(&inode, 26)?)
        } else {
            let inode = self.read(block, offset, 40)?;
            (u32_at(&inode, 24)?, u64::from(u32_at(&inode, 20)?), u16_at(&inode, 34)?)
        };
        let listing =
            self.read(self.directories.checked_add(start.into())?, within.into(), size.checked_sub(DOTS)?)?;
        let mut at = 0;
        while at < listing.len() as u64 {
            let (count, block) = (u32_at(&listing, at)?, u32_at(&listing, at + 4)?);
            at += 12;
            for _ in 0..=count {
                let offset = u16_at(&listing, at)?;
                let length = u64::from(u16_at(&listing, at + 6)?) + 1;
                let name = slice(&listing, at + 8, length)?;
                at += 8 + length;
                self.walk(u64::from(block) << 16 | u64::from(offset), &below(path, name))?;
            }
        }
        Some(())
    }

    fn content(&mut self, block: u64, offset: u64, long: bool) -> Option<Part<'a>> {
        let inode = self.read(block, offset, if long { 56 } else { 32 })?;
        let (mut start, size, fragment, within) = if long {
            (u64_at(&inode, 16)?, u64_at(&inode, 24)?, u32_at(&inode, 44)?, u32_at(&inode, 48)?)
        } else {
            let word = |at| u32_at(&inode, at).map(u64::from);
            (word(16)?, word(28)?, u32_at(&inode, 20)?, u32_at(&inode, 24)?)
        };
        let block_size = u64::from(self.block_size);
        let blocks = size.checked_div(block_size)?;
        let table = self.read(block, offset + inode.len() as u64, blocks.checked_mul(4)?)?;
        let mut part = Part::default();
        for word in table.chunks_exact(4) {
            let stored = u32_at(word, 0)?;
            part.pieces.push(self.piece(start, stored)?);
            start += u64::from(stored & !AS_IT_WAS);
        }
        if fragment != NO_FRAGMENT {
            let index = u64::from(fragment);
            let block = u64_at(self.image, self.fragments.checked_add(index / 512 * 8)?)?;
            let entry = self.read(block, index % 512 * 16, 16)?;
            let (at, stored) = (u64_at(&entry, 0)?, u32_at(&entry, 8)?);
            if !self.unpacked.contains_key(&fragment) {
                let bytes = self.piece(at, stored)?.bytes.into_owned();
                self.unpacked.insert(fragment, bytes);
            }
            let tail = slice(&self.unpacked[&fragment], within.into(), size % block_size)?.to_vec();
            let place = match stored & AS_IT_WAS {
                0 => Place::Packed(at, stored.into()),
                _ => Place::Plain(at + u64::from(within)),
            };
            part.pieces.push(Piece { bytes: tail.into(), place });
        }
        Some(part)
    }

    /// A block of files' content.
    fn piece(&self, at: u64, stored: u32) -> Option<Piece<'a>> {
        let length = u64::from(stored & !AS_IT_WAS);
        let bytes = slice(self.image, at, length)?;
        Some(match stored & AS_IT_WAS {
            0 => {
                let unpacked = zstd::bulk::decompress(bytes, self.block_size as usize).ok()?;
                Piece { bytes: unpacked.into(), place: Place::Packed(at, length) }
            }
            _ => Piece { bytes: bytes.into(), place: Place::Plain(at) },
        })
    }

    /// Metadata from an offset in a block on, into the blocks behind it.
    fn read(&mut self, mut block: u64, mut offset: u64, length: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < length {
            if !self.metadata.contains_key(&block) {
                let header = u16_at(self.image, block)?;
                let stored = u64::from(header & !METADATA_AS_IT_WAS);
                let content = slice(self.image, block + 2, stored)?;
                let content = match header & METADATA_AS_IT_WAS {
                    0 => zstd::bulk::decompress(content, METADATA as usize).ok()?,
                    _ => content.to_vec(),
                };
                self.metadata.insert(block, (content, block + 2 + stored));
            }
            let (content, next) = &self.metadata[&block];
            let rest = content.get(offset as usize..)?;
            if rest.is_empty() && content.len() as u64 != METADATA {
                return None;
            }
            bytes.extend_from_slice(&rest[..rest.len().min(length as usize - bytes.len())]);
            (block, offset) = (*next, 0);
        }
        Some(bytes)
    }
}
