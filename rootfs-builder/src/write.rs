//! A tree in one format: the file, and what the manifest says of it.
//!
//! A format that is only read comes with its hash tree, and with the command line that makes the kernel refuse any other
//! bytes: with `panic_on_corruption`, since a guest whose root was changed has nothing left that it could trust.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use guest_arch::Arch;
use guest_formats::disk::{self, Partition, Role, Scheme};
use guest_formats::verity::{self, BLOCK, HashPlace, HashTree, Mapping, OnCorruption};
use guest_formats::{erofs, ext4, kata, oci, squashfs, uki};
use guest_manifest::{Artefact, Extension, Image, Verity};
use guest_tree::{Content, Tree};
use kernel_config::Kernel;
use tempfile::NamedTempFile;

use crate::error::{Error, at};
use crate::format::Format;

/// The time of every file in every image, in seconds since 1970. None is as true as any other; this one is what most
/// people know for "no time".
const TIME: u32 = 0;

/// What a file system that is written to has beside its content.
const ROOM: u64 = 16 << 20;

/// The disk that a guest finds its root on: the first of the machine.
const DISK: &str = "/dev/vda";

/// The label of a file system that can have one.
const LABEL: &str = "husk";

/// What the runtimes of Kata Containers have on the command line for an ext4 root.
const KATA_FLAGS: [&str; 4] =
    ["root=/dev/vda1", "rootflags=data=ordered,errors=remount-ro", "ro", "rootfstype=ext4"];
const KATA_DAX_FLAGS: [&str; 4] =
    ["root=/dev/pmem0p1", "rootflags=dax,data=ordered,errors=remount-ro", "ro", "rootfstype=ext4"];

/// What an image is of.
pub(crate) struct Root<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) arch: Arch,
    /// What any guest of the recipe has on its command line.
    pub(crate) cmdline: &'a [String],
    /// The name of the image where a format has a place for one.
    pub(crate) name: &'a str,
    pub(crate) kernel: &'a Kernel,
    /// What a unified kernel image begins with, if one is to be written.
    pub(crate) efi_stub: Option<&'a Path>,
    /// Two formats are made of it: see [`Root::ramdisk`].
    pub(crate) ramdisk: Mutex<Option<Arc<[u8]>>>,
}

impl Root<'_> {
    /// The tree as our kernels unpack it. Whoever comes while it is being packed waits for it.
    fn ramdisk(&self) -> Result<Arc<[u8]>, Error> {
        let mut packed = self.ramdisk.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(packed) = &*packed {
            return Ok(packed.clone());
        }
        let ramdisk: Arc<[u8]> = initrd::to_vec(self.tree, TIME, initrd::Compression::Zstd)?.into();
        Ok(packed.insert(ramdisk).clone())
    }
}

/// Writes a root in a format into a directory.
pub(crate) fn image(format: Format, root: &Root<'_>, into: &Path) -> Result<Image, Error> {
    let path = into.join(format.file());
    let mut out = create(&path)?;
    let tree = match format {
        Format::Initrd(initrd::Compression::Zstd) => {
            out.write_all(&root.ramdisk()?).map_err(at("write", &path))?;
            None
        }
        Format::Initrd(compression) => {
            initrd::write(root.tree, TIME, compression, &mut out)?;
            None
        }
        Format::Erofs => {
            write_erofs(root.tree, &mut out)?;
            Some(append_tree(&mut out, &path)?)
        }
        Format::Squashfs => {
            let compression = squashfs::Compression::Zstd;
            squashfs::write(root.tree, &squashfs::Options { time: TIME.into(), compression }, &mut out)?;
            Some(append_tree(&mut out, &path)?)
        }
        Format::Ext4 => {
            let options = ext4::Options { size: ext4::Size::Free(ROOM), ..ext4_options() };
            ext4::write(root.tree, &options, &mut out)?;
            None
        }
        Format::Disk(scheme) => Some(write_disk(root, scheme, &mut out, into)?),
        Format::Kata(head) => Some(write_kata(root, head, &mut out, into)?),
        Format::Uki => {
            out.write_all(&unified(root)?).map_err(at("write", &path))?;
            None
        }
        Format::Oci => {
            write_oci(root, &mut out, into)?;
            None
        }
    };
    out.flush().map_err(at("write", &path))?;
    let verity = match (tree, mapping_of(format)) {
        (Some(hashed), Some(mapping)) => Some(hashed.described(&mapping)?),
        _ => None,
    };
    Ok(Image {
        format: format.name().to_owned(),
        artefact: Artefact::measure(into, format.file())?,
        cmdline: cmdline(format, &root.cmdline.join(" "), verity.as_ref()),
        verity,
    })
}

