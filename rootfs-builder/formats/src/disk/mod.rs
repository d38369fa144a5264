//! Disks: finished images as partitions, behind a table that says where they are.
//!
//! A partition begins at a whole MiB and is as long as its image, in sectors. With GPT (UEFI, chapter 5) it
//! has the type that the Discoverable Partitions Specification gives it, and a name of its own; what is in
//! its place in an MBR is a number of the disk. All these names are digests of the content.

mod gpt;
mod mbr;
mod plan;

use std::io::{self, Read, Seek, SeekFrom, Write};

use guest_arch::Arch;
use guest_tree::Content;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, reading_image, writing};
use crate::uuid::Uuid;
use crate::verity::RootHash;

const FORMAT: &str = "disk";

/// The size of a sector, whatever the device really has.
pub(crate) const SECTOR: u64 = 512;

/// Where partitions begin is a multiple of this.
const ALIGNMENT: u64 = 1 << 20;

/// The table at the start of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Any number of partitions that say what they are, and a copy of the table at the end.
    Gpt,
    /// Four partitions, of Linux, on a disk of 2 TiB at most.
    Mbr,
}

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The root file system.
    Root(Arch),
    /// Its hash tree.
    RootVerity(Arch),
    /// Any other file system of Linux.
    Data,
}

/// An image that becomes a partition.
#[derive(Debug, Clone)]
pub struct Partition {
    /// What it is for.
    pub role: Role,
    /// What it is called in a GPT: at most 36 characters.
    pub name: String,
    /// The image.
    pub content: Content,
    /// Whether it is to be mounted read-only only.
    pub read_only: bool,
    /// Its name; by default made of role and content. [`verity_uuids`] has those by which systemd finds a
    /// verified root.
    pub uuid: Option<Uuid>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// In bytes.
    pub size: u64,
    /// The disk's name.
    pub uuid: Uuid,
    /// The partitions, in their order.
    pub partitions: Vec<Place>,
}

/// Where a partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// In bytes from the start of the disk.
    pub start: u64,
    /// In bytes.
    pub length: u64,
    /// What the kernel knows it by: `root=PARTUUID=...`.
    pub partuuid: String,
}

/// The names of a root partition and of its hash tree by which systemd's generators find both for a root
/// hash: its first half and its second.
#[must_use]
pub fn verity_uuids(root: &RootHash) -> (Uuid, Uuid) {
    let (first, second) = root.0.split_at(16);
    (Uuid(first.try_into().expect("16 of 32 bytes")), Uuid(second.try_into().expect("16 of 32 bytes")))
}

/// Writes a disk to where `out` stands, and leaves `out` at its end. What is between partitions is not
/// written: it has to be zeros, or a hole, as in a new file.
pub fn write(partitions: &[Partition], scheme: Scheme, mut out: impl Write + Seek) -> Result<Written, Error> {
    let lengths: Vec<_> = partitions.iter().map(|partition| partition.content.len()).collect();
    let plan = plan::plan(&lengths, scheme)?;
    let names =
        partitions.iter().map(|partition| gpt::name(&partition.name)).collect::<Result<Vec<_>, _>>()?;
    let origin = out.stream_position().map_err(writing(FORMAT))?;

    let mut uuids = Vec::new();
    for (number, (partition, range)) in (1..).zip(partitions.iter().zip(&plan.partitions)) {
        out.seek(SeekFrom::Start(origin + range.start * SECTOR)).map_err(writing(FORMAT))?;
        let digest = copy(number, partition, &mut out)?;
        uuids.push(partition.uuid.unwrap_or_else(|| Uuid::of(digest)));
    }
    let uuid = disk_uuid(&plan, &uuids);
    let signature = mbr::signature(uuid);
    let table = match scheme {
        Scheme::Gpt => {
            let entries = partitions.iter().zip(names).zip(plan.partitions.iter().zip(&uuids));
            let entries = entries.map(|((partition, name), (range, uuid))| gpt::Entry {
                kind: partition.role.gpt_type(),
                uuid: *uuid,
                range: range.clone(),
                read_only: partition.read_only,
                name,
            });
            gpt::table(&entries.collect::<Vec<_>>(), uuid, plan.sectors)
        }
        Scheme::Mbr => vec![(0, mbr::record(&plan.partitions, signature).to_vec())],
    };
    put(&mut out, origin, plan.sectors, &table).map_err(writing(FORMAT))?;

    let partuuid = |number: usize| match scheme {
        Scheme::Gpt => uuids[number].to_string(),
        Scheme::Mbr => format!("{signature:08x}-{:02x}", number + 1),
    };
    let places = plan.partitions.iter().enumerate().map(|(number, range)| Place {
        start: range.start * SECTOR,
        length: (range.end - range.start) * SECTOR,
        partuuid: partuuid(number),
    });
    Ok(Written { size: plan.sectors * SECTOR, uuid, partitions: places.collect() })
}

/// A boot record that says where the partitions of a written disk are.
pub(crate) fn record_of(disk: &Written) -> [u8; SECTOR as usize] {
    let sectors = |place: &Place| place.start / SECTOR..(place.start + place.length) / SECTOR;
    let partitions: Vec<_> = disk.partitions.iter().map(sectors).collect();
    mbr::record(&partitions, mbr::signature(disk.uuid))
}

impl Role {
    fn gpt_type(self) -> Uuid {
        const LINUX_DATA: u128 = 0x0fc63daf_8483_4772_8e79_3d69d8477de4;
        Uuid(match self {
            Role::Root(arch) => arch.row().gpt_root.to_be_bytes(),
            Role::RootVerity(arch) => arch.row().gpt_root_verity.to_be_bytes(),
            Role::Data => LINUX_DATA.to_be_bytes(),
        })
    }
}

/// Copies an image; gives the digest that names the partition. The number is in it, or equal images had one
/// name.
fn copy(number: u32, partition: &Partition, out: &mut impl Write) -> Result<Sha256, Error> {
    let mut digest = Sha256::new();
    digest.update(number.to_le_bytes());
    digest.update(partition.role.gpt_type().0);
    let mut reader = partition.content.reader().map_err(reading_image(FORMAT))?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer).map_err(reading_image(FORMAT))? {
            0 => return Ok(digest),
            n => {
                digest.update(&buffer[..n]);
                out.write_all(&buffer[..n]).map_err(writing(FORMAT))?;
            }
        }
    }
}

fn disk_uuid(plan: &plan::Plan, uuids: &[Uuid]) -> Uuid {
    let mut digest = Sha256::new();
    digest.update(plan.sectors.to_le_bytes());
    for (range, uuid) in plan.partitions.iter().zip(uuids) {
        digest.update(range.start.to_le_bytes());
        digest.update(range.end.to_le_bytes());
        digest.update(uuid.0);
    }
    Uuid::of(digest)
}

/// Puts pieces at their sectors, and the disk's last byte where nothing else reaches to it.
fn put(
    out: &mut (impl Write + Seek),
    origin: u64,
    sectors: u64,
    pieces: &[(u64, Vec<u8>)],
) -> io::Result<()> {
    let end = origin + sectors * SECTOR;
    if out.stream_position()? < end {
        out.seek(SeekFrom::Start(end - 1))?;
        out.write_all(&[0])?;
    }
    for (sector, bytes) in pieces {
        out.seek(SeekFrom::Start(origin + sector * SECTOR))?;
        out.write_all(bytes)?;
    }
    out.seek(SeekFrom::Start(end))?;
    out.flush()
}
