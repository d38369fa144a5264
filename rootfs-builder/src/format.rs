//! The formats an image can have: their names, and the file that each of them is.

use std::fmt;
use std::str::FromStr;

use guest_arch::Arch;
use guest_formats::disk::Scheme;
use guest_formats::kata::Head;
use initrd::Compression;

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A ramdisk, which is all a VM needs: nothing is mounted, nothing can be changed on a disk.
    Initrd(Compression),
    /// A read-only file system, whole disk, with its hash tree behind it.
    Erofs,
    /// Another read-only file system with its hash tree, for those whose tools know no erofs.
    Squashfs,
    /// A file system that may be written to, whole disk.
    Ext4,
    /// The erofs and its hash tree as partitions of a disk.
    Disk(Scheme),
    /// A disk as the runtimes of Kata Containers boot it: a read-only ext4 in the first partition.
    Kata(Head),
    /// An OCI image layout, in one file.
    Oci,
    /// Kernel, ramdisk and command line as one program for EFI firmware.
    Uki,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 12] = [
        Format::Initrd(Compression::Zstd),
        Format::Initrd(Compression::Gzip),
        Format::Initrd(Compression::None),
        Format::Erofs,
        Format::Squashfs,
        Format::Ext4,
        Format::Disk(Scheme::Gpt),
        Format::Disk(Scheme::Mbr),
        Format::Kata(Head::None),
        Format::Kata(Head::Dax),
        Format::Oci,
        Format::Uki,
    ];

    /// All that an architecture has.
    #[must_use]
    pub fn all_for(arch: Arch) -> Vec<Format> {
        let has_efi = crate::efi_stub::is_there(arch);
        Format::ALL.into_iter().filter(|format| has_efi || *format != Format::Uki).collect()
    }

    /// Its name in a recipe, on the command line and in the manifest; and the name of its file.
    const fn row(self) -> (&'static str, &'static str) {
        match self {
            Format::Initrd(Compression::Zstd) => (guest_manifest::INITRD, "initrd.cpio.zst"),
            Format::Initrd(Compression::Gzip) => ("initrd-gz", "initrd.cpio.gz"),
            Format::Initrd(Compression::None) => (guest_manifest::INITRD_PLAIN, "initrd.cpio"),
            Format::Erofs => ("erofs", "rootfs.erofs"),
            Format::Squashfs => ("squashfs", "rootfs.squashfs"),
            Format::Ext4 => ("ext4", "rootfs.ext4"),
            Format::Disk(Scheme::Gpt) => ("disk", "disk-gpt.raw"),
            Format::Disk(Scheme::Mbr) => ("disk-mbr", "disk-mbr.raw"),
            Format::Kata(Head::None) => ("kata", "kata.img"),
            Format::Kata(Head::Dax) => ("kata-dax", "kata-dax.img"),
            Format::Oci => ("oci", "rootfs.oci.tar"),
            Format::Uki => ("uki", "husk.efi"),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// The name of its file.
    #[must_use]
    pub const fn file(self) -> &'static str {
        self.row().1
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
    fn only_machines_with_efi_have_its_format() {
        let has_uki = |arch| Format::all_for(arch).contains(&Format::Uki);
        assert_eq!(Arch::ALL.map(has_uki), [true, true, false, false, false]);
    }

    #[test]
    fn names_and_files_tell_formats_apart() {
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
            assert_eq!(Format::ALL.iter().filter(|other| other.file() == format.file()).count(), 1);
        }
        // All that a kernel boots from has a place in a VM.
        let boots = |format: &Format| guest_manifest::Attachment::of(format.name()).is_some();
        assert_eq!(
            Format::ALL.into_iter().filter(|format| !boots(format)).collect::<Vec<_>>(),
            [Format::Oci]
        );
        let error = "qcow2".parse::<Format>().unwrap_err().to_string();
        assert!(error.starts_with("there is no format \"qcow2\"; known are initrd"), "{error}");
    }
}
