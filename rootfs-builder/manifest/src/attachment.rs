//! How a VM gets at an image: the other half of a format's name. The builders write formats, the host runtime boots them,
//! and this table is what they have in common.

use std::path::Path;

use crate::{Error, FILE, INITRD, INITRD_PLAIN, Image, Manifest};

/// Where the kernel of a VM finds an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// In memory, beside itself.
    Ramdisk,
    /// On the VM's first disk, which nobody can write to.
    Disk,
    /// The same, and it may write there.
    ScratchDisk,
    /// In memory that is not RAM: an NVDIMM that nobody can write to.
    Nvdimm,
    /// It is in the image itself, which the VM's EFI firmware starts.
    Program,
}

/// Every format that a VM boots from.
const FORMATS: [(&str, Attachment); 11] = [
    (INITRD, Attachment::Ramdisk),
    (INITRD_PLAIN, Attachment::Ramdisk),
    ("initrd-gz", Attachment::Ramdisk),
    ("erofs", Attachment::Disk),
    ("squashfs", Attachment::Disk),
    ("ext4", Attachment::ScratchDisk),
    ("disk", Attachment::Disk),
    ("disk-mbr", Attachment::Disk),
    ("kata", Attachment::Disk),
    ("kata-dax", Attachment::Nvdimm),
    ("uki", Attachment::Program),
];

impl Attachment {
    /// Of a format; none for what no VM boots from.
    #[must_use]
    pub fn of(format: &str) -> Option<Attachment> {
        FORMATS.iter().find(|(name, _)| *name == format).map(|(_, attachment)| *attachment)
    }
}

impl Manifest {
    /// What to boot: the image of that format, else a ramdisk, which needs the least of a VM, else the first that boots.
    /// With it comes where the kernel finds it, and what the kernel must have on its command line. `dir` is the set's, for
    /// the words of an error.
    pub fn bootable(&self, dir: &Path, format: Option<&str>) -> Result<(&Image, Attachment, &str), Error> {
        let boots = |image: &&Image| Attachment::of(&image.format).is_some();
        let found = match format {
            Some(format) => self.image(format),
            None => {
                let ramdisks = FORMATS.iter().filter(|(_, attachment)| *attachment == Attachment::Ramdisk);
                let mut ramdisks = ramdisks.filter_map(|(format, _)| self.image(format));
                ramdisks.next().or_else(|| self.images.iter().find(boots))
            }
        };
        let image = found.ok_or_else(|| self.no_format(dir, format.unwrap_or(INITRD)))?;
        match (Attachment::of(&image.format), &image.cmdline) {
            (Some(attachment), Some(cmdline)) => Ok((image, attachment, cmdline)),
            (attachment, _) => {
                let (path, format) = (dir.join(FILE), image.format.clone());
                let lacks =
                    if attachment.is_none() { "is no format that a VM boots" } else { "has no command line" };
                Err(Error::NotBootable { path, format, lacks })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::set;

    use super::*;

    /// What is booted of a set with images of these formats: its format, or the error.
    fn booted(formats: &[&str], wanted: Option<&str>) -> Result<(String, Attachment), String> {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = set(dir.path());
        let image = manifest.images[0].clone();
        let of = |format: &&str| Image { format: (*format).to_owned(), ..image.clone() };
        manifest.images = formats.iter().map(of).collect();
        // A VM has nothing to boot there.
        manifest
            .images
            .iter_mut()
            .filter(|image| image.format == "oci")
            .for_each(|image| image.cmdline = None);
        let found = manifest.bootable(Path::new("/x"), wanted);
        found.map(|(image, attachment, _)| (image.format.clone(), attachment)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_ramdisk_comes_first_and_then_the_first_that_boots() {
        let of = |format: &str, attachment| Ok((format.to_owned(), attachment));
        assert_eq!(booted(&["erofs", "initrd-gz", "initrd"], None), of("initrd", Attachment::Ramdisk));
        assert_eq!(booted(&["erofs", "initrd-none"], None), of("initrd-none", Attachment::Ramdisk));
        assert_eq!(booted(&["oci", "erofs", "ext4"], None), of("erofs", Attachment::Disk));
        assert_eq!(booted(&["erofs", "ext4"], Some("ext4")), of("ext4", Attachment::ScratchDisk));
        assert_eq!(booted(&["kata-dax"], None), of("kata-dax", Attachment::Nvdimm));
    }

    #[test]
    fn what_cannot_be_booted_is_told_by_name() {
        let error = booted(&["initrd", "erofs"], Some("squashfs")).unwrap_err();
        let wanted = "artefacts /x/manifest.json: there is no squashfs in this set (initrd, erofs): build it with \
                      --format squashfs";
        assert_eq!(error, wanted);
        assert!(booted(&["oci"], None).unwrap_err().contains("there is no initrd in this set (oci)"));
        let error = booted(&["oci"], Some("oci")).unwrap_err();
        assert_eq!(error, "artefacts /x/manifest.json: oci is no format that a VM boots");
    }

    #[test]
    fn a_format_without_a_command_line_is_told_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = set(dir.path());
        manifest.images[0].cmdline = None;
        let error = manifest.bootable(Path::new("/x"), Some("erofs")).unwrap_err().to_string();
        assert_eq!(error, "artefacts /x/manifest.json: erofs has no command line");
    }
}
