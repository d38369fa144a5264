//! A package taken apart: its files with modes and owners, and what dpkg knows of it. Taken apart once per
//! digest; the contents stay in the cache, where a tree refers to them.
//!
//! A package is hostile here, though somebody signed for it. Names that could lead out are refused, and
//! devices, pipes, sparse files, and whatever is larger than anything in Debian. Its scripts are not even
//! looked at.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use guest_inputs::{Cache, DebMember, Key, Progress, confined};
use serde::{Deserialize, Serialize};
use tar::EntryType;

use crate::error::{Error, at};
use crate::package::Package;

/// What a package may have at most. Debian's largest are debug symbols and games.
#[derive(Debug, Clone, Copy)]
struct Budget {
    file: u64,
    package: u64,
    entries: usize,
}

const BUDGET: Budget = Budget { file: 2 << 30, package: 8 << 30, entries: 200_000 };
/// The most that stands between two entries: the tar crate holds names, and records of them, in memory.
const NAMES: u64 = 1 << 20;
/// Where the list of a package's files is among its cached ones.
const LIST: &str = "list.json";

/// A package in the cache.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// What dpkg knows: the control file, as it is in the package.
    pub(crate) control: String,
    /// In the package's order.
    pub(crate) entries: Vec<Entry>,
    directory: PathBuf,
}

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Without a leading slash; empty for the root.
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Directory,
    /// By number of its content, which hard links share.
    File(usize),
    Symlink(String),
}

#[derive(Serialize, Deserialize)]
struct List {
    control: String,
    entries: Vec<Entry>,
}

impl Unpacked {
    /// Fetches a package and takes it apart, if the cache does not have it.
    pub(crate) fn of(package: &Package, cache: &Cache, progress: &Progress) -> Result<Self, Error> {
        let key = Key::new("package/v1").field("sha256", &package.sha256);
        let directory = cache.build("packages", &key, |into| {
            let deb = guest_inputs::fetch(cache, &package.pin(), progress)?;
            take_apart(&deb, &format!("{} {}", package.name, package.version), into, BUDGET)
        })?;
        Unpacked::read(directory)
    }

    /// Where a file's content is.
    pub(crate) fn content(&self, number: usize) -> PathBuf {
        self.directory.join(number.to_string())
    }

    fn read(directory: PathBuf) -> Result<Self, Error> {
        let path = directory.join(LIST);
        let text = fs::read(&path).map_err(at("read", &path))?;
        let list: List = serde_json::from_slice(&text).map_err(|e| at("read", &path)(e.into()))?;
        Ok(Unpacked { control: list.control, entries: list.entries, directory })
    }
}

/// Lays a package's list and contents into a directory.
fn take_apart(deb: &Path, package: &str, into: &Path, budget: Budget) -> Result<(), Error> {
    let control = read_control(deb, package)?;
    let limited = Limited::new(guest_inputs::open_deb(deb, DebMember::Data)?, budget.package);
    let names = limited.names.clone();
    let mut parts =
        Parts { package, into, budget, entries: Vec::new(), contents: 0, by_path: BTreeMap::new() };
    let mut tar = tar::Archive::new(limited);
    for entry in tar.entries().map_err(at("read", deb))? {
        let mut entry = entry.map_err(at("read", deb))?;
        names.set(u64::MAX);
        parts.take(&mut entry)?;
        names.set(NAMES);
    }
    let path = into.join(LIST);
    let list = List { control, entries: parts.entries };
    let text = serde_json::to_vec(&list).map_err(|e| at("write", &path)(e.into()))?;
    fs::write(&path, text).map_err(at("write", &path))
}

/// A package taken apart under a budget that a machine has the time for.
#[cfg(any(test, fuzzing))]
pub(crate) fn apart_for_fuzzing(deb: &Path, into: &Path) -> Result<Unpacked, Error> {
    take_apart(deb, "p 1", into, Budget { file: 1 << 20, package: 4 << 20, entries: 100 })?;
    Unpacked::read(into.to_owned())
}

/// The control file, out of its archive, in which there are also scripts.
fn read_control(deb: &Path, package: &str) -> Result<String, Error> {
    /// Longer than any.
    const LIMIT: u64 = 1 << 20;
    let wrong = |what: String| Error::Package { package: package.to_owned(), what };
    let limited = Limited::new(guest_inputs::open_deb(deb, DebMember::Control)?, 64 * LIMIT);
    let mut tar = tar::Archive::new(limited);
    for entry in tar.entries().map_err(at("read", deb))? {
        let mut entry = entry.map_err(at("read", deb))?;
        if inside(entry.path()).as_deref() != Ok("control") {
            continue;
        }
        if entry.size() > LIMIT {
            return Err(wrong(format!("its control file has more than {LIMIT} bytes")));
        }
        let mut control = String::new();
        entry.read_to_string(&mut control).map_err(at("read the control file of", deb))?;
        return Ok(control);
    }
    Err(wrong("has no control file".to_owned()))
}

