//! The key of a cache entry: one sha256 over everything the entry is made from.

use std::{fmt, fs::File, io::Read, path::Path};

use sha2::{Digest, Sha256};

use crate::error::{Error, at};

/// A digest under construction. Each part is preceded by its length, so no two lists of fields give the same bytes.
#[derive(Clone)]
pub struct Key(Sha256);

impl Key {
    /// A key for entries of one recipe. Change the name ("kernel/v1" to "kernel/v2") when the recipe's code changes
    /// what it makes of the same inputs.
    #[must_use]
    pub fn new(recipe: &str) -> Self {
        Key(Sha256::new()).part(recipe.as_bytes())
    }

    /// Adds one named input.
    #[must_use]
    pub fn field(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.part(name.as_bytes()).part(value.as_ref())
    }

    /// The digest so far, in hexadecimal.
    #[must_use]
    pub fn hex(&self) -> String {
        hex(&self.0.clone().finalize())
    }

    fn part(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.hex())
    }
}

/// The sha256 of some bytes, in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The sha256 of a file's bytes, in hexadecimal.
pub fn file_sha256(path: &Path) -> Result<String, Error> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path).map_err(at("open", path))?;
    let mut chunk = vec![0; 256 * 1024];
    loop {
        match file.read(&mut chunk).map_err(at("read", path))? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&chunk[..n]),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let a = Key::new("r").field("ab", "c");
        let b = Key::new("r").field("a", "bc");
        let c = Key::new("ra").field("b", "c");
        assert_ne!(a.hex(), b.hex());
        assert_ne!(a.hex(), c.hex());
        assert_ne!(Key::new("r").field("a", "").hex(), Key::new("r").hex());
    }

    #[test]
    fn key_is_the_sha256_of_the_framed_parts() {
        // printf '\x01\0\0\0\0\0\0\0r' | sha256sum
        let mut expected = Sha256::new();
        expected.update(b"\x01\0\0\0\0\0\0\0r\x01\0\0\0\0\0\0\0a\x02\0\0\0\0\0\0\0bc");
        assert_eq!(Key::new("r").field("a", "bc").hex(), hex(&expected.finalize()));
    }

    #[test]
    fn file_digest_is_sha256() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(file_sha256(&path).unwrap(), expected);
    }
}
