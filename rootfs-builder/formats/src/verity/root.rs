//! A root hash: 32 bytes that stand for every byte of an image.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

use super::{DIGEST, FORMAT};

/// The digest of a tree's highest block. Its text is hexadecimal, as in the kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootHash(pub [u8; DIGEST]);

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for RootHash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong =
            || Error::Corrupt { format: FORMAT, what: format!("{text:?} is not a root hash of 64 digits") };
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8).ok_or_else(wrong);
        if text.len() != 2 * DIGEST {
            return Err(wrong());
        }
        let mut bytes = [0; DIGEST];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(RootHash(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let root = RootHash(std::array::from_fn(|i| i as u8 * 8));
        assert_eq!(root.to_string().parse::<RootHash>().unwrap(), root);
        assert!(root.to_string().starts_with("000810"));
    }

    #[test]
    fn anything_else_is_refused() {
        let good = "00".repeat(32);
        for bad in ["", &good[1..], &format!("{good}0"), &good.replacen('0', "g", 1), &"é".repeat(32)] {
            assert!(bad.parse::<RootHash>().unwrap_err().to_string().contains("is not a root hash"), "{bad}");
        }
    }
}
