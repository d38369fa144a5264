//! Extended attributes: sets of them, each there once, that inodes refer to by number.

use std::collections::HashMap;
use std::io::{Seek, Write};

use super::FORMAT;
use super::archive::{Archive, Table};
use super::superblock::NONE;
use crate::error::{Error, unsupported};
use crate::inodes::Inode;

/// The number of no set.
pub(super) const NO_SET: u32 = u32::MAX;

/// The longest value that Linux takes.
const MAX_VALUE: usize = 65536;

/// The sets of all inodes, before they are written.
#[derive(Debug, Default)]
pub(super) struct Sets {
    /// For each inode the number of its set.
    pub(super) numbers: Vec<u32>,
    sets: Vec<Set>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Set {
    bytes: Vec<u8>,
    count: u32,
    /// How long the list of names is that `listxattr` gives.
    names: u32,
}

/// Finds the sets of all inodes, in the order of these.
pub(super) fn sets(inodes: &[Inode<'_>]) -> Result<Sets, Error> {
    let (mut sets, mut seen) = (Sets::default(), HashMap::new());
    for inode in inodes {
        let set = set(inode)?;
        let next = sets.sets.len() as u32;
        let number = if set.count == 0 { NO_SET } else { *seen.entry(set.clone()).or_insert(next) };
        if number == next {
            sets.sets.push(set);
        }
        sets.numbers.push(number);
    }
    Ok(sets)
}

impl Sets {
    /// Writes them; says where the kernel finds them.
    pub(super) fn put(&self, archive: &mut Archive<impl Write + Seek>) -> Result<u64, Error> {
        if self.sets.is_empty() {
            return Ok(NONE);
        }
        let (mut table, mut index) = (Table::default(), Vec::new());
        for set in &self.sets {
            let place = archive.add(&mut table, &set.bytes)?;
            index.extend_from_slice(&place.reference().to_le_bytes());
            index.extend_from_slice(&set.count.to_le_bytes());
            index.extend_from_slice(&set.names.to_le_bytes());
        }
        let start = archive.put_table(table)?;
        let count = self.sets.len() as u64;
        archive.put_indexed(&[start.to_le_bytes(), count.to_le_bytes()].concat(), &index)
    }
}

fn set(inode: &Inode<'_>) -> Result<Set, Error> {
    let mut bytes = Vec::new();
    for (name, value) in &inode.attributes.xattrs {
        let refuse =
            |why| unsupported(FORMAT, inode.path, format!("has the extended attribute {name:?}: {why}"));
        let (namespace, rest) =
            split(name).ok_or_else(|| refuse("the format has no number for its namespace"))?;
        if name.len() > 255 {
            return Err(refuse("its name is too long"));
        }
        if value.len() > MAX_VALUE {
            return Err(refuse("its value is longer than 65536 bytes"));
        }
        bytes.extend_from_slice(&namespace.to_le_bytes());
        bytes.extend_from_slice(&(rest.len() as u16).to_le_bytes());
        bytes.extend_from_slice(rest.as_bytes());
        bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        bytes.extend_from_slice(value);
    }
    let xattrs = &inode.attributes.xattrs;
    let names = xattrs.keys().map(|name| name.len() as u32 + 1).sum();
    Ok(Set { bytes, count: xattrs.len() as u32, names })
}

/// A name's namespace as a number, and what is left of it. The format has none for POSIX ACLs.
fn split(name: &str) -> Option<(u16, &str)> {
    [(0, "user."), (1, "trusted."), (2, "security.")]
        .into_iter()
        .find_map(|(number, prefix)| Some((number, name.strip_prefix(prefix)?)))
        .filter(|(_, rest)| !rest.is_empty())
}
