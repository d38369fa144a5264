//! The name of a container, which is also its id in the guest and its directory on the host.

use std::fmt;
use std::str::FromStr;

/// A checked name: `[A-Za-z0-9][A-Za-z0-9_.-]+`, at most 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

/// The longest name: a host name in the guest may not be longer either.
const MAX: usize = 64;

/// A name nobody may have.
#[derive(Debug, thiserror::Error)]
#[error("use 2 to 64 of A-Z a-z 0-9 _ . - and begin with a letter or a digit")]
pub struct BadName;

impl Name {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Name, BadName> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let good = (2..=MAX).contains(&text.len())
            && text.as_bytes()[0].is_ascii_alphanumeric()
            && text.bytes().all(inner);
        if good { Ok(Name(text.to_string())) } else { Err(BadName) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fit() {
        for name in ["ab", "a1_.-", "0x", &"n".repeat(64)] {
            assert_eq!(Name::from_str(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_that_do_not() {
        for name in ["", "a", ".a", "-a", "_a", "a/b", "..", "a b", "ä1", &"n".repeat(65)] {
            assert!(Name::from_str(name).is_err(), "{name}");
        }
    }
}
