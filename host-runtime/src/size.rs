//! An amount of guest memory, as typed: `256M`, `1G`, `262144K` or plain bytes.

use std::str::FromStr;

/// Guest memory in whole MiB, never less than [`Memory::MIN_MIB`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory(u64);

impl Memory {
    /// Below this a guest cannot hold its kernel, its initrd and a workload.
    pub const MIN_MIB: u64 = 64;
    const MAX_MIB: u64 = 1 << 20;

    /// `mib` MiB.
    pub fn from_mib(mib: u64) -> Result<Memory, BadMemory> {
        match mib {
            ..Self::MIN_MIB => Err(BadMemory::TooSmall),
            Self::MIN_MIB..=Self::MAX_MIB => Ok(Memory(mib)),
            _ => Err(BadMemory::TooLarge),
        }
    }

    /// In MiB.
    pub fn mib(self) -> u64 {
        self.0
    }
}

/// An amount no guest gets.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadMemory {
    /// Not digits with an optional unit.
    #[error("write it as 256M or 1G")]
    Unreadable,
    /// Less than [`Memory::MIN_MIB`].
    #[error("a guest needs at least {}M", Memory::MIN_MIB)]
    TooSmall,
    /// More than a terabyte.
    #[error("a guest gets at most {}G", Memory::MAX_MIB >> 10)]
    TooLarge,
}

impl FromStr for Memory {
    type Err = BadMemory;

    fn from_str(text: &str) -> Result<Memory, BadMemory> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| BadMemory::Unreadable)?;
        let unit: u64 = match unit.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
            "" => 1,
            "k" => 1 << 10,
            "m" => 1 << 20,
            "g" => 1 << 30,
            "t" => 1 << 40,
            _ => return Err(BadMemory::Unreadable),
        };
        let bytes = number.checked_mul(unit).ok_or(BadMemory::TooLarge)?;
        Memory::from_mib(bytes >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_that_fit() {
        for (text, mib) in [("256M", 256), ("1g", 1024), ("64MiB", 64), ("268435456", 256), ("131072K", 128)]
        {
            assert_eq!(text.parse::<Memory>().map(Memory::mib), Ok(mib), "{text}");
        }
    }

    #[test]
    fn amounts_that_do_not() {
        assert_eq!("1M".parse::<Memory>(), Err(BadMemory::TooSmall));
        assert_eq!("63M".parse::<Memory>(), Err(BadMemory::TooSmall));
        assert_eq!("99999999999999999T".parse::<Memory>(), Err(BadMemory::TooLarge));
        assert_eq!("2T".parse::<Memory>(), Err(BadMemory::TooLarge));
        for text in ["", "M", "-1M", "1.5G", "256X", "256 M"] {
            assert_eq!(text.parse::<Memory>(), Err(BadMemory::Unreadable), "{text}");
        }
    }
}
