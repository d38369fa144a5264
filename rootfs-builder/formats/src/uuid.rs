//! The name of a file system or a device: 16 bytes, here always a digest of what it names.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A UUID, in the order of bytes that it is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// The UUID of what was digested. It is of version 8, which RFC 9562 leaves to whoever makes it.
    #[must_use]
    pub fn of(digested: Sha256) -> Self {
        let digest = digested.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Uuid(bytes)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let dash = if [4, 6, 8, 10].contains(&at) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_digest_but_for_version_and_variant() {
        // SHA-256 of nothing begins e3b0c442 98fc 1c14 9afb f4c8996fb924.
        assert_eq!(Uuid::of(Sha256::new()).to_string(), "e3b0c442-98fc-8c14-9afb-f4c8996fb924");
    }
}
