//! The kinds of kernel there are: one that ships, one to look inside of, one that trusts nobody.

use std::{fmt, str::FromStr};

/// Which fragments are added to those of every kernel: `fragments/variants/<name>/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Variant {
    /// What a guest needs, with every mitigation and the cheap defences.
    #[default]
    Lean,
    /// With tracers, probes, types for BPF programs, and the configuration in `/proc/config.gz`.
    Debug,
    /// Lean with lockdown, integrity policy, and checks that cost time.
    Hardened,
}

impl Variant {
    /// Every variant, the default first.
    pub const ALL: [Variant; 3] = [Variant::Lean, Variant::Debug, Variant::Hardened];

    /// Its name, as on the command line and in paths.
    pub const fn name(self) -> &'static str {
        match self {
            Variant::Lean => "lean",
            Variant::Debug => "debug",
            Variant::Hardened => "hardened",
        }
    }

    /// Whether its kernel carries type information, which `pahole` makes.
    pub const fn has_types(self) -> bool {
        matches!(self, Variant::Debug)
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that no variant has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVariant(String);

impl fmt::Display for UnknownVariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown kernel variant {:?}; known are", self.0)?;
        Variant::ALL.iter().try_for_each(|variant| write!(f, " {variant}"))
    }
}

impl std::error::Error for UnknownVariant {}

impl FromStr for Variant {
    type Err = UnknownVariant;

    fn from_str(name: &str) -> Result<Self, UnknownVariant> {
        let mut all = Variant::ALL.into_iter();
        all.find(|variant| variant.name() == name).ok_or_else(|| UnknownVariant(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_others_are_refused_with_the_list() {
        for variant in Variant::ALL {
            assert_eq!(variant.to_string().parse(), Ok(variant));
        }
        let error = "fast".parse::<Variant>().unwrap_err().to_string();
        assert_eq!(error, "unknown kernel variant \"fast\"; known are lean debug hardened");
    }
}
