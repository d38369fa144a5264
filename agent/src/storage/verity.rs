//! A layer's root hash and what goes with it: the `X-kata.dmverity.*` options, and the superblock before the hashes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::plan::{Refusal, refuse};
use crate::dm::{self, Verity, hexadecimal};

const PREFIX: &str = "X-kata.dmverity.";

/// What the options say. What they leave out is as in the superblock, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    root_hash: String,
    /// Where superblock and hashes begin, in bytes; the data ends there.
    hash_offset: u64,
    data_block_size: u32,
    hash_block_size: u32,
    algorithm: String,
    salt: Option<String>,
    hash_type: u32,
    superblock: bool,
}

impl Checked {
    /// Reads the options of a layer; `None`: it is not to be checked.
    pub(super) fn plan(options: &[String]) -> Result<Option<Self>, Refusal> {
        let wanted = match options.iter().find_map(|option| option.strip_prefix("X-kata.dmverity-enabled=")) {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                return refuse("options", format!("X-kata.dmverity-enabled={other:?}: true or false"));
            }
        };
        let values: Vec<(&str, &str)> = options
            .iter()
            .filter_map(|option| option.strip_prefix(PREFIX))
            .map(|option| option.split_once('=').unwrap_or((option, "true")))
            .collect();
        if !wanted {
            // A hash that nobody checks would be worse than none.
            return if values.is_empty() {
                Ok(None)
            } else {
                refuse("options", "there are X-kata.dmverity options, but it is not enabled")
            };
        }
        let mut out = Self {
            root_hash: String::new(),
            hash_offset: 0,
            data_block_size: 4096,
            hash_block_size: 4096,
            algorithm: "sha256".to_string(),
            salt: None,
            hash_type: 1,
            superblock: true,
        };
        for (key, value) in values {
            let bad =
                || Refusal { field: "options", reason: format!("bad option \"{PREFIX}{key}={value}\"") };
            match key {
                "roothash" => out.root_hash = hexadecimal(value).ok_or_else(bad)?,
                "hashoffset" => out.hash_offset = value.parse().map_err(|_| bad())?,
                "blocksize" => out.data_block_size = block_size(value).ok_or_else(bad)?,
                "hashsize" => out.hash_block_size = block_size(value).ok_or_else(bad)?,
                "algorithm" => out.algorithm = algorithm(value).ok_or_else(bad)?,
                "salt" if matches!(value, "" | "-") => out.salt = Some("-".to_string()),
                "salt" => out.salt = Some(hexadecimal(value).ok_or_else(bad)?),
                "hashtype" => {
                    out.hash_type = value.parse().ok().filter(|kind| *kind <= 1).ok_or_else(bad)?;
                }
                "no-superblock" => out.superblock = !matches!(value, "true" | "1"),
                _ => return Err(bad()),
            }
        }
        if out.root_hash.is_empty() {
            return refuse("options", format!("{PREFIX}roothash is missing"));
        }
        let aligned = out.hash_offset.is_multiple_of(u64::from(out.hash_block_size))
            && out.hash_offset.is_multiple_of(u64::from(out.data_block_size));
        if out.hash_offset == 0 || !aligned {
            return refuse("options", format!("{PREFIX}hashoffset: {} is no end of blocks", out.hash_offset));
        }
        Ok(Some(out))
    }

    /// What the kernel is told, with what only the device knows.
    pub(super) fn table(&self, node: &Path) -> io::Result<Verity> {
        let plain = Verity {
            hash_type: self.hash_type,
            data_block_size: self.data_block_size,
            hash_block_size: self.hash_block_size,
            data_blocks: self.hash_offset / u64::from(self.data_block_size),
            hash_start: self.hash_offset / u64::from(self.hash_block_size),
            algorithm: self.algorithm.clone(),
            root_hash: self.root_hash.clone(),
            salt: self.salt.clone().unwrap_or_else(|| "-".to_string()),
        };
        if !self.superblock {
            return Ok(plain);
        }
        let mut block = [0; 512];
        File::open(node)?.read_exact_at(&mut block, self.hash_offset)?;
        let found = superblock(&block).ok_or_else(|| {
            io::Error::other(format!("there is no verity superblock at {}", self.hash_offset))
        })?;
        // Nothing of it needs to be trusted: with any other salt or size no block fits the root hash.
        Ok(Verity {
            hash_start: self.hash_offset / u64::from(found.hash_block_size) + 1,
            root_hash: plain.root_hash,
            salt: self.salt.clone().unwrap_or(found.salt),
            ..found
        })
    }
}

