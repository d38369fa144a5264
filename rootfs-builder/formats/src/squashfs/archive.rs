//! The image as it is written: from behind its superblock to its end, then the superblock.

use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use super::FORMAT;
use super::compressor::{Compression, Compressor};
use super::superblock::{self, Superblock};
use crate::error::{Error, writing};

/// Images are whole blocks of this size, as devices are.
const DEVICE_BLOCK: u64 = 4096;

/// The uncompressed size of a metadata block.
const METADATA: usize = 8192;

/// An image without its superblock.
pub(super) struct Archive<W: Write + Seek> {
    out: BufWriter<W>,
    /// Where in `out` the image begins.
    base: u64,
    position: u64,
    compressor: Compressor,
}

/// A block that was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) position: u64,
    pub(super) size: u32,
    pub(super) compressed: bool,
}

impl<W: Write + Seek> Archive<W> {
    pub(super) fn new(mut out: W, compression: Compression, block_size: usize) -> Result<Self, Error> {
        let compressor = Compressor::new(compression, block_size).map_err(writing(FORMAT))?;
        let base = out.stream_position().map_err(writing(FORMAT))?;
        let position = superblock::SIZE as u64;
        out.seek(SeekFrom::Start(base + position)).map_err(writing(FORMAT))?;
        Ok(Archive { out: BufWriter::with_capacity(1 << 20, out), base, position, compressor })
    }

    /// Where the next byte goes.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(writing(FORMAT))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Writes a block, compressed if that is shorter.
    pub(super) fn put_block(&mut self, block: &[u8]) -> Result<Written, Error> {
        let position = self.position;
        let compressed = self.compress(block)?;
        let bytes = compressed.as_deref().unwrap_or(block);
        self.put(bytes)?;
        Ok(Written { position, size: bytes.len() as u32, compressed: compressed.is_some() })
    }

    /// Writes a table of metadata that was packed before; says where.
    pub(super) fn put_table(&mut self, table: Table) -> Result<u64, Error> {
        let start = self.position;
        self.put(&table.packed)?;
        if !table.pending.is_empty() {
            let last = self.pack_block(&table.pending)?;
            self.put(&last)?;
        }
        Ok(start)
    }

    /// Writes a table, and behind it where its blocks are; says where that is. Entries do not cross blocks.
    pub(super) fn put_indexed(&mut self, header: &[u8], bytes: &[u8]) -> Result<u64, Error> {
        let mut positions = Vec::new();
        for block in bytes.chunks(METADATA) {
            positions.push(self.position);
            let packed = self.pack_block(block)?;
            self.put(&packed)?;
        }
        let start = self.position;
        self.put(header)?;
        positions.iter().try_for_each(|position| self.put(&position.to_le_bytes()))?;
        Ok(start)
    }

    /// Adds to a table; says where in it this begins, as the format refers to it: the block's place and the
    /// offset in it.
    pub(super) fn add(&mut self, table: &mut Table, bytes: &[u8]) -> Result<Place, Error> {
        let block = u32::try_from(table.packed.len()).map_err(|_| Error::Limit {
            format: FORMAT,
            what: "a table of inodes or directories has at most 4 GiB".to_owned(),
        })?;
        let place = Place { block, offset: table.pending.len() as u16 };
        table.pending.extend_from_slice(bytes);
        while table.pending.len() >= METADATA {
            let rest = table.pending.split_off(METADATA);
            let packed = self.pack_block(&table.pending)?;
            table.packed.extend_from_slice(&packed);
            table.pending = rest;
        }
        Ok(place)
    }

    /// Writes the superblock; says how long the image is.
    pub(super) fn finish(mut self, superblock: &Superblock) -> Result<u64, Error> {
        let end = self.position.next_multiple_of(DEVICE_BLOCK);
        self.put(&vec![0; (end - self.position) as usize])?;
        let mut close = || -> io::Result<()> {
            self.out.seek(SeekFrom::Start(self.base))?;
            self.out.write_all(&superblock.encode())?;
            self.out.seek(SeekFrom::Start(self.base + end))?;
            self.out.flush()
        };
        close().map_err(writing(FORMAT))?;
        Ok(end)
    }

    /// A metadata block: its size and whether it is as it was, then its bytes.
    fn pack_block(&mut self, block: &[u8]) -> Result<Vec<u8>, Error> {
        const AS_IT_WAS: u16 = 1 << 15;
        let compressed = self.compress(block)?;
        let bytes = compressed.as_deref().unwrap_or(block);
        let flag = if compressed.is_some() { 0 } else { AS_IT_WAS };
        Ok([&(bytes.len() as u16 | flag).to_le_bytes(), bytes].concat())
    }

    fn compress(&mut self, block: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.compressor.compress(block).map_err(writing(FORMAT))
    }
}

/// Metadata in the making: whole blocks packed, and what is not a block yet.
#[derive(Debug, Default)]
pub(super) struct Table {
    packed: Vec<u8>,
    pending: Vec<u8>,
}

/// A place in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// Where the block begins in the table as it is written.
    pub(super) block: u32,
    /// Where in the block as it was.
    pub(super) offset: u16,
}

impl Place {
    /// As one number.
    pub(super) fn reference(self) -> u64 {
        u64::from(self.block) << 16 | u64::from(self.offset)
    }
}