/// A package's files as they are taken out.
struct Parts<'a> {
    /// Name and version.
    package: &'a str,
    into: &'a Path,
    budget: Budget,
    entries: Vec<Entry>,
    contents: usize,
    /// Number of the content of each file so far: hard links name one.
    by_path: BTreeMap<String, usize>,
}

impl Parts<'_> {
    fn take(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<(), Error> {
        if matches!(entry.header().entry_type(), EntryType::XGlobalHeader) {
            return Ok(()); // carries no file
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let package = self.package.to_owned();
        let refuse = |what: String| {
            let package = package.clone();
            Error::Package { package, what: format!("{name:?} {what}") }
        };
        let sparse = |records: tar::PaxExtensions<'_>| {
            records.flatten().any(|record| record.key_bytes().starts_with(b"GNU.sparse."))
        };
        if entry.pax_extensions().map_err(|e| refuse(e.to_string()))?.is_some_and(sparse) {
            return Err(refuse("is a sparse file".to_owned()));
        }
        if self.entries.len() == self.budget.entries {
            return Err(refuse(format!("is one file more than the limit of {}", self.budget.entries)));
        }
        let (path, attributes) = match (inside(entry.path()), attributes(entry.header())) {
            (Ok(path), Ok(attributes)) => (path, attributes),
            (Err(what), _) | (_, Err(what)) => return Err(refuse(what)),
        };
        let kind = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous if entry.size() > self.budget.file => {
                let (size, limit) = (entry.size(), self.budget.file);
                return Err(refuse(format!("has {size} bytes, more than the limit of {limit}")));
            }
            EntryType::Regular | EntryType::Continuous => Kind::File(self.write(entry)?),
            _ => self.kind_without_content(entry).map_err(refuse)?,
        };
        if let Kind::File(number) = kind {
            self.by_path.insert(path.clone(), number);
        }
        let [mode, uid, gid] = attributes;
        self.entries.push(Entry { path, mode, uid, gid, kind });
        Ok(())
    }

    /// What an entry is that brings no bytes, or why there is no such thing in a package.
    fn kind_without_content(&self, entry: &tar::Entry<'_, impl Read>) -> Result<Kind, String> {
        match entry.header().entry_type() {
            EntryType::Directory => Ok(Kind::Directory),
            EntryType::Link => {
                let target = entry.link_name().ok().flatten().ok_or("links to nothing")?;
                let target = inside(Ok(target))?;
                let known = self.by_path.get(&target).copied();
                let unknown = || format!("is a hard link to {target:?}, which is no file before it");
                known.map(Kind::File).ok_or_else(unknown)
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = String::from_utf8(target).map_err(|_| "links to a name that is not text")?;
                match target.is_empty() || target.contains('\0') {
                    true => Err("links to nothing".to_owned()),
                    false => Ok(Kind::Symlink(target)),
                }
            }
            EntryType::Char | EntryType::Block => Err("is a device".to_owned()),
            EntryType::Fifo => Err("is a pipe".to_owned()),
            EntryType::GNUSparse => Err("is a sparse file".to_owned()),
            _ => Err("is neither file, directory nor link".to_owned()),
        }
    }

    fn write(&mut self, data: &mut impl Read) -> Result<usize, Error> {
        let number = self.contents;
        self.contents += 1;
        let path = self.into.join(number.to_string());
        let mut file = File::create_new(&path).map_err(at("create", &path))?;
        io::copy(data, &mut file).map_err(at("unpack into", &path))?;
        Ok(number)
    }
}

/// Mode, owner and group.
fn attributes(header: &tar::Header) -> Result<[u32; 3], String> {
    let number = |field: io::Result<u64>, what: &str| {
        field.ok().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| format!("has an odd {what}"))
    };
    let mode = number(header.mode().map(u64::from), "mode")? & 0o7777;
    Ok([mode, number(header.uid(), "owner")?, number(header.gid(), "group")?])
}

/// A name as a tree takes it, or what is wrong with it.
fn inside(path: io::Result<std::borrow::Cow<'_, Path>>) -> Result<String, String> {
    let path = path.map_err(|_| "has no name".to_owned())?;
    let inside = confined(&path).map_err(str::to_owned)?;
    let text = inside.into_os_string().into_string().map_err(|_| "is not text".to_owned())?;
    match text.contains('\0') {
        true => Err("has a zero byte in its name".to_owned()),
        false => Ok(text),
    }
}

/// A stream that ends with an error where it has too much: compression hides any size.
struct Limited<R> {
    data: R,
    left: u64,
    /// What is left of that before the next entry.
    names: Rc<Cell<u64>>,
}

impl<R> Limited<R> {
    fn new(data: R, left: u64) -> Self {
        Limited { data, left, names: Rc::new(Cell::new(NAMES)) }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.data.read(into)?;
        let left = self.left.checked_sub(n as u64);
        self.left = left.ok_or_else(|| io::Error::other("it is larger than any package of Debian's"))?;
        let names = self.names.get().checked_sub(n as u64);
        self.names.set(names.ok_or_else(|| io::Error::other("a name in it is longer than any of Debian's"))?);
        Ok(n)
    }
}

#[cfg(test)]
pub(crate) mod tests;
