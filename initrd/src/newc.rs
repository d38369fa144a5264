//! The "newc" cpio form that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst
//! in its tree).
//!
//! Each entry is a header of 13 numbers as eight hexadecimal digits, the name with a NUL, padding to four
//! bytes, the content, padding again.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use guest_tree::{Kind, Node, Tree};

use crate::{Error, unsupported};

const MAGIC: &[u8] = b"070701";
const HEADER_LENGTH: u64 = 6 + 13 * 8;

/// The name of the entry that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";

/// The kernel skips an entry whose name, or whose target, has more bytes with its NUL (init/initramfs.c,
/// do_header).
const PATH_MAX: usize = 4096;

const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFIFO: u32 = 0o010_000;

/// The numbers of a header that differ between entries. The device of the file system they came from is
/// always zero: they come from none.
#[derive(Default)]
struct Header {
    inode: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    time: u32,
    size: u32,
    device: (u32, u32),
}

/// Refuses what the kernel would refuse, or would take for something else.
pub(crate) fn check(path: &Path, node: &Node) -> Result<(), Error> {
    let refused = |what| Err(unsupported(path, what));
    let name = name(path);
    if name.len() >= PATH_MAX {
        return refused("has a path of more than the kernel's 4095 bytes");
    }
    if name.contains(&0) {
        return refused("has a NUL in its path");
    }
    if name == TRAILER {
        return refused("has the name that ends an archive");
    }
    if !node.attributes.xattrs.is_empty() {
        return refused("has extended attributes, for which a ramdisk has no place");
    }
    match &node.kind {
        Kind::File(content) if u32::try_from(content.len()).is_err() => refused("is larger than 4 GiB"),
        Kind::Symlink(target) => match target.as_os_str().as_bytes() {
            [] => refused("is a symbolic link to nowhere"),
            target if target.len() >= PATH_MAX => {
                refused("has a target of more than the kernel's 4095 bytes")
            }
            target if target.contains(&0) => refused("has a NUL in its target"),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// How long the archive is.
pub(crate) fn length(tree: &Tree) -> u64 {
    let entry = |name: &[u8], content: u64| {
        (HEADER_LENGTH + name.len() as u64 + 1).next_multiple_of(4) + content.next_multiple_of(4)
    };
    let entries = tree.iter().map(|(path, node)| entry(name(path), content_length(node)));
    entries.sum::<u64>() + entry(TRAILER, 0)
}

/// Writes entries that were checked.
pub(crate) fn write(tree: &Tree, time: u32, out: &mut dyn Write) -> Result<(), Error> {
    // Inodes count from one: no two entries share one, or the kernel would take them for hard links.
    for (inode, (path, node)) in (1..).zip(tree.iter()) {
        let (kind, links, device) = match &node.kind {
            Kind::File(_) => (S_IFREG, 1, (0, 0)),
            Kind::Directory => (S_IFDIR, 2, (0, 0)),
            Kind::Symlink(_) => (S_IFLNK, 1, (0, 0)),
            Kind::CharDevice { major, minor } => (S_IFCHR, 1, (*major, *minor)),
            Kind::Fifo => (S_IFIFO, 1, (0, 0)),
        };
        let size = content_length(node) as u32; // checked
        let attributes = &node.attributes;
        let (mode, uid, gid) = (kind | attributes.mode, attributes.uid, attributes.gid);
        head(out, name(path), &Header { inode, mode, uid, gid, links, time, size, device })?;
        match &node.kind {
            Kind::File(content) => {
                let failed = |source| Error::Content { path: path.to_owned(), source };
                copy(&mut *content.reader().map_err(failed)?, out, failed)?;
            }
            Kind::Symlink(target) => out.write_all(target.as_os_str().as_bytes())?,
            Kind::Directory | Kind::CharDevice { .. } | Kind::Fifo => {}
        }
        pad(out, u64::from(size))?;
    }
    Ok(head(out, TRAILER, &Header { links: 1, ..Header::default() })?)
}

/// The kernel unpacks at "/", so names have no leading slash. The root's own entry, as "." like everywhere
/// else, gives it its mode and owner.
fn name(path: &Path) -> &[u8] {
    match path.as_os_str().as_bytes() {
        [] => b".",
        name => name,
    }
}

fn content_length(node: &Node) -> u64 {
    match &node.kind {
        Kind::File(content) => content.len(),
        Kind::Symlink(target) => target.as_os_str().len() as u64,
        Kind::Directory | Kind::CharDevice { .. } | Kind::Fifo => 0,
    }
}

fn head(out: &mut dyn Write, name: &[u8], header: &Header) -> io::Result<()> {
    let Header { inode, mode, uid, gid, links, time, size, device } = *header;
    let name_size = name.len() as u32 + 1; // names are shorter than PATH_MAX
    let (from_major, from_minor, check) = (0, 0, 0);
    out.write_all(MAGIC)?;
    for number in [
        inode, mode, uid, gid, links, time, size, from_major, from_minor, device.0, device.1, name_size,
        check,
    ] {
        write!(out, "{number:08x}")?;
    }
    out.write_all(name)?;
    out.write_all(&[0])?;
    pad(out, HEADER_LENGTH + u64::from(name_size))
}

/// Tells a source that fails from a destination that does.
fn copy(from: &mut dyn Read, out: &mut dyn Write, failed: impl Fn(io::Error) -> Error) -> Result<(), Error> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer).map_err(&failed)? {
            0 => return Ok(()),
            n => out.write_all(&buffer[..n])?,
        }
    }
}

/// Fills up to four bytes after `length` ones. All that precedes them is a multiple of four.
fn pad(out: &mut dyn Write, length: u64) -> io::Result<()> {
    let missing = (length.next_multiple_of(4) - length) as usize;
    out.write_all(&[0; 3][..missing])
}