/// The command line of a guest that has its root in a format; `common` is what all guests of its recipe have. None for
/// what no kernel boots from.
pub(crate) fn cmdline(format: Format, common: &str, verity: Option<&Verity>) -> Option<String> {
    let verified = |kind: &str| -> Vec<String> {
        let argument = verity.map(|verity| verity.dm_mod_create.clone());
        let words = ["root=/dev/dm-0".to_owned(), format!("rootfstype={kind}"), "ro".to_owned()];
        words.into_iter().chain(argument).collect()
    };
    let words = match format {
        Format::Initrd(_) | Format::Uki => vec![],
        Format::Erofs | Format::Disk(_) => verified("erofs"),
        Format::Squashfs => verified("squashfs"),
        Format::Ext4 => vec![format!("root={DISK}"), "rootfstype=ext4".to_owned(), "rw".to_owned()],
        Format::Kata(kata::Head::None) => KATA_FLAGS.map(str::to_owned).to_vec(),
        Format::Kata(kata::Head::Dax) => KATA_DAX_FLAGS.map(str::to_owned).to_vec(),
        Format::Oci => return None,
    };
    let words = std::iter::once(common.to_owned()).chain(words).filter(|word| !word.is_empty());
    Some(words.collect::<Vec<_>>().join(" "))
}

/// How a guest gets to the verified root of a format that has one.
pub(crate) fn mapping_of(format: Format) -> Option<Mapping<'static>> {
    let (disk, place) = match format {
        Format::Erofs | Format::Squashfs => (DISK, HashPlace::Appended),
        Format::Disk(_) => ("/dev/vda1", HashPlace::Device("/dev/vda2")),
        Format::Kata(kata::Head::None) => ("/dev/vda1", HashPlace::Bare("/dev/vda2")),
        Format::Kata(kata::Head::Dax) => ("/dev/pmem0p1", HashPlace::Bare("/dev/pmem0p2")),
        Format::Initrd(_) | Format::Ext4 | Format::Oci | Format::Uki => return None,
    };
    Some(mapping("root", 0, disk, place))
}

/// The partitions of an extension, which is on the `index`th disk behind the root's.
pub(crate) fn partitions_of_extension(index: u32) -> [String; 2] {
    let disk = char::from(b'b' + u8::try_from(index).unwrap_or(u8::MAX).min(24));
    [format!("/dev/vd{disk}1"), format!("/dev/vd{disk}2")]
}

/// How a kernel gets at an extension by itself. A guest of ours has its agent for that, which asks for a serial number.
pub(crate) fn mapping_of_extension<'a>(
    name: &'a str,
    index: u32,
    partitions: &'a [String; 2],
) -> Mapping<'a> {
    let [data, hashes] = partitions;
    mapping(name, index + 1, data, HashPlace::Bare(hashes))
}

/// What the command line says of an extension, to the agent as to the guests of Kata's runtimes.
pub(crate) fn cmdline_of_extension(name: &str, verity: &Verity) -> String {
    format!("kata.extension.{name}.verity_params={}", verity.kata_params())
}

fn mapping<'a>(name: &'a str, minor: u32, data_device: &'a str, hash: HashPlace<'a>) -> Mapping<'a> {
    Mapping { name, minor, data_device, hash, on_corruption: OnCorruption::Panic }
}

