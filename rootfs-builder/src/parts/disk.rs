//! Disks: what is in their partitions. Kata's have the same boot record, wherever the first partition begins.

use super::{METADATA, Part, erofs, ext4, slice, u32_at, u64_at};

const SECTOR: u64 = 512;
/// The type of the one partition in the record before a GPT.
const PROTECTIVE: u8 = 0xee;
const VERITY: &[u8] = b"verity\0\0";

pub(super) fn parts(image: &[u8]) -> Option<Vec<Part<'_>>> {
    let partitions = if *image.get(446 + 4)? == PROTECTIVE { gpt(image)? } else { mbr(image)? };
    let mut parts = Vec::new();
    for (name, start, length) in partitions {
        let bytes = slice(image, start, length)?;
        let name = format!("partition {name}");
        let inner = erofs::parts(bytes).or_else(|| ext4::parts(bytes));
        // Kata's has no superblock: it is what comes behind the files and is no file system.
        if bytes.starts_with(VERITY) || (inner.is_none() && !parts.is_empty()) {
            parts.push(Part::derived(format!("{name}: the hash tree"), start, bytes));
            continue;
        }
        parts.extend(inner.into_iter().flatten().map(|part| part.inside(&name, start)));
        parts.push(Part::derived(format!("{name}: {METADATA}"), start, bytes));
    }
    Some(parts)
}

/// The name, the start and the length of each.
type Partition = (String, u64, u64);

fn gpt(image: &[u8]) -> Option<Vec<Partition>> {
    let array = u64_at(image, SECTOR + 72)?.checked_mul(SECTOR)?;
    let (count, size) = (u32_at(image, SECTOR + 80)?, u64::from(u32_at(image, SECTOR + 84)?));
    let mut partitions = Vec::new();
    for index in 0..u64::from(count) {
        let entry = slice(image, array.checked_add(index * size)?, size)?;
        let (first, last) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
        if first != 0 {
            let units: Vec<_> =
                slice(entry, 56, 72)?.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
            let name = String::from_utf16_lossy(&units).trim_end_matches('\0').to_owned();
            let sectors = last.checked_sub(first)?.checked_add(1)?;
            partitions.push((name, first.checked_mul(SECTOR)?, sectors.checked_mul(SECTOR)?));
        }
    }
    Some(partitions)
}

fn mbr(image: &[u8]) -> Option<Vec<Partition>> {
    let mut partitions = Vec::new();
    for index in 0..4 {
        let entry = slice(image, 446 + 16 * index, 16)?;
        let (start, sectors) = (u64::from(u32_at(entry, 8)?), u64::from(u32_at(entry, 12)?));
        if sectors != 0 {
            partitions.push(((index + 1).to_string(), start * SECTOR, sectors * SECTOR));
        }
    }
    Some(partitions)
}
