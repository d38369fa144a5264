//! The "newc" cpio form that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst in its tree).
//!
//! Each entry is a header of 13 numbers as eight hexadecimal digits, the name with a NUL, padding to four bytes, the
//! content, padding again.

use std::collections::BTreeMap;

use crate::{Entry, Error, Kind};

const MAGIC: &[u8] = b"070701";
const TRAILER: &str = "TRAILER!!!";

const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;

/// The numbers of a header that differ between entries. Owner, group, time and the device of the file system they
/// came from are always zero: they are nobody's, from nowhere, and not from a time.
#[derive(Default)]
struct Header {
    inode: u32,
    mode: u32,
    links: u32,
    size: u32,
    device: (u32, u32),
}

pub(crate) fn write(entries: &BTreeMap<String, Entry>) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    // Inodes count from one: no two entries share one, or the kernel would take them for hard links.
    for (inode, (name, entry)) in (1..).zip(entries) {
        let (kind, content, device) = match &entry.kind {
            Kind::File(content) => (S_IFREG, content.as_slice(), (0, 0)),
            Kind::Directory { .. } => (S_IFDIR, &[][..], (0, 0)),
            Kind::Symlink(target) => (S_IFLNK, target.as_bytes(), (0, 0)),
            Kind::CharDevice { major, minor } => (S_IFCHR, &[][..], (*major, *minor)),
        };
        let size = u32::try_from(content.len()).map_err(|_| Error::TooLarge { path: name.clone() })?;
        let links = if kind == S_IFDIR { 2 } else { 1 };
        append(&mut out, name, &Header { inode, mode: kind | entry.mode, links, size, device }, content);
    }
    append(&mut out, TRAILER, &Header { links: 1, ..Header::default() }, &[]);
    Ok(out)
}

fn append(out: &mut Vec<u8>, name: &str, header: &Header, content: &[u8]) {
    let Header { inode, mode, links, size, device } = *header;
    let name_size = name.len() as u32 + 1; // names are shorter than PATH_MAX
    let (uid, gid, mtime, from_major, from_minor, check) = (0, 0, 0, 0, 0, 0);
    out.extend(MAGIC);
    for number in [
        inode, mode, uid, gid, links, mtime, size, from_major, from_minor, device.0, device.1, name_size,
        check,
    ] {
        out.extend(format!("{number:08x}").bytes());
    }
    out.extend(name.bytes());
    out.push(0);
    pad(out);
    out.extend(content);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}
