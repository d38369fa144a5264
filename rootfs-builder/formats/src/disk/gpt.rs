//! The GUID partition table (UEFI, 5.3): behind the protective record a header and an array of entries, and a
//! copy of both at the end of the disk, where the header is last.

use std::ops::Range;

use super::{FORMAT, SECTOR, mbr};
use crate::error::Error;
use crate::uuid::Uuid;

/// How many partitions there can be: what every tool writes, and some take for granted.
pub(super) const ENTRIES: usize = 128;

/// The sectors of the copy.
pub(super) const COPY: u64 = ARRAY + 1;

const ENTRY: usize = 128;

/// The sectors of the array.
const ARRAY: u64 = (ENTRIES * ENTRY) as u64 / SECTOR;

const HEADER: usize = 92;

const NAME: usize = 36;

/// Discoverable Partitions Specification: not to be mounted for writing.
const READ_ONLY: u64 = 1 << 60;

/// A partition.
pub(super) struct Entry {
    pub(super) kind: Uuid,
    pub(super) uuid: Uuid,
    pub(super) range: Range<u64>,
    pub(super) read_only: bool,
    pub(super) name: [u16; NAME],
}

/// A name in the table's form.
pub(super) fn name(text: &str) -> Result<[u16; NAME], Error> {
    let units: Vec<_> = text.encode_utf16().collect();
    if units.len() > NAME || units.contains(&0) {
        let what = format!("the partition's name {text:?} is none of at most {NAME} characters");
        return Err(Error::Limit { format: FORMAT, what });
    }
    let mut name = [0; NAME];
    name[..units.len()].copy_from_slice(&units);
    Ok(name)
}

/// What goes where on a disk of so many sectors: pieces with the sector that each begins at.
pub(super) fn table(entries: &[Entry], disk: Uuid, sectors: u64) -> Vec<(u64, Vec<u8>)> {
    let mut array: Vec<u8> = entries.iter().flat_map(entry).collect();
    array.resize(ENTRIES * ENTRY, 0);
    let last = sectors - 1;
    let header = |own, other, array_at| {
        header(&Header { own, other, array_at, usable: 2 + ARRAY..last - ARRAY, disk, array: crc(&array) })
    };
    let first = [&mbr::protective(sectors)[..], &header(1, last, 2), &array].concat();
    let copy = [&array[..], &header(last, 1, last - ARRAY)].concat();
    vec![(0, first), (last - ARRAY, copy)]
}

struct Header {
    own: u64,
    other: u64,
    array_at: u64,
    usable: Range<u64>,
    disk: Uuid,
    array: u32,
}

fn header(header: &Header) -> [u8; SECTOR as usize] {
    let mut sector = [0; SECTOR as usize];
    let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"EFI PART");
    put(8, &0x0001_0000u32.to_le_bytes()); // revision 1.0
    put(12, &(HEADER as u32).to_le_bytes());
    put(24, &header.own.to_le_bytes());
    put(32, &header.other.to_le_bytes());
    put(40, &header.usable.start.to_le_bytes());
    put(48, &(header.usable.end - 1).to_le_bytes());
    put(56, &guid(header.disk));
    put(72, &header.array_at.to_le_bytes());
    put(80, &(ENTRIES as u32).to_le_bytes());
    put(84, &(ENTRY as u32).to_le_bytes());
    put(88, &header.array.to_le_bytes());
    let checksum = crc(&sector[..HEADER]);
    sector[16..20].copy_from_slice(&checksum.to_le_bytes());
    sector
}

fn entry(entry: &Entry) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &guid(entry.kind));
    put(16, &guid(entry.uuid));
    put(32, &entry.range.start.to_le_bytes());
    put(40, &(entry.range.end - 1).to_le_bytes());
    put(48, &if entry.read_only { READ_ONLY } else { 0 }.to_le_bytes());
    for (index, unit) in entry.name.iter().enumerate() {
        put(56 + 2 * index, &unit.to_le_bytes());
    }
    bytes
}

/// The first three numbers of a GUID are little endian here, and big endian in its text (UEFI, appendix A).
fn guid(uuid: Uuid) -> [u8; 16] {
    let mut bytes = uuid.0;
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_is_as_the_specification_shows_it() {
        let efi_system = Uuid(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b_u128.to_be_bytes());
        let expected =
            [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
        assert_eq!(guid(efi_system), expected);
    }

    #[test]
    fn names_are_utf_16() {
        assert_eq!(name("root").unwrap()[..5], [114, 111, 111, 116, 0]);
        assert!(name(&"ä".repeat(36)).is_ok());
        let long = name(&"x".repeat(37)).unwrap_err().to_string();
        assert!(long.starts_with("disk: the partition's name \"xxx"), "{long}");
        assert!(name("a\0b").is_err());
    }
}
