//! erofs: the read-only file system that a guest's root is by default. Written by us, in blocks of 4096
//! bytes, as the kernel reads them (kernel: `fs/erofs/erofs_fs.h`, `filesystems/erofs.rst`).
//!
//! An image is, in this order: the superblock's block, the blocks of files, the inodes, the blocks of
//! directories, the extended attributes that several inodes share. Files come before inodes because then none
//! is held in memory: when the inodes are written it is known where everything is. What is left of a file
//! beyond its whole blocks stands behind its inode, if there is room; inodes fill what is left of blocks, the
//! root's the superblock's.
//!
//! Files with the same content share its blocks, but stay files of their own. All times are the one that was
//! chosen; the UUID is a digest of the image; numbers follow the tree's order. So an image is a function of
//! tree, time and compression.
//!
//! It is no reader, and leaves out what a guest's root does not need: blocks of other sizes, holes, more than
//! one device.

mod cluster;
mod data;
mod dirent;
mod image;
mod inode;
mod lz4;
mod places;
mod plan;
mod superblock;
mod xattr;

use std::io::{Seek, Write};

use guest_tree::Tree;

use crate::error::Error;
use crate::uuid::Uuid;

use image::Image;
use places::Places;
use plan::{Plan, nid};
use superblock::Superblock;

/// The size of all blocks: kernels read no larger ones than their pages, and 4096 bytes is the smallest page
/// of ours.
const BLOCK: usize = 4096;

const FORMAT: &str = "erofs";

/// What an image depends on beside its tree.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The time of all files and of the image itself, in seconds since 1970.
    pub time: u64,
    /// Whether files are compressed.
    pub compression: Compression,
}

/// How files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As they are: nothing is between the page cache and the image.
    #[default]
    None,
    /// Each block holds as much of a file as fits it with LZ4 (`CONFIG_EROFS_FS_ZIP`); files that gain
    /// nothing stay as they are. A kernel with larger pages than our blocks (64 KiB, as powerpc64le may have)
    /// calls that experimental.
    Lz4,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How long the image is.
    pub size: u64,
    /// What it is called: made of its content.
    pub uuid: Uuid,
    /// How many files of all kinds are in it, its root among them.
    pub inodes: u64,
    /// How many bytes of files were there already, in files with the same content.
    pub shared: u64,
}

/// Writes a tree as an image, from where `out` stands; it then stands behind the image. What `out` holds
/// there already is written over.
pub fn write(tree: &Tree, options: &Options, out: impl Write + Seek) -> Result<Summary, Error> {
    let plan = Plan::new(tree, *options)?;
    let mut image = Image::new(out)?;
    let mut data = plan.store_contents(&mut image)?;

    // From here on it is known how long everything is, and so where it goes.
    let mut places = Places::new(superblock::END, image.next_block()?.into());
    let positions = plan.place_inodes(&data, &mut places);
    let directories = plan.fill_directories(&mut data, &positions, places.end());

    let mut first = [0; BLOCK];
    plan.put_inodes(&data, &positions, &mut first, &mut image)?;
    image.pad_to(places.end() * BLOCK as u64)?;
    image.put(&directories)?;
    let shared_xattrs = image.next_block()?;
    image.put(plan.shared_xattrs())?;
    image.pad()?;

    let superblock = Superblock {
        time: options.time,
        root: nid(positions[0]) as u16,
        inodes: plan.len() as u64,
        // None of the numbers above is larger.
        blocks: image.next_block()?,
        shared_xattrs,
        compression: options.compression,
    };
    superblock.put(&mut first);
    let (size, uuid) = image.finish(first)?;
    Ok(Summary { size, uuid, inodes: plan.len() as u64, shared: plan.shared() })
}

#[cfg(test)]
mod tests;
