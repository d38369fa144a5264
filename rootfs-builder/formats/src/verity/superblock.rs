//! What stands before a hash tree: the 512 bytes that `veritysetup` reads, in a block of their own.
//!
//! The kernel never reads them: it gets the same facts from its command line. So a change in there can make
//! no guest read wrong data; it can only mislead a tool. We refuse it all the same, in the UUID and in the
//! unused bytes too: an image is the bytes that were built, and a byte that may be anything is a byte in
//! which something can be hidden.

use crate::{Error, Uuid};

use super::{BLOCK, FORMAT};

/// Format and hash type as of cryptsetup 1.4; the salt comes before the data.
const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"verity\0\0";
const ALGORITHM: &[u8; 6] = b"sha256";

/// The longest salt that there is room for.
pub const MAX_SALT: usize = 256;

/// A device with a hash tree, but for its root hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// The name of the device.
    pub uuid: Uuid,
    /// What is hashed before each block; at most [`MAX_SALT`] bytes.
    pub salt: Vec<u8>,
    /// How many blocks of 4096 bytes the tree is for.
    pub data_blocks: u64,
}

impl Superblock {
    /// As it stands in the first block of a hash device.
    #[must_use]
    pub fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        for (at, bytes) in self.fields() {
            block[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        block
    }

    /// Takes apart the first block of a hash device: of one that this crate or `veritysetup` made with
    /// SHA-256 and blocks of 4096 bytes. Nothing that was read is believed: what is not needed has to be
    /// zero.
    pub fn decode(block: &[u8; BLOCK]) -> Result<Self, Error> {
        let salt_length = usize::from(u16::from_le_bytes([block[80], block[81]]));
        let salt = block[88..].get(..salt_length).filter(|salt| salt.len() <= MAX_SALT);
        let salt = salt.ok_or_else(|| corrupt(format!("a salt of {salt_length} bytes")))?.to_vec();
        let uuid = Uuid(std::array::from_fn(|i| block[16 + i]));
        let data_blocks = u64::from_le_bytes(std::array::from_fn(|i| block[72 + i]));
        let decoded = Superblock { uuid, salt, data_blocks };
        decoded.check(block)?;
        Ok(decoded)
    }

    /// Compares a block with what this superblock is on a device, each byte.
    pub(super) fn check(&self, block: &[u8; BLOCK]) -> Result<(), Error> {
        match self.encode().iter().zip(block).position(|(ours, theirs)| ours != theirs) {
            None => Ok(()),
            Some(at) => Err(corrupt(format!("byte {at} ({}) is wrong", self.field_at(at)))),
        }
    }

    /// Where which bytes stand; the rest is zero.
    fn fields(&self) -> [(usize, Vec<u8>); 10] {
        let block_size = (BLOCK as u32).to_le_bytes().to_vec();
        [
            (0, MAGIC.to_vec()),
            (8, VERSION.to_le_bytes().to_vec()),
            (12, VERSION.to_le_bytes().to_vec()),
            (16, self.uuid.0.to_vec()),
            (32, ALGORITHM.to_vec()),
            (64, block_size.clone()),
            (68, block_size),
            (72, self.data_blocks.to_le_bytes().to_vec()),
            (80, (self.salt.len() as u16).to_le_bytes().to_vec()),
            (88, self.salt.clone()),
        ]
    }

    fn field_at(&self, at: usize) -> &'static str {
        match at {
            0..8 => "signature",
            8..12 => "version",
            12..16 => "hash type",
            16..32 => "UUID",
            32..64 => "algorithm",
            64..68 => "data block size",
            68..72 => "hash block size",
            72..80 => "number of blocks",
            80..82 => "length of the salt",
            _ if (88..88 + self.salt.len()).contains(&at) => "salt",
            _ => "unused",
        }
    }
}

fn corrupt(what: String) -> Error {
    Error::Corrupt { format: FORMAT, what: format!("superblock: {what}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock() -> Superblock {
        Superblock { uuid: Uuid([7; 16]), salt: vec![9; 32], data_blocks: 12345 }
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        assert_eq!(Superblock::decode(&superblock().encode()).unwrap(), superblock());
        let longest = Superblock { salt: vec![1; MAX_SALT], ..superblock() };
        assert_eq!(Superblock::decode(&longest.encode()).unwrap(), longest);
        let none = Superblock { salt: vec![], ..superblock() };
        assert_eq!(Superblock::decode(&none.encode()).unwrap(), none);
    }

    #[test]
    fn no_byte_of_the_block_may_change() {
        let good = superblock().encode();
        for at in 0..BLOCK {
            let mut bad = good;
            bad[at] ^= 0x10;
            let error = superblock().check(&bad).unwrap_err().to_string();
            assert!(error.contains(&format!("byte {at} (")), "{error}");
        }
    }

    #[test]
    fn what_is_no_superblock_is_refused() {
        for (at, value, says) in [(0, b'x', "signature"), (12, 0, "hash type"), (35, b'5', "algorithm")] {
            let mut block = superblock().encode();
            block[at] = value;
            assert!(Superblock::decode(&block).unwrap_err().to_string().contains(says));
        }
        let mut block = superblock().encode();
        block[81] = 0xff;
        let error = Superblock::decode(&block).unwrap_err().to_string();
        assert_eq!(error, "dm-verity: superblock: a salt of 65312 bytes");
    }
}
