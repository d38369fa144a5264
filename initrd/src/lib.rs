//! Initial ramdisks, bit for bit the same from the same content.
//!
//! [`write`] puts a [`Tree`] into the one form that the kernel unpacks, packed as [`Compression`] says: in
//! the order of the tree's paths, numbered from one, all files from the one time that the caller chose. What
//! that form has no place for is an error: the kernel would skip it without a word, and the guest would miss
//! it later.

mod compression;
mod newc;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use guest_tree::Tree;

pub use compression::{Compression, UnknownCompression};

/// Why a tree cannot become a ramdisk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something the form has no place for.
    #[error("initrd: /{} {what}", path.display())]
    Unsupported {
        /// In the tree, without its leading slash.
        path: PathBuf,
        /// What about it, as the rest of a sentence.
        what: &'static str,
    },
    /// The content of a file could not be read.
    #[error("initrd: cannot read what is to be /{}", path.display())]
    Content {
        /// In the tree, without its leading slash.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive could not be written, or not be packed.
    #[error("initrd: cannot write the archive")]
    Write(#[from] io::Error),
}

/// Writes a ramdisk with all of `tree` in it; `time`, in seconds since 1970, is that of every file.
pub fn write(tree: &Tree, time: u32, compression: Compression, out: impl Write) -> Result<(), Error> {
    tree.iter().try_for_each(|(path, node)| newc::check(path, node))?;
    compression.pack(newc::length(tree), out, |out| newc::write(tree, time, out))
}

/// The same, in memory.
pub fn to_vec(tree: &Tree, time: u32, compression: Compression) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    write(tree, time, compression, &mut out)?;
    Ok(out)
}

fn unsupported(path: &Path, what: &'static str) -> Error {
    Error::Unsupported { path: path.to_owned(), what }
}

#[cfg(test)]
mod tests;
