//! dm-verity: the hash tree over an image, the kernel argument that makes a verified device of both, and the
//! check of one against the other. No device mapper is touched here.
//!
//! The format is version 1 of what `veritysetup` writes (kernel: `admin-guide/device-mapper/verity.rst`):
//! each block of 4096 bytes is hashed after the salt, 128 digests make a block of the next level, and so on
//! up to one block, whose digest is the root hash. A hash device is a superblock, then the levels, the
//! highest first. It may stand on its own or behind the data.
//!
//! The root hash is all that has to be trusted. [`Verity`] is that and the facts around it: what a manifest
//! keeps.

mod levels;
mod root;
mod superblock;
mod table;
mod verify;

use std::io::{Read, Seek, SeekFrom};

use sha2::{Digest as _, Sha256};

use crate::error::{Error, reading_image};
use crate::uuid::Uuid;

pub use root::RootHash;
pub use superblock::{MAX_SALT, Superblock};
pub use table::{HashPlace, Mapping, OnCorruption};
pub use verify::verify;

/// The size of data blocks and hash blocks. Kernels take none that is larger than their pages, and no page is
/// smaller.
pub const BLOCK: usize = 4096;

/// The size of a digest.
const DIGEST: usize = 32;

const FORMAT: &str = "dm-verity";

/// What a hash tree may be told; each has a default that is made of the content.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What is hashed before each block, at most [`MAX_SALT`] bytes. By default the digest of the data: then
    /// a tree of digests that somebody prepared for other images is of no use for this one.
    pub salt: Option<Vec<u8>>,
    /// The name of the device. By default it is made of the root hash.
    pub uuid: Option<Uuid>,
}

/// What there is to know of an image to verify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verity {
    /// The digest of the highest block: what has to be trusted.
    pub root: RootHash,
    /// Salt, size and name.
    pub superblock: Superblock,
}

/// An image's hash tree.
#[derive(Debug, Clone)]
pub struct HashTree {
    /// What it was made of, and its root.
    pub verity: Verity,
    /// A hash device: superblock and tree, a 128th of the data.
    pub device: Vec<u8>,
}

impl HashTree {
    /// The tree without its superblock: for who tells the kernel all of it on the command line.
    #[must_use]
    pub fn bare(&self) -> &[u8] {
        &self.device[BLOCK..]
    }
}

/// Makes the hash tree of an image. `data` is read from its start to its end, twice if no salt is given.
pub fn build(mut data: impl Read + Seek, options: &Options) -> Result<HashTree, Error> {
    let length = data.seek(SeekFrom::End(0)).map_err(reading_image(FORMAT))?;
    if length == 0 || length % BLOCK as u64 != 0 {
        let what = format!("an image of {length} bytes is not one of whole blocks of {BLOCK}");
        return Err(Error::Limit { format: FORMAT, what });
    }
    let data_blocks = length / BLOCK as u64;
    let salt = match &options.salt {
        Some(salt) if salt.len() > MAX_SALT => {
            let what = format!("a salt of {} bytes, and there is room for {MAX_SALT}", salt.len());
            return Err(Error::Limit { format: FORMAT, what });
        }
        Some(salt) => salt.clone(),
        None => content_salt(&mut data)?,
    };
    data.rewind().map_err(reading_image(FORMAT))?;
    let hash = Hash::salted(&salt);
    let mut digests = hash.of_blocks(&mut data, data_blocks)?;

    let mut levels = Vec::new();
    while digests.len() > DIGEST {
        digests.resize(digests.len().next_multiple_of(BLOCK), 0);
        let above = digests.chunks(BLOCK).flat_map(|block| hash.of(block)).collect();
        levels.push(std::mem::replace(&mut digests, above));
    }
    let root = RootHash(digests.try_into().expect("one digest is left"));

    let uuid = options.uuid.unwrap_or_else(|| uuid_of(&root));
    let superblock = Superblock { uuid, salt, data_blocks };
    let mut device = superblock.encode().to_vec();
    levels.iter().rev().for_each(|level| device.extend_from_slice(level));
    Ok(HashTree { verity: Verity { root, superblock }, device })
}

/// The salt of who gave none: the digest of the data.
fn content_salt(data: &mut (impl Read + Seek)) -> Result<Vec<u8>, Error> {
    data.rewind().map_err(reading_image(FORMAT))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match data.read(&mut buffer).map_err(reading_image(FORMAT))? {
            0 => return Ok(digest.finalize().to_vec()),
            n => digest.update(&buffer[..n]),
        }
    }
}

fn uuid_of(root: &RootHash) -> Uuid {
    Uuid::of(Sha256::new().chain_update("husk: dm-verity: ").chain_update(root.0))
}

/// SHA-256 that has seen the salt.
struct Hash(Sha256);

impl Hash {
    fn salted(salt: &[u8]) -> Self {
        Hash(Sha256::new().chain_update(salt))
    }

    fn of(&self, block: &[u8]) -> [u8; DIGEST] {
        self.0.clone().chain_update(block).finalize().into()
    }

    /// The digests of the next `blocks` blocks, one after the other.
    fn of_blocks(&self, data: &mut impl Read, blocks: u64) -> Result<Vec<u8>, Error> {
        let mut digests = Vec::new();
        let mut block = [0; BLOCK];
        for _ in 0..blocks {
            data.read_exact(&mut block).map_err(reading_image(FORMAT))?;
            digests.extend_from_slice(&self.of(&block));
        }
        Ok(digests)
    }
}

#[cfg(test)]
mod tests;
