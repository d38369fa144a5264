//! The contents of files: whole blocks one after the other, and what is left of each file in blocks that
//! several share.

use std::io::{Seek, Write};
use std::path::Path;

use guest_tree::Content;

use super::archive::{Archive, Written};
use super::{BLOCK, FORMAT};
use crate::contents::fill;
use crate::error::{Error, reading};

/// Set in a block's size: it is not compressed.
const AS_IT_WAS: u32 = 1 << 24;

/// Where a file's content is.
#[derive(Debug, Clone, Default)]
pub(super) struct Data {
    /// Where its blocks begin.
    pub(super) start: u64,
    /// The size of each, as it is written.
    pub(super) blocks: Vec<u32>,
    /// What is left: in which fragment, and where in it.
    pub(super) tail: Option<(u32, u32)>,
}

/// The blocks that hold the ends of files.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    pending: Vec<u8>,
    /// Of those that are written: position, size, nothing.
    table: Vec<u8>,
}

impl Fragments {
    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        (self.table.len() / 16) as u32
    }

    /// Where they are.
    pub(super) fn table(&self) -> &[u8] {
        &self.table
    }

    /// Writes the one that is being filled.
    pub(super) fn flush(&mut self, archive: &mut Archive<impl Write + Seek>) -> Result<(), Error> {
        if !self.pending.is_empty() {
            let block = archive.put_block(&self.pending)?;
            self.table.extend_from_slice(&block.position.to_le_bytes());
            self.table.extend_from_slice(&size(block).to_le_bytes());
            self.table.extend_from_slice(&[0; 4]);
            self.pending.clear();
        }
        Ok(())
    }

    fn add(&mut self, tail: &[u8], archive: &mut Archive<impl Write + Seek>) -> Result<(u32, u32), Error> {
        if self.pending.len() + tail.len() > BLOCK {
            self.flush(archive)?;
        }
        let place = (self.count(), self.pending.len() as u32);
        self.pending.extend_from_slice(tail);
        Ok(place)
    }
}

/// Writes a file's content.
pub(super) fn store(
    content: &Content,
    path: &Path,
    fragments: &mut Fragments,
    archive: &mut Archive<impl Write + Seek>,
) -> Result<Data, Error> {
    let mut reader = content.reader().map_err(reading(FORMAT, path))?;
    let mut data = Data { start: archive.position(), ..Data::default() };
    let mut buffer = vec![0; BLOCK];
    loop {
        let n = fill(&mut reader, &mut buffer).map_err(reading(FORMAT, path))?;
        if n < BLOCK {
            data.tail = if n > 0 { Some(fragments.add(&buffer[..n], archive)?) } else { None };
            return Ok(data);
        }
        let block = archive.put_block(&buffer)?;
        data.blocks.push(size(block));
    }
}

fn size(block: Written) -> u32 {
    if block.compressed { block.size } else { block.size | AS_IT_WAS }
}
