//! A layer: a tar archive of the tree in its order (OCI image specification, `layer.md`). Entries are "ustar"
//! ones (POSIX, pax), with a pax header before those that need it: for long names, large numbers and extended
//! attributes.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use guest_tree::{Attributes, Content, Kind, Node, Tree};
use tar::{Builder, EntryType, Header};

use super::FORMAT;
use crate::error::{Error, reading, unsupported, writing};
use crate::inodes::inodes;

/// How the name begins of what hides a file of a lower layer.
const WHITEOUT: &[u8] = b".wh.";

/// How the key of an extended attribute begins, in all tools that know any.
const XATTR: &str = "SCHILY.xattr.";

/// The numbers of a header end here: seven and eleven octal digits.
const ID_MAX: u32 = 0o777_7777;
const SIZE_MAX: u64 = 0o777_7777_7777;

/// Records before a header: keys and values.
type Pax = Vec<(String, Vec<u8>)>;

/// Refuses what an engine would take for something else.
pub(super) fn check(tree: &Tree) -> Result<(), Error> {
    for inode in inodes(tree, FORMAT)? {
        if inode.path.file_name().is_some_and(|name| name.as_bytes().starts_with(WHITEOUT)) {
            return Err(unsupported(FORMAT, inode.path, "has a name that would hide another file"));
        }
        inode.device_number(FORMAT)?;
        // "user.a=b" would be the attribute "user.a".
        if let Some(name) = inode.attributes.xattrs.keys().find(|name| name.contains(['=', '\0'])) {
            let what = format!("has an extended attribute {name:?}, which has no place");
            return Err(unsupported(FORMAT, inode.path, what));
        }
    }
    Ok(())
}

/// Writes a tree that was checked; gives back where it went.
pub(super) fn write<W: Write>(tree: &Tree, time: u64, out: W) -> Result<W, Error> {
    let mut archive = Builder::new(out);
    for (path, node) in tree.iter() {
        let is_plain_root = path.as_os_str().is_empty() && node.attributes == Attributes::root(0o755);
        if !is_plain_root {
            entry(&mut archive, path, node, time)?;
        }
    }
    archive.into_inner().map_err(writing(FORMAT))
}

fn entry(archive: &mut Builder<impl Write>, path: &Path, node: &Node, time: u64) -> Result<(), Error> {
    let (header, pax) = header(path, node, time).map_err(writing(FORMAT))?;
    let pax = pax.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
    archive.append_pax_extensions(pax).map_err(writing(FORMAT))?;
    let Kind::File(content) = &node.kind else {
        return archive.append(&header, io::empty()).map_err(writing(FORMAT));
    };
    let mut source = Source::open(content).map_err(reading(FORMAT, path))?;
    archive
        .append(&header, &mut source)
        .map_err(|error| if source.failed { reading(FORMAT, path)(error) } else { writing(FORMAT)(error) })
}

/// A header, and the pax records that say what does not fit into it.
fn header(path: &Path, node: &Node, time: u64) -> io::Result<(Header, Pax)> {
    let Attributes { mode, uid, gid, xattrs } = &node.attributes;
    let mut header = Header::new_ustar();
    let mut pax = Pax::new();
    let (kind, size) = match &node.kind {
        Kind::Directory => (EntryType::Directory, 0),
        Kind::File(content) => (EntryType::Regular, content.len()),
        Kind::Symlink(_) => (EntryType::Symlink, 0),
        Kind::CharDevice { .. } => (EntryType::Char, 0),
        Kind::Fifo => (EntryType::Fifo, 0),
    };
    header.set_entry_type(kind);
    header.set_mode(*mode);

    let name = name(path, kind == EntryType::Directory);
    if header.set_path(&name).is_err() {
        // What it tried is in there.
        if let Some(fields) = header.as_ustar_mut() {
            fields.name.fill(0);
            fields.prefix.fill(0);
        }
        pax.push(("path".to_owned(), name.as_os_str().as_bytes().to_vec()));
    }
    if let Kind::Symlink(target) = &node.kind {
        let target = target.as_os_str().as_bytes();
        if header.set_link_name_literal(target).is_err() {
            pax.push(("linkpath".to_owned(), target.to_vec()));
        }
    }
    if let Kind::CharDevice { major, minor } = node.kind {
        header.set_device_major(major)?;
        header.set_device_minor(minor)?;
    }
    let mut number = |key: &str, number: u64, max: u64| {
        if number > max {
            pax.push((key.to_owned(), number.to_string().into_bytes()));
        }
        if number > max { 0 } else { number }
    };
    header.set_size(number("size", size, SIZE_MAX));
    header.set_uid(number("uid", u64::from(*uid), u64::from(ID_MAX)));
    header.set_gid(number("gid", u64::from(*gid), u64::from(ID_MAX)));
    header.set_mtime(number("mtime", time, SIZE_MAX));
    pax.extend(xattrs.iter().map(|(name, value)| (format!("{XATTR}{name}"), value.clone())));
    header.set_cksum();
    Ok((header, pax))
}

/// A directory's name ends with a slash, and the root's is a dot.
fn name(path: &Path, is_directory: bool) -> PathBuf {
    let path = if path.as_os_str().is_empty() { OsStr::new(".") } else { path.as_os_str() };
    let mut name = path.to_owned();
    if is_directory {
        name.push("/");
    }
    name.into()
}

/// Tells afterwards on which side a copy failed.
struct Source<'a> {
    reader: Box<dyn Read + 'a>,
    failed: bool,
}

impl<'a> Source<'a> {
    fn open(content: &'a Content) -> io::Result<Self> {
        Ok(Source { reader: content.reader()?, failed: false })
    }
}

impl Read for Source<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(into);
        self.failed |= read.is_err();
        read
    }
}
