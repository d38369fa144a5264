//! The master boot record: a table of four partitions at the end of the first sector, and no program before
//! it.

use std::ops::Range;

use super::SECTOR;
use crate::uuid::Uuid;

/// How many partitions there can be.
pub(super) const ENTRIES: usize = 4;

/// The type of a Linux file system, whichever.
const LINUX: u8 = 0x83;

/// The type of the one partition that a GPT hides behind.
const PROTECTIVE: u8 = 0xee;

/// The number by which the kernel tells this disk from others. Zero would stand for none.
pub(super) fn signature(uuid: Uuid) -> u32 {
    u32::from_le_bytes([uuid.0[0], uuid.0[1], uuid.0[2], uuid.0[3]]).max(1)
}

/// The record of a disk with these partitions.
pub(super) fn record(partitions: &[Range<u64>], signature: u32) -> [u8; SECTOR as usize] {
    let entries =
        partitions.iter().map(|range| entry(LINUX, range, cylinders(range.start), cylinders(range.end - 1)));
    sector(entries, signature)
}

/// The record before a GPT: it keeps tools that know none from taking the disk for an empty one (UEFI,
/// 5.2.3).
pub(super) fn protective(sectors: u64) -> [u8; SECTOR as usize] {
    let rest = 1..sectors.min(1 + u64::from(u32::MAX));
    sector([entry(PROTECTIVE, &rest, [0x00, 0x02, 0x00], [0xff; 3])].into_iter(), 0)
}

fn sector(entries: impl Iterator<Item = [u8; 16]>, signature: u32) -> [u8; SECTOR as usize] {
    let mut sector = [0; SECTOR as usize];
    sector[440..444].copy_from_slice(&signature.to_le_bytes());
    for (place, entry) in sector[446..].chunks_mut(16).zip(entries) {
        place.copy_from_slice(&entry);
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

fn entry(kind: u8, range: &Range<u64>, first: [u8; 3], last: [u8; 3]) -> [u8; 16] {
    let mut entry = [0; 16];
    entry[1..4].copy_from_slice(&first);
    entry[4] = kind;
    entry[5..8].copy_from_slice(&last);
    // What does not fit into 32 bits was refused, or is not meant to be exact.
    entry[8..12].copy_from_slice(&(range.start as u32).to_le_bytes());
    entry[12..].copy_from_slice(&((range.end - range.start) as u32).to_le_bytes());
    entry
}

/// A sector beyond what cylinders can say.
const NO_CYLINDER: [u8; 3] = [0xfe, 0xff, 0xff];

/// Head, sector and cylinder on a disk of 255 heads with 63 sectors each: what old tools expect beside the
/// number.
fn cylinders(sector: u64) -> [u8; 3] {
    let (cylinder, head, sector) = (sector / (255 * 63), sector / 63 % 255, sector % 63 + 1);
    if cylinder > 1023 {
        return NO_CYLINDER;
    }
    [head as u8, sector as u8 | (cylinder >> 8 << 6) as u8, cylinder as u8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_sector_in_two_ways() {
        let record = record(std::slice::from_ref(&(2048..4096)), 0x1234_5678);
        assert_eq!(record[440..446], [0x78, 0x56, 0x34, 0x12, 0, 0]);
        assert_eq!(record[446..462], [0, 32, 33, 0, 0x83, 65, 1, 0, 0, 8, 0, 0, 0, 8, 0, 0]);
        assert_eq!(record[510..], [0x55, 0xaa]);
        assert!(record[..440].iter().chain(&record[462..510]).all(|byte| *byte == 0));
    }

    #[test]
    fn cylinders_end_at_1023() {
        assert_eq!(cylinders(1024 * 255 * 63 - 1), [254, 0xff, 0xff]);
        assert_eq!(cylinders(1024 * 255 * 63), NO_CYLINDER);
        assert_eq!(cylinders(600 * 255 * 63), [0, 0x81, 0x58]);
    }
}
