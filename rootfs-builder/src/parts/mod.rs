//! What is where in an image: its files, each with the places of its bytes. For whoever has found that two images differ,
//! and wants to know in what.
//!
//! The readers here are of what our own writers write, and no more: a layout that is not ours is told as one that cannot be
//! read. Nothing is checked but what would lead beyond the image, or around in circles.

mod archive;
mod disk;
mod erofs;
mod ext4;
mod oci;
mod squashfs;
mod uki;

use std::borrow::Cow;
use std::io::Read;

use guest_formats::kata;

use crate::format::Format;

/// What is not in any part.
const METADATA: &str = "its own metadata";

/// Something in an image that has a name.
#[derive(Debug, Default)]
pub(crate) struct Part<'a> {
    /// "/sbin/init", "partition root: /sbin/init".
    pub(crate) name: String,
    /// Made of other parts, like a hash tree: it differs because they do.
    pub(crate) is_derived: bool,
    /// Its bytes, one piece after the other.
    pieces: Vec<Piece<'a>>,
}

#[derive(Debug)]
struct Piece<'a> {
    bytes: Cow<'a, [u8]>,
    place: Place,
}

/// Where in the image something is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// As it is, from here on.
    Plain(u64),
    /// In so many bytes from here on, which are compressed.
    Packed(u64, u64),
    /// Somewhere in what is compressed as a whole.
    Unknown,
}

/// The parts of the image that a file of a set is: none if it is no image, or not one of ours.
pub(crate) fn of<'a>(file: &str, image: &'a [u8]) -> Option<Vec<Part<'a>>> {
    let is_extension = file.starts_with("extension-") && file.ends_with(".img");
    let format = Format::ALL.into_iter().find(|format| format.file() == file);
    let mut parts = match format.or(is_extension.then_some(Format::Kata(kata::Head::None)))? {
        Format::Initrd(_) => archive::ramdisk(image),
        Format::Erofs => erofs::parts(image),
        Format::Squashfs => squashfs::parts(image),
        Format::Ext4 => ext4::parts(image),
        Format::Disk(_) | Format::Kata(_) => disk::parts(image),
        Format::Oci => oci::parts(image),
        Format::Uki => uki::parts(image),
    }?;
    parts.push(Part::derived(METADATA, 0, image));
    Some(parts)
}

/// Which part an offset of the image is in, in words: "/sbin/init at its byte 17". Several are in one place if they have
/// the same content, or are packed together.
pub(crate) fn at(parts: &[Part<'_>], offset: u64) -> Option<String> {
    let found = |is_derived: bool| parts.iter().filter(move |part| part.is_derived == is_derived);
    let mut named = found(false).filter_map(|part| part.at(offset));
    match (named.next(), named.count()) {
        (Some(first), 0) => Some(first),
        (Some(first), others) => Some(format!("{first}, or one of {others} others in the same place")),
        (None, _) => found(true).find_map(|part| part.at(offset)),
    }
}

impl<'a> Part<'a> {
    /// One that is in the image as it is.
    fn plain(name: impl Into<String>, at: u64, bytes: &'a [u8]) -> Self {
        let mut part = Part { name: name.into(), ..Part::default() };
        part.push(at, bytes);
        part
    }

    fn derived(name: impl Into<String>, at: u64, bytes: &'a [u8]) -> Self {
        Part { is_derived: true, ..Part::plain(name, at, bytes) }
    }

    fn push(&mut self, at: u64, bytes: &'a [u8]) {
        self.pieces.push(Piece { bytes: bytes.into(), place: Place::Plain(at) });
    }

    /// The same as part of something that begins at `base`.
    fn inside(mut self, of: &str, base: u64) -> Self {
        self.name = format!("{of}: {}", self.name);
        for piece in &mut self.pieces {
            match &mut piece.place {
                Place::Plain(at) | Place::Packed(at, _) => *at += base,
                Place::Unknown => {}
            }
        }
        self
    }

    /// The same as part of something that is compressed as a whole.
    fn unpacked(self, of: &str) -> Part<'static> {
        let owned =
            |piece: Piece<'a>| Piece { bytes: piece.bytes.into_owned().into(), place: Place::Unknown };
        Part {
            name: if of.is_empty() { self.name } else { format!("{of}: {}", self.name) },
            is_derived: self.is_derived,
            pieces: self.pieces.into_iter().map(owned).collect(),
        }
    }

    fn at(&self, offset: u64) -> Option<String> {
        let mut from = 0;
        for piece in &self.pieces {
            let length = piece.bytes.len() as u64;
            match piece.place {
                Place::Plain(at) if (at..at + length).contains(&offset) => {
                    return Some(match self.name.ends_with(METADATA) {
                        true => self.name.clone(),
                        false => format!("{} at its byte {}", self.name, from + offset - at),
                    });
                }
                Place::Packed(at, packed) if (at..at + packed).contains(&offset) => {
                    return Some(format!("{} in what is packed from its byte {from} on", self.name));
                }
                _ => from += length,
            }
        }
        None
    }

    /// The first byte in which two parts differ.
    pub(crate) fn first_difference(&self, other: &Part<'_>) -> Option<u64> {
        let (mut left, mut right) = (self.chunks(), other.chunks());
        let (mut a, mut b): (&[u8], &[u8]) = (&[], &[]);
        let mut offset = 0;
        loop {
            a = if a.is_empty() { left.next().unwrap_or_default() } else { a };
            b = if b.is_empty() { right.next().unwrap_or_default() } else { b };
            let length = a.len().min(b.len());
            if a[..length] != b[..length] {
                let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
                return Some(offset + same as u64);
            }
            if length == 0 {
                return (a.len() != b.len()).then_some(offset);
            }
            offset += length as u64;
            (a, b) = (&a[length..], &b[length..]);
        }
    }

    fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| &*piece.bytes).filter(|bytes| !bytes.is_empty())
    }

    /// Where in the image a byte of this part is, if that can be said.
    pub(crate) fn place(&self, offset: u64) -> Option<u64> {
        let mut from = 0;
        for piece in &self.pieces {
            let length = piece.bytes.len() as u64;
            if (from..from + length).contains(&offset) {
                return if let Place::Plain(at) = piece.place { Some(at + offset - from) } else { None };
            }
            from += length;
        }
        None
    }
}

/// `length` bytes from `at` on, if the image is that long.
fn slice(image: &[u8], at: u64, length: u64) -> Option<&[u8]> {
    image.get(usize::try_from(at).ok()?..usize::try_from(at.checked_add(length)?).ok()?)
}

fn u16_at(bytes: &[u8], at: u64) -> Option<u16> {
    Some(u16::from_le_bytes(slice(bytes, at, 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: u64) -> Option<u32> {
    Some(u32::from_le_bytes(slice(bytes, at, 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: u64) -> Option<u64> {
    Some(u64::from_le_bytes(slice(bytes, at, 8)?.try_into().ok()?))
}

/// A path with one more name.
fn below(directory: &str, name: &[u8]) -> String {
    format!("{directory}/{}", String::from_utf8_lossy(name))
}

/// All of a decoder's output, unless it fails.
fn all(decoder: std::io::Result<impl Read>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    decoder.ok()?.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
pub(crate) mod tests;
