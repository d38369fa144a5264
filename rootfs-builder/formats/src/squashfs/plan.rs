//! A tree on its way into an image: what each inode is, and where its content is.

use std::collections::BTreeSet;
use std::io::{Seek, Write};

use guest_tree::{Kind, Tree};

use super::FORMAT;
use super::archive::{Archive, Place, Table};
use super::data::{self, Data, Fragments};
use super::directory::{self, Entry};
use super::inode::Facts;
use super::xattr::{self, Sets};
use crate::contents;
use crate::error::Error;
use crate::inodes::{Inode, inodes};

/// The tree as inodes, with all that is known before anything is written.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    time: u32,
    inodes: Vec<Inode<'a>>,
    /// For each inode the first with its content.
    firsts: Vec<usize>,
    pub(super) xattrs: Sets,
    /// All owners and groups, sorted.
    pub(super) ids: Vec<u32>,
}

/// The tables of inodes and directories.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) inodes: Table,
    pub(super) directories: Table,
    /// Where each inode is in its table.
    pub(super) places: Vec<Place>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(tree: &'a Tree, time: u32) -> Result<Self, Error> {
        let inodes = inodes(tree, FORMAT)?;
        let firsts = contents::firsts(&inodes, FORMAT)?;
        let xattrs = xattr::sets(&inodes)?;
        let ids: BTreeSet<u32> =
            inodes.iter().flat_map(|inode| [inode.attributes.uid, inode.attributes.gid]).collect();
        if ids.len() > usize::from(u16::MAX) {
            let what = format!("an image has at most {} owners and groups", u16::MAX);
            return Err(Error::Limit { format: FORMAT, what });
        }
        Ok(Plan { time, inodes, firsts, xattrs, ids: ids.into_iter().collect() })
    }

    pub(super) fn len(&self) -> usize {
        self.inodes.len()
    }

    /// How many bytes of files are there already, in files with the same content.
    pub(super) fn shared(&self) -> u64 {
        let twins = self.inodes.iter().enumerate().filter(|(number, _)| self.firsts[*number] != *number);
        twins.map(|(_, inode)| if let Kind::File(content) = inode.kind { content.len() } else { 0 }).sum()
    }

    /// Writes the contents of files.
    pub(super) fn store_contents(
        &self,
        fragments: &mut Fragments,
        archive: &mut Archive<impl Write + Seek>,
    ) -> Result<Vec<Data>, Error> {
        let mut data: Vec<Data> = Vec::with_capacity(self.len());
        for (number, inode) in self.inodes.iter().enumerate() {
            data.push(match inode.kind {
                Kind::File(_) if self.firsts[number] != number => data[self.firsts[number]].clone(),
                Kind::File(content) => data::store(content, inode.path, fragments, archive)?,
                _ => Data::default(),
            });
        }
        Ok(data)
    }

    /// Packs inodes and directories. A directory can be listed when the inodes in it have their places, and
    /// its own inode says where the listing is: so the last inode comes first, and the root at the end.
    pub(super) fn pack(
        &self,
        data: &[Data],
        archive: &mut Archive<impl Write + Seek>,
    ) -> Result<Tables, Error> {
        let places = vec![Place::default(); self.len()];
        let mut tables = Tables { inodes: Table::default(), directories: Table::default(), places };
        for number in (0..self.len()).rev() {
            let listing = directory::encode(&self.entries(number, &tables.places));
            let place = archive.add(&mut tables.directories, &listing)?;
            let facts = self.facts(number, &data[number], (place, listing.len() as u32))?;
            tables.places[number] = archive.add(&mut tables.inodes, &facts.encode())?;
        }
        Ok(tables)
    }

    fn entries(&self, number: usize, places: &[Place]) -> Vec<Entry<'_>> {
        let entry = |&(name, leads_to): &(&'a [u8], usize)| {
            let kind = self.inodes[leads_to].kind;
            Entry { name, place: places[leads_to], number: leads_to as u32 + 1, kind }
        };
        self.inodes[number].entries.iter().map(entry).collect()
    }

    fn facts<'b>(&'b self, number: usize, data: &'b Data, listing: (Place, u32)) -> Result<Facts<'b>, Error> {
        let inode = &self.inodes[number];
        let attributes = inode.attributes;
        // They are all in there.
        let id = |id: u32| self.ids.partition_point(|&other| other < id) as u16;
        // The directory above the root has a number that no inode has.
        let parent = if number == 0 { self.len() } else { inode.parent };
        Ok(Facts {
            kind: inode.kind,
            permissions: attributes.mode as u16,
            ids: [id(attributes.uid), id(attributes.gid)],
            time: self.time,
            number: number as u32 + 1,
            links: inode.links(&self.inodes),
            xattrs: self.xattrs.numbers[number],
            data,
            listing,
            parent: parent as u32 + 1,
            device: inode.device_number(FORMAT)?.unwrap_or_default(),
        })
    }
}