/// A unified kernel image: it boots what `initrd` boots, from one file.
fn unified(root: &Root<'_>) -> Result<Vec<u8>, Error> {
    let stub = root.efi_stub.ok_or(Error::NoStub(root.arch))?;
    let stub = fs::read(stub).map_err(at("read", stub))?;
    let linux = efi_program(root.kernel)?;
    let initrd = root.ramdisk()?;
    let parts = uki::Parts {
        os_release: &format!("ID=husk\nNAME=Husk\nPRETTY_NAME=\"Husk {}\"\n", root.name),
        cmdline: &root.cmdline.join(" "),
        uname: &root.kernel.version,
        initrd: &initrd,
        linux: &linux,
    };
    Ok(uki::image(&stub, root.arch, &parts)?)
}

/// The kernel as firmware starts it: x86's compressed one is an EFI program that unpacks itself, that of others is a gzip file.
fn efi_program(kernel: &Kernel) -> Result<Vec<u8>, Error> {
    let read = |path: &Path| fs::read(path).map_err(at("read", path));
    let compressed = read(&kernel.compressed)?;
    if compressed.starts_with(b"MZ") { Ok(compressed) } else { read(&kernel.image) }
}

/// Writes an extension: a disk as Kata's runtimes attach one, with an erofs and its hash tree.
pub(crate) fn extension(name: &str, index: u32, tree: &Tree, into: &Path) -> Result<Extension, Error> {
    let file = format!("extension-{name}.img");
    let mut out = create(&into.join(&file))?;
    let mut file_system = scratch(into)?;
    write_erofs(tree, file_system.as_file_mut())?;
    let hashed = write_partitions(file_system, kata::Head::None, &mut out)?;
    let verity = hashed.described(&mapping_of_extension(name, index, &partitions_of_extension(index)))?;
    let cmdline = cmdline_of_extension(name, &verity);
    Ok(Extension { name: name.to_owned(), artefact: Artefact::measure(into, &file)?, cmdline, verity })
}

/// A hash tree, and where in the file its data and its superblock are.
struct Hashed {
    tree: HashTree,
    data: u64,
    hashes: u64,
}

impl Hashed {
    /// What the manifest says of it.
    fn described(&self, mapping: &Mapping<'_>) -> Result<Verity, Error> {
        let superblock = &self.tree.verity.superblock;
        Ok(Verity {
            root_hash: self.tree.verity.root.to_string(),
            salt: superblock.salt.iter().map(|b| format!("{b:02x}")).collect(),
            uuid: superblock.uuid.to_string(),
            block_size: BLOCK as u32,
            data_blocks: superblock.data_blocks,
            data_offset: self.data,
            hash_offset: self.hashes,
            superblock: !matches!(mapping.hash, HashPlace::Bare(_)),
            dm_mod_create: mapping.kernel_argument(&self.tree.verity)?,
        })
    }
}

fn create(path: &Path) -> Result<File, Error> {
    let file = File::options().read(true).write(true).create_new(true).open(path);
    file.map_err(at("create", path))
}

fn write_erofs(tree: &Tree, out: &mut File) -> Result<(), Error> {
    let options = erofs::Options { time: TIME.into(), compression: erofs::Compression::None };
    erofs::write(tree, &options, out)?;
    Ok(())
}

fn ext4_options() -> ext4::Options {
    ext4::Options { time: TIME.into(), label: LABEL.to_owned(), size: ext4::Size::Exact, journal: true }
}

/// Hashes what is in a file and puts the hash tree behind it.
fn append_tree(out: &mut File, path: &Path) -> Result<Hashed, Error> {
    let tree = verity::build(&mut *out, &verity::Options::default())?;
    let written = out.seek(SeekFrom::End(0)).and_then(|_| out.write_all(&tree.device));
    written.map_err(at("write", path))?;
    let hashes = tree.verity.superblock.data_blocks * BLOCK as u64;
    Ok(Hashed { tree, data: 0, hashes })
}

