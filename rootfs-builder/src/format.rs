//! The formats an image can have: their names, and the file that each of them is.

use std::fmt;
use std::str::FromStr;

use initrd::Compression;

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A ramdisk, which is all a VM needs: nothing is mounted, nothing can be changed on a disk.
    Initrd(Compression),
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 3] = [
        Format::Initrd(Compression::Zstd),
        Format::Initrd(Compression::Gzip),
        Format::Initrd(Compression::None),
    ];

    /// Its name in a recipe, on the command line and in the manifest.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Format::Initrd(Compression::Zstd) => guest_manifest::INITRD,
            Format::Initrd(Compression::Gzip) => "initrd-gz",
            Format::Initrd(Compression::None) => "initrd-none",
        }
    }

    /// The name of its file.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Format::Initrd(Compression::Zstd) => "initrd.cpio.zst",
            Format::Initrd(Compression::Gzip) => "initrd.cpio.gz",
            Format::Initrd(Compression::None) => "initrd.cpio",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        let known = Format::ALL.into_iter().find(|format| format.name() == name);
        known.ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}

/// A name that is no format's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownFormat(String);

impl fmt::Display for UnknownFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no format {:?}; known are", self.0)?;
        Format::ALL.iter().try_for_each(|format| write!(f, " {format}"))
    }
}

impl std::error::Error for UnknownFormat {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_files_tell_formats_apart() {
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
            assert_eq!(Format::ALL.iter().filter(|other| other.file() == format.file()).count(), 1);
        }
        let error = "qcow2".parse::<Format>().unwrap_err().to_string();
        assert!(error.starts_with("there is no format \"qcow2\"; known are initrd"), "{error}");
    }
}
