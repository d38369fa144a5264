//! The superblock (kernel: `filesystems/ext4/super.rst`).

use super::body::{FIRST, File};
use super::checksum::{SEED, crc32c};
use super::layout::{BLOCKS_PER_GROUP, DESCRIPTOR, Layout};
use super::{Options, extents, journal, record};
use crate::uuid::Uuid;

/// Where it is in the file system.
pub(super) const OFFSET: u64 = 1024;

/// Its size.
pub(super) const LENGTH: usize = 1024;

const MAGIC: u16 = 0xef53;

const HAS_JOURNAL: u32 = 0x4;
const EXT_ATTR: u32 = 0x8;
/// Copies of the superblock are where `s_backup_bgs` says: nowhere.
const SPARSE_SUPER2: u32 = 0x200;

const FILETYPE: u32 = 0x2;
const EXTENTS: u32 = 0x40;
const BITS_64: u32 = 0x80;
/// Bitmaps and tables need not be in their group.
const FLEX_BG: u32 = 0x200;
/// Checksums start from `s_checksum_seed`.
const CSUM_SEED: u32 = 0x2000;

const LARGE_FILE: u32 = 0x2;
const DIR_NLINK: u32 = 0x20;
const EXTRA_ISIZE: u32 = 0x40;
const METADATA_CSUM: u32 = 0x400;

/// No number of mounts after which a check is due.
const NO_MOUNT_COUNT: u16 = 0xffff;

/// Extended attributes and ACLs work without being asked for.
const USER_XATTR_AND_ACL: u32 = 0xc;

/// Signed: in the one way of all architectures, should somebody ever index a directory.
const SIGNED_HASH: u32 = 1;

/// The kind of the checksums.
const CRC32C: u8 = 1;

/// The superblock, its checksum included.
pub(super) fn superblock(layout: &Layout, files: &[File<'_>], options: &Options, uuid: Uuid) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let time = options.time as u32;
    put(0x000, &layout.all_inodes().to_le_bytes());
    put(0x004, &layout.blocks.to_le_bytes());
    put(0x00c, &(layout.blocks - layout.used).to_le_bytes());
    put(0x010, &(layout.all_inodes() - layout.used_inodes).to_le_bytes());
    put(0x018, &2u32.to_le_bytes()); // blocks of 1024 << 2
    put(0x01c, &2u32.to_le_bytes()); // and so clusters
    put(0x020, &BLOCKS_PER_GROUP.to_le_bytes());
    put(0x024, &BLOCKS_PER_GROUP.to_le_bytes());
    put(0x028, &layout.inodes_per_group.to_le_bytes());
    put(0x030, &time.to_le_bytes()); // written
    put(0x036, &NO_MOUNT_COUNT.to_le_bytes());
    put(0x038, &MAGIC.to_le_bytes());
    put(0x03a, &1u16.to_le_bytes()); // unmounted cleanly
    put(0x03c, &1u16.to_le_bytes()); // after an error: go on
    put(0x040, &time.to_le_bytes()); // checked
    put(0x04c, &1u32.to_le_bytes()); // revision: inodes have a size
    put(0x054, &FIRST.to_le_bytes());
    put(0x058, &(record::LENGTH as u16).to_le_bytes());
    let journal = files.iter().zip(&layout.places).find(|(file, _)| file.number == journal::NUMBER);
    let with_journal = if journal.is_some() { HAS_JOURNAL } else { 0 };
    put(0x05c, &(EXT_ATTR | SPARSE_SUPER2 | with_journal).to_le_bytes());
    put(0x060, &(FILETYPE | EXTENTS | BITS_64 | FLEX_BG | CSUM_SEED).to_le_bytes());
    put(0x064, &(LARGE_FILE | DIR_NLINK | EXTRA_ISIZE | METADATA_CSUM).to_le_bytes());
    put(0x068, &uuid.0);
    put(0x078, options.label.as_bytes());
    if let Some((file, place)) = journal {
        put(0x0e0, &journal::NUMBER.to_le_bytes());
        // A copy of where it is, for e2fsck, should the inode be lost.
        put(0x0fd, &[1]);
        put(0x10c, &extents::root(file.body.blocks(), place.data, place.leaves));
        put(0x14c, &(file.body.size() as u32).to_le_bytes());
    }
    put(0x0fe, &(DESCRIPTOR as u16).to_le_bytes());
    put(0x100, &USER_XATTR_AND_ACL.to_le_bytes());
    put(0x108, &time.to_le_bytes()); // made
    put(0x15c, &(record::EXTRA as u16).to_le_bytes());
    put(0x15e, &(record::EXTRA as u16).to_le_bytes());
    put(0x160, &SIGNED_HASH.to_le_bytes());
    let groups_in_one = layout.groups.next_power_of_two().trailing_zeros().max(1);
    put(0x174, &[groups_in_one as u8, CRC32C]);
    put(0x270, &SEED.to_le_bytes());
    for at in [0x274, 0x276, 0x277] {
        put(at, &[(options.time >> 32) as u8]); // upper bits of when it was written, made, checked
    }
    let checksum = crc32c(!0, &bytes[..LENGTH - 4]);
    bytes[LENGTH - 4..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}