/// Reads the superblock that veritysetup writes in front of the hashes. Root hash and start of the hashes are not in it.
fn superblock(block: &[u8; 512]) -> Option<Verity> {
    let word = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().expect("four bytes"));
    if &block[..8] != b"verity\0\0" || word(8) != 1 {
        return None;
    }
    let name = block[32..64].split(|byte| *byte == 0).next().unwrap_or_default();
    let salt_size = usize::from(u16::from_le_bytes([block[80], block[81]]));
    let salt: String =
        block.get(88..88 + salt_size.min(256))?.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(Verity {
        hash_type: word(12),
        data_block_size: dm::block_size(word(64))?,
        hash_block_size: dm::block_size(word(68))?,
        data_blocks: u64::from_le_bytes(block[72..80].try_into().expect("eight bytes")),
        hash_start: 0,
        algorithm: algorithm(std::str::from_utf8(name).ok()?)?,
        root_hash: String::new(),
        salt: if salt.is_empty() { "-".to_string() } else { salt },
    })
}

fn algorithm(text: &str) -> Option<String> {
    let fits = !text.is_empty()
        && text.len() <= 32
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    fits.then(|| text.to_string())
}

fn block_size(text: &str) -> Option<u32> {
    dm::block_size(text.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(more: &[&str]) -> Vec<String> {
        let hash = "ab".repeat(32);
        let base = ["X-kata.dmverity-enabled=true".to_string(), format!("{PREFIX}roothash={hash}")];
        base.into_iter().chain(more.iter().map(|option| format!("{PREFIX}{option}"))).collect()
    }

    #[test]
    fn defaults_are_those_of_the_peer() {
        let checked = Checked::plan(&options(&["hashoffset=8192"])).unwrap().unwrap();
        assert_eq!((checked.data_block_size, checked.hash_block_size, checked.hash_type), (4096, 4096, 1));
        assert_eq!((checked.algorithm.as_str(), checked.salt, checked.superblock), ("sha256", None, true));
    }

    #[test]
    fn without_a_superblock_the_options_say_all() {
        let given = ["hashoffset=8192", "no-superblock=true", "salt=00FF", "blocksize=1024"];
        let table = Checked::plan(&options(&given)).unwrap().unwrap().table(Path::new("/no/such")).unwrap();
        assert_eq!((table.data_blocks, table.hash_start), (8, 2));
        assert_eq!(table.salt, "00ff");
    }

    #[test]
    fn a_hash_that_is_not_enabled_is_refused() {
        assert_eq!(Checked::plan(&[]), Ok(None));
        let not_enabled = [format!("{PREFIX}roothash=abcd")];
        assert_eq!(Checked::plan(&not_enabled).unwrap_err().field, "options");
    }

    #[test]
    fn no_option_can_add_words_to_the_table() {
        for bad in [
            "salt=00 1 panic_on_corruption",
            "salt=abc",
            "algorithm=sha256 x",
            "roothash=",
            "roothash=xyz0",
            "hashoffset=-1",
            "hashoffset=100",
            "blocksize=3000",
            "hashsize=0",
            "hashtype=2",
            "colour=red",
        ] {
            let given = options(&["hashoffset=8192", bad]);
            assert_eq!(Checked::plan(&given).unwrap_err().field, "options", "{bad}");
        }
        assert!(Checked::plan(&options(&[])).is_err(), "no offset, no hashes");
    }

    #[test]
    fn a_superblock_is_read() {
        let mut block = [0; 512];
        block[..8].copy_from_slice(b"verity\0\0");
        for (at, word) in [(8, 1_u32), (12, 1), (64, 4096), (68, 1024), (72, 16)] {
            block[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        block[32..38].copy_from_slice(b"sha512");
        block[80] = 2;
        block[88..90].copy_from_slice(&[0xab, 0x01]);
        let found = superblock(&block).unwrap();
        assert_eq!(
            (found.algorithm.as_str(), found.salt.as_str(), found.data_blocks),
            ("sha512", "ab01", 16)
        );
        block[80..82].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(superblock(&block).unwrap().salt.len(), 512, "a size that lies is cut");
        block[0] = b'V';
        assert_eq!(superblock(&block), None);
    }
}
