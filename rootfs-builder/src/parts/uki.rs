//! A unified kernel image: the sections of a PE program, one of which is a ramdisk.

use super::{Part, archive, slice, u16_at, u32_at};

pub(super) fn parts(image: &[u8]) -> Option<Vec<Part<'_>>> {
    let coff = u64::from(u32_at(image, 0x3c)?) + 4;
    let sections = u64::from(u16_at(image, coff + 2)?);
    let table = coff + 20 + u64::from(u16_at(image, coff + 16)?);
    let mut parts = Vec::new();
    for entry in (0..sections).map(|index| table + index * 40) {
        let name = slice(image, entry, 8)?;
        let name = format!("section {}", String::from_utf8_lossy(name).trim_end_matches('\0'));
        let (length, raw) = (u32_at(image, entry + 8)?, u32_at(image, entry + 16)?);
        let at = u64::from(u32_at(image, entry + 20)?);
        let bytes = slice(image, at, length.min(raw).into())?;
        let inner = archive::ramdisk(bytes).unwrap_or_default();
        // A section that is read to its files need not be told as a whole.
        let is_derived = !inner.is_empty();
        parts.extend(inner.into_iter().filter(|part| !part.is_derived).map(|part| part.unpacked(&name)));
        parts.push(Part { is_derived, ..Part::plain(name, at, bytes) });
    }
    Some(parts)
}
