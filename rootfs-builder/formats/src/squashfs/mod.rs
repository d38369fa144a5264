//! squashfs 4.0: a compressed read-only file system, for who wants the shortest image. Written by us: the
//! crates that write it know no extended attributes, and `mksquashfs` is another input to pin.
//!
//! An image is, in this order: the superblock, the blocks of files with those of fragments among them, and
//! the tables of inodes, directories, fragments, inode numbers, owners and extended attributes. All is
//! compressed in blocks of its own. The format knows neither a UUID nor POSIX ACLs, and its times end in
//! 2106; it refers to nothing beyond 4 GiB of inodes.
//!
//! Files with the same content share its blocks. It is no reader, and leaves out indexes of directories and
//! holes.

mod archive;
mod compressor;
mod data;
mod directory;
mod inode;
mod plan;
mod superblock;
mod xattr;

use std::io::{Seek, Write};

use guest_tree::Tree;

use crate::error::Error;

use archive::Archive;
use data::Fragments;
use plan::Plan;
use superblock::{NONE, Superblock};

pub use compressor::Compression;

/// The size of blocks before they are compressed: `mksquashfs`'s default too. A reader of one byte has all of
/// it decompressed.
const BLOCK: usize = 128 << 10;

const FORMAT: &str = "squashfs";

/// What an image depends on beside its tree.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The time of all files and of the image itself, in seconds since 1970.
    pub time: u64,
    /// What it is compressed with.
    pub compression: Compression,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How long the image is.
    pub size: u64,
    /// How many files of all kinds are in it, its root among them.
    pub inodes: u64,
    /// How many bytes of files were there already, in files with the same content.
    pub shared: u64,
}

/// Writes a tree as an image, from where `out` stands; it then stands behind the image. What `out` holds
/// there already is written over.
pub fn write(tree: &Tree, options: &Options, out: impl Write + Seek) -> Result<Summary, Error> {
    let time = u32::try_from(options.time)
        .map_err(|_| Error::Limit { format: FORMAT, what: "times end in the year 2106".to_owned() })?;
    let plan = Plan::new(tree, time)?;
    let mut archive = Archive::new(out, options.compression, BLOCK)?;
    let mut fragments = Fragments::default();
    let data = plan.store_contents(&mut fragments, &mut archive)?;
    fragments.flush(&mut archive)?;

    let tables = plan.pack(&data, &mut archive)?;
    let inode_table = archive.put_table(tables.inodes)?;
    let directory_table = archive.put_table(tables.directories)?;
    // The kernel finds the end of each table where the next begins, in this order.
    let fragment_table =
        if fragments.count() == 0 { NONE } else { archive.put_indexed(&[], fragments.table())? };
    let references: Vec<u8> =
        tables.places.iter().flat_map(|place| place.reference().to_le_bytes()).collect();
    let export_table = archive.put_indexed(&[], &references)?;
    let ids: Vec<u8> = plan.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let id_table = archive.put_indexed(&[], &ids)?;
    let xattr_table = plan.xattrs.put(&mut archive)?;

    let superblock = Superblock {
        inodes: plan.len() as u32,
        time,
        block_size: BLOCK as u32,
        fragments: fragments.count(),
        compression: options.compression,
        ids: plan.ids.len() as u16,
        root: tables.places[0].reference(),
        bytes_used: archive.position(),
        id_table,
        xattr_table,
        inode_table,
        directory_table,
        fragment_table,
        export_table,
    };
    let size = archive.finish(&superblock)?;
    Ok(Summary { size, inodes: plan.len() as u64, shared: plan.shared() })
}
