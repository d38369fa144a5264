//! Archives: cpio, which a ramdisk is, and tar, which a layer is.

use std::io::Read;

use super::{Part, all, slice};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The bytes of something compressed; none if it is not.
pub(super) fn unpack(bytes: &[u8]) -> Option<Vec<u8>> {
    match bytes {
        _ if bytes.starts_with(GZIP) => all(Ok(flate2::read::MultiGzDecoder::new(bytes))),
        _ if bytes.starts_with(ZSTD) => all(zstd::Decoder::new(bytes)),
        _ => None,
    }
}

/// A ramdisk, compressed or not.
pub(super) fn ramdisk(image: &[u8]) -> Option<Vec<Part<'_>>> {
    if image.starts_with(b"0707") {
        return cpio(image);
    }
    let plain = unpack(image)?;
    Some(cpio(&plain)?.into_iter().map(|part| part.unpacked("")).collect())
}

/// The "newc" form, whose headers are eight hexadecimal digits for each number.
fn cpio(archive: &[u8]) -> Option<Vec<Part<'_>>> {
    const HEADER: u64 = 110;
    let (mut parts, mut at) = (Vec::new(), 0u64);
    loop {
        let header = slice(archive, at, HEADER)?;
        let number = |index: usize| {
            let field = header.get(6 + 8 * index..14 + 8 * index)?;
            u64::from_str_radix(std::str::from_utf8(field).ok()?, 16).ok()
        };
        let (size, name_size) = (number(6)?, number(11)?);
        let name = slice(archive, at + HEADER, name_size)?;
        let name = rooted(name.strip_suffix(b"\0")?);
        let data = (at + HEADER + name_size).next_multiple_of(4);
        parts.push(Part::derived(
            format!("the header of {name}"),
            at,
            slice(archive, at, HEADER + name_size)?,
        ));
        if name == "/TRAILER!!!" {
            return Some(parts);
        }
        parts.push(Part::plain(name, data, slice(archive, data, size)?));
        at = (data + size).next_multiple_of(4);
    }
}

/// A tar archive: what is in its files, and their headers.
pub(super) fn tar(bytes: &[u8]) -> Option<Vec<Part<'_>>> {
    let mut archive = tar::Archive::new(bytes);
    let (mut parts, mut end) = (Vec::new(), 0);
    for entry in archive.entries().ok()? {
        let mut entry = entry.ok()?;
        let name = rooted(&entry.path_bytes());
        let at = entry.raw_file_position();
        parts.push(Part::derived(format!("the header of {name}"), end, slice(bytes, end, at - end)?));
        let size = entry.size();
        parts.push(Part::plain(name, at, slice(bytes, at, size)?));
        end = (at + size).next_multiple_of(512);
        std::io::copy(&mut entry.by_ref().take(size), &mut std::io::sink()).ok()?;
    }
    Some(parts)
}

/// An entry's name as a path: the root's is a dot.
fn rooted(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let name = name.trim_start_matches("./").trim_end_matches('/');
    format!("/{}", if name == "." { "" } else { name })
}