/// A disk with the root in its first partition and the hash tree in its second, under the names by which systemd's
/// generators find both.
fn write_disk(root: &Root<'_>, scheme: Scheme, out: &mut File, into: &Path) -> Result<Hashed, Error> {
    let mut file_system = scratch(into)?;
    write_erofs(root.tree, file_system.as_file_mut())?;
    let tree = verity::build(file_system.as_file_mut(), &verity::Options::default())?;
    let (root_name, tree_name) = disk::verity_uuids(&tree.verity.root);
    let partition = |role, name: &str, content, uuid| Partition {
        role,
        name: name.to_owned(),
        content,
        read_only: true,
        uuid: Some(uuid),
    };
    let partitions = [
        partition(Role::Root(root.arch), "root", content_of(&file_system)?, root_name),
        partition(Role::RootVerity(root.arch), "root-verity", tree.device.clone().into(), tree_name),
    ];
    let written = disk::write(&partitions, scheme, out)?;
    Ok(in_partitions(tree, &written))
}

fn write_kata(root: &Root<'_>, head: kata::Head, out: &mut File, into: &Path) -> Result<Hashed, Error> {
    let mut file_system = scratch(into)?;
    ext4::write(root.tree, &ext4_options(), file_system.as_file_mut())?;
    write_partitions(file_system, head, out)
}

/// A file system in the first partition, the bare tree of its hashes in the second.
fn write_partitions(
    mut file_system: NamedTempFile,
    head: kata::Head,
    out: &mut File,
) -> Result<Hashed, Error> {
    let tree = verity::build(file_system.as_file_mut(), &verity::Options::default())?;
    let mut hashes = tree.bare().to_vec();
    if hashes.is_empty() {
        // A single block is checked by the root hash alone, but no partition is empty.
        hashes.resize(BLOCK, 0);
    }
    let hashes = Content::from(hashes);
    let written = kata::write(&content_of(&file_system)?, Some(&hashes), head, out)?;
    Ok(in_partitions(tree, &written))
}

/// Data in the first partition, hashes in the second.
fn in_partitions(tree: HashTree, written: &disk::Written) -> Hashed {
    let [data, hashes] = &written.partitions[..] else { unreachable!("two partitions were written") };
    Hashed { tree, data: data.start, hashes: hashes.start }
}

/// The layout in one file, as `oci-archive:` of other tools has it: in the order of paths, nobody's, from no time.
fn write_oci(root: &Root<'_>, out: &mut File, into: &Path) -> Result<(), Error> {
    let directory = tempfile::tempdir_in(into).map_err(at("create a directory in", into))?;
    let options = oci::Options {
        time: TIME.into(),
        arch: root.arch,
        reference: root.name.to_owned(),
        process: oci::Process::default(),
    };
    let layout = directory.path().join("layout");
    let written = oci::write(root.tree, &options, &layout)?;
    let archived = || -> io::Result<()> {
        let mut archive = tar::Builder::new(io::BufWriter::new(out));
        for name in &written.files {
            let path = layout.join(name);
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(0o644);
            header.set_size(fs::metadata(&path)?.len());
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(TIME.into());
            archive.append_data(&mut header, name, File::open(&path)?)?;
        }
        archive.into_inner()?.flush()
    };
    archived().map_err(at("write", into.join(Format::Oci.file())))
}

/// A file that is part of another one and goes when that is written.
fn scratch(into: &Path) -> Result<NamedTempFile, Error> {
    NamedTempFile::new_in(into).map_err(at("create a file in", into))
}

fn content_of(file: &NamedTempFile) -> Result<Content, Error> {
    Content::of_file(file.path()).map_err(at("measure", file.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_gets_a_kernel_that_it_can_start() {
        let dir = tempfile::tempdir().unwrap();
        let [image, compressed] = ["Image", "Image.gz"].map(|name| dir.path().join(name));
        fs::write(&image, "MZ image").unwrap();
        let kernel =
            Kernel { image, compressed: compressed.clone(), config: "".into(), version: "6.12".to_owned() };
        fs::write(&compressed, "\x1f gzip").unwrap();
        assert_eq!(efi_program(&kernel).unwrap(), b"MZ image");
        fs::write(&compressed, "MZ unpacks itself").unwrap();
        assert_eq!(efi_program(&kernel).unwrap(), b"MZ unpacks itself");
    }
}
