//! An inode (kernel: `filesystems/ext4/inodes.rst`).

use super::body::{Body, File};
use super::checksum::{crc32c, inode_seed};
use super::layout::{Place, beside};
use super::xattrs::Xattrs;
use super::{BLOCK, extents};

/// The size of an inode.
pub(super) const LENGTH: usize = 256;

/// The part of it that says where the content is, or is the content.
pub(super) const INLINE: usize = 60;

/// Where extended attributes begin, behind the fields.
pub(super) const FIELDS: usize = 128 + EXTRA;

/// How many bytes of fields there are beyond the first 128.
pub(super) const EXTRA: usize = 32;

/// The bits of a mode that tell the type.
pub(super) const TYPE: u16 = 0o170_000;

/// A directory's.
pub(super) const TYPE_DIRECTORY: u16 = 0o040_000;

/// The content is found by extents.
const EXTENTS: u32 = 0x8_0000;

/// A file's inode, checksum included.
pub(super) fn record(file: &File<'_>, place: &Place, time: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let sectors = (file.body.blocks() + beside(file)) * (BLOCK as u64 / 512);
    put(0x00, &file.mode.to_le_bytes());
    put(0x02, &(file.uid as u16).to_le_bytes());
    put(0x04, &(file.body.size() as u32).to_le_bytes());
    put(0x18, &(file.gid as u16).to_le_bytes());
    put(0x1a, &file.links.to_le_bytes());
    put(0x1c, &(sectors as u32).to_le_bytes()); // at most 170 GiB of them
    match &file.body {
        Body::Inline { bytes, .. } => put(0x28, bytes),
        Body::Blocks { .. } | Body::Content(_) => {
            put(0x20, &EXTENTS.to_le_bytes());
            put(0x28, &extents::root(file.body.blocks(), place.data, place.leaves));
        }
    }
    if file.xattrs.has_block() {
        put(0x68, &place.xattrs.to_le_bytes());
    }
    put(0x6c, &((file.body.size() >> 32) as u32).to_le_bytes());
    put(0x78, &((file.uid >> 16) as u16).to_le_bytes());
    put(0x7a, &((file.gid >> 16) as u16).to_le_bytes());
    put(0x80, &(EXTRA as u16).to_le_bytes());
    let (seconds, epoch) = split(time);
    // Access, change, modification, creation.
    for (at, extra) in [(0x08, 0x8c), (0x0c, 0x84), (0x10, 0x88), (0x90, 0x94)] {
        put(at, &seconds.to_le_bytes());
        put(extra, &epoch.to_le_bytes());
    }
    if let Xattrs::Inode(xattrs) = &file.xattrs {
        put(FIELDS, xattrs);
    }
    let checksum = crc32c(inode_seed(file.number), &bytes);
    bytes[0x7c..0x7e].copy_from_slice(&(checksum as u16).to_le_bytes());
    bytes[0x82..0x84].copy_from_slice(&((checksum >> 16) as u16).to_le_bytes());
    bytes
}

/// The seconds are signed, and two more bits say how often 2^32 is to be added.
fn split(time: u64) -> (u32, u32) {
    let low = time as u32;
    let epoch = (time.wrapping_sub(i64::from(low as i32) as u64) >> 32) & 3;
    (low, epoch as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_after_2038_have_an_epoch() {
        let cases = [0, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x1_0000_0000, super::super::TIME_MAX];
        let expected =
            [(0, 0), (0x7fff_ffff, 0), (0x8000_0000, 1), (0xffff_ffff, 1), (0, 1), (0x7fff_ffff, 3)];
        assert_eq!(cases.map(split), expected);
        for time in cases {
            let (seconds, epoch) = split(time);
            assert_eq!(i64::from(seconds as i32) + (i64::from(epoch) << 32), time as i64);
        }
    }
}
