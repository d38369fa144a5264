//! A pin: one file of a Debian archive, named so exactly that only its bytes can answer.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One pinned file. Pin files (`*.toml`) hold these field by field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// What a person calls it: the package's name.
    pub name: String,
    /// The package's version.
    pub version: String,
    /// Which archive holds it.
    #[serde(default)]
    pub archive: Archive,
    /// Path below the archive's base, as in apt's `Filename`: "pool/main/...".
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest in hexadecimal.
    pub sha256: String,
}

/// Debian's two archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Archive {
    /// Releases and backports.
    #[default]
    Debian,
    /// Security updates.
    DebianSecurity,
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

impl fmt::Display for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Archive::Debian => "debian",
            Archive::DebianSecurity => "debian-security",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_from_toml() {
        let text =
            "name='p'\nversion='1'\narchive='debian-security'\npath='pool/p.deb'\nsize=3\nsha256='00'\n";
        let pin: Pin = toml::from_str(text).unwrap();
        assert_eq!(pin.archive, Archive::DebianSecurity);
        assert_eq!(pin.to_string(), "p 1");
        assert!(toml::from_str::<Pin>(&format!("{text}shasum='00'\n")).is_err());
        assert!(toml::from_str::<Pin>(&text.replace("debian-security", "ubuntu")).is_err());
    }
}
