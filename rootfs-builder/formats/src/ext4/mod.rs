//! ext4, for a root that may be written to, or for a host that reads nothing newer.
//!
//! What is written is the plainest file system that today's kernels take in full (kernel:
//! `filesystems/ext4/`): extents, checksums over all metadata, descriptors for 64 bits, and one flexible
//! group that all groups belong to. That last feature lets everything stand in one row: superblock,
//! descriptors, bitmaps, inodes, then directories, then contents in the order of the tree's paths, each in
//! one piece, and what is free at the end. There are no copies of the superblock and no directory
//! `lost+found`: an image is made again, not repaired. Directories have no index.
//!
//! The name of the file system is the digest of all of its bytes, so it is written last; checksums start from
//! a seed of ours instead of from that name.

mod body;
mod checksum;
mod directory;
mod extents;
mod groups;
mod journal;
mod layout;
mod record;
mod superblock;
mod xattrs;

use std::io::{BufWriter, Seek, SeekFrom, Write};

use guest_tree::Tree;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, reading, writing};
use crate::inodes::inodes;
use crate::uuid::Uuid;
use body::{Body, File};
use layout::{Layout, Place};

const FORMAT: &str = "ext4";

/// The one size of blocks here: the page size of all our kernels but powerpc64le's.
const BLOCK: usize = 4096;

/// The longest label.
const LABEL_MAX: usize = 16;

/// The last second that an inode can tell, in the year 2446.
const TIME_MAX: u64 = 0x3_7fff_ffff;

/// What a tree does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Of every file and of the file system, in seconds since 1970.
    pub time: u64,
    /// What the file system is called: at most 16 bytes.
    pub label: String,
    /// How large it is.
    pub size: Size,
    /// Whether there is a journal, of 4 MiB. What nobody writes to needs none.
    pub journal: bool,
}

/// How large a file system is. Inodes are as many as the tree has, rounded up to a block, and one for each 16
/// KiB of what is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Size {
    /// What the tree needs.
    #[default]
    Exact,
    /// That, and so many bytes more.
    Free(u64),
    /// So many bytes in all, or what the tree needs where that is more.
    AtLeast(u64),
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// In bytes.
    pub size: u64,
    /// The file system's name.
    pub uuid: Uuid,
}

/// Writes a file system with all of `tree` in it to where `out` stands, and leaves `out` at its end. What is
/// free there is not written: it has to be zeros, or a hole, as in a new file.
pub fn write(tree: &Tree, options: &Options, out: impl Write + Seek) -> Result<Written, Error> {
    check(options)?;
    let inodes = inodes(tree, FORMAT)?;
    let files = body::files(&inodes, options.journal)?;
    let layout = Layout::new(&files, options.size)?;
    let mut out = Output::new(out)?;
    write_tables(&mut out, &layout, &files, options.time)?;
    for (file, place) in files.iter().zip(&layout.places) {
        write_metadata(&mut out, file, place)?;
    }
    for file in &files {
        write_content(&mut out, file)?;
    }
    debug_assert_eq!(out.written, u64::from(layout.used) * BLOCK as u64);
    out.finish(&layout, |uuid| superblock::superblock(&layout, &files, options, uuid))
}

fn check(options: &Options) -> Result<(), Error> {
    let refused = |what| Err(Error::Limit { format: FORMAT, what });
    if options.label.len() > LABEL_MAX || options.label.contains('\0') {
        return refused(format!("the label {:?} is none of at most {LABEL_MAX} bytes", options.label));
    }
    if options.time > TIME_MAX {
        return refused(format!("the time {} is after {TIME_MAX}, the last that it knows", options.time));
    }
    Ok(())
}

fn write_tables<W: Write + Seek>(
    out: &mut Output<W>,
    layout: &Layout,
    files: &[File<'_>],
    time: u64,
) -> Result<(), Error> {
    out.write(&groups::descriptors(layout, files))?;
    for group in 0..layout.groups {
        out.write(&groups::block_bitmap(layout, group))?;
    }
    for group in 0..layout.groups {
        out.write(&groups::inode_bitmap(layout, group))?;
    }
    // The tables of all groups make one: inode after inode, the first of them number 1.
    let mut next = 1;
    for (file, place) in files.iter().zip(&layout.places) {
        for _ in next..file.number {
            out.write(&[0; record::LENGTH])?;
        }
        out.write(&record::record(file, place, time))?;
        next = file.number + 1;
    }
    out.skip_to(layout.inode_table(layout.groups))
}

/// All of a file but what is in a regular one.
fn write_metadata<W: Write + Seek>(out: &mut Output<W>, file: &File<'_>, place: &Place) -> Result<(), Error> {
    if let Some(block) = file.xattrs.block(place.xattrs) {
        out.write(&block)?;
    }
    out.write(&extents::leaves(file.number, file.body.blocks(), place.data))?;
    if let Body::Blocks { bytes, .. } = &file.body {
        out.write(bytes)?;
    }
    Ok(())
}

fn write_content<W: Write + Seek>(out: &mut Output<W>, file: &File<'_>) -> Result<(), Error> {
    let Body::Content(content) = &file.body else { return Ok(()) };
    let failed = reading(FORMAT, file.path);
    let mut reader = content.reader().map_err(&failed)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer).map_err(&failed)? {
            0 => return out.fill_block(),
            n => out.write(&buffer[..n])?,
        }
    }
}

/// Where the image goes: all of it but the first block in a row, then that.
struct Output<W: Write> {
    out: BufWriter<W>,
    start: u64,
    written: u64,
    digest: Sha256,
}

impl<W: Write + Seek> Output<W> {
    fn new(mut out: W) -> Result<Self, Error> {
        let start = out.stream_position().map_err(writing(FORMAT))?;
        // The superblock goes there at the end; the digest is over what it says too.
        out.write_all(&[0; BLOCK]).map_err(writing(FORMAT))?;
        let out = BufWriter::with_capacity(1 << 20, out);
        Ok(Output { out, start, written: BLOCK as u64, digest: Sha256::new() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.digest.update(bytes);
        self.written += bytes.len() as u64;
        self.out.write_all(bytes).map_err(writing(FORMAT))
    }

    fn fill_block(&mut self) -> Result<(), Error> {
        let missing = self.written.next_multiple_of(BLOCK as u64) - self.written;
        self.write(&[0; BLOCK][..missing as usize])
    }

    /// Leaves all up to a block as it is: zeros.
    fn skip_to(&mut self, block: u32) -> Result<(), Error> {
        self.written = u64::from(block) * BLOCK as u64;
        let seek = self.out.seek(SeekFrom::Start(self.start + self.written));
        seek.map(drop).map_err(writing(FORMAT))
    }

    fn finish(
        mut self,
        layout: &Layout,
        superblock: impl Fn(Uuid) -> [u8; superblock::LENGTH],
    ) -> Result<Written, Error> {
        self.digest.update(superblock(Uuid([0; 16])));
        let uuid = Uuid::of(self.digest);
        let size = u64::from(layout.blocks) * BLOCK as u64;
        let ends = (|| {
            if size > self.written {
                self.out.seek(SeekFrom::Start(self.start + size - 1))?;
                self.out.write_all(&[0])?;
            }
            self.out.seek(SeekFrom::Start(self.start + superblock::OFFSET))?;
            self.out.write_all(&superblock(uuid))?;
            self.out.seek(SeekFrom::Start(self.start + size))?;
            self.out.flush()
        })();
        ends.map_err(writing(FORMAT))?;
        Ok(Written { size, uuid })
    }
}
