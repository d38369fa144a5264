//! The disk that the runtimes of Kata Containers boot: its first partition is the root, ext4 or erofs, the
//! second, if there is one, the hash tree of the first, with no superblock before it: Kata's runtimes make the
//! kernel's table of their `kernel_verity_params`, and it begins at block 0 of that partition.
//!
//! An ext4 root has to have a journal ([`ext4::Options::journal`](crate::ext4::Options)): Kata mounts it with
//! `data=ordered`, which the kernel refuses without one.
//!
//! For a virtual NVDIMM there is a head of 2 MiB before the disk: a boot record with the partitions as seen
//! from there, for everyone who reads the file as it is, and the block by which the kernel's driver makes a
//! device of what is behind the head (`struct nd_pfn_sb` in its drivers/nvdimm/pfn.h). That device is mapped
//! in pages of 2 MiB, so its size is rounded up to a multiple of them. All other sizes are exact.

use std::io::{self, Seek, SeekFrom, Write};

use guest_tree::Content;

use crate::disk::{self, Partition, Role, SECTOR, Scheme, Written};
use crate::error::{Error, writing};
use crate::uuid::Uuid;

const FORMAT: &str = "kata";

/// The length of the head, and what the device's size is a multiple of: the size of a huge page.
const HEAD: u64 = 2 << 20;

/// Where in the head the driver looks, and how much it reads.
const INFO_BLOCK: u64 = 4096;

const PAGE: u64 = 4096;

/// Whether the kernel finds the disk on an NVDIMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// No: it is a virtio disk.
    None,
    /// Yes, and reads files in the host's own pages.
    Dax,
}

/// Writes the disk to where `out` stands, and leaves `out` at its end. What is between the partitions is not
/// written: it has to be zeros, or a hole, as in a new file.
pub fn write(
    root: &Content,
    hash_tree: Option<&Content>,
    head: Head,
    mut out: impl Write + Seek,
) -> Result<Written, Error> {
    let partition = |content: &Content| Partition {
        role: Role::Data,
        name: String::new(),
        content: content.clone(),
        read_only: false,
        uuid: None,
    };
    let partitions: Vec<_> = [Some(root), hash_tree].into_iter().flatten().map(partition).collect();
    if head == Head::None {
        return disk::write(&partitions, Scheme::Mbr, out);
    }
    let origin = out.stream_position().map_err(writing(FORMAT))?;
    out.seek(SeekFrom::Start(origin + HEAD)).map_err(writing(FORMAT))?;
    let mut written = disk::write(&partitions, Scheme::Mbr, &mut out)?;
    let device = written.size.next_multiple_of(HEAD);
    written.partitions.iter_mut().for_each(|place| place.start += HEAD);
    let record = disk::record_of(&written);
    let size = HEAD + device;
    put_head(&mut out, origin, size, &record, &info_block(written.uuid, device)).map_err(writing(FORMAT))?;
    Ok(Written { size, ..written })
}

fn put_head(
    out: &mut (impl Write + Seek),
    origin: u64,
    size: u64,
    record: &[u8; SECTOR as usize],
    info: &[u8; INFO_BLOCK as usize],
) -> io::Result<()> {
    if out.stream_position()? < origin + size {
        out.seek(SeekFrom::Start(origin + size - 1))?;
        out.write_all(&[0])?;
    }
    out.seek(SeekFrom::Start(origin))?;
    out.write_all(record)?;
    out.seek(SeekFrom::Start(origin + INFO_BLOCK))?;
    out.write_all(info)?;
    out.seek(SeekFrom::Start(origin + size))?;
    out.flush()
}

/// Says that data begins behind the head, and that the kernel keeps its notes on the pages in memory, not
/// here. The device that it is on has no label and so no name, which is why the parent's stays zero.
fn info_block(uuid: Uuid, device: u64) -> [u8; INFO_BLOCK as usize] {
    const NOTES_IN_MEMORY: u32 = 1;
    let mut block = [0; INFO_BLOCK as usize];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"NVDIMM_PFN_INFO\0");
    put(16, &uuid.0);
    // At 32 the parent's name, at 48 flags.
    put(52, &1u16.to_le_bytes()); // version 1.3: alignment is given, and the rest is zero
    put(54, &3u16.to_le_bytes());
    put(56, &HEAD.to_le_bytes()); // where data begins
    put(64, &(device / PAGE).to_le_bytes());
    put(72, &NOTES_IN_MEMORY.to_le_bytes());
    // At 76 and 80 what is left out at the start and at the end: nothing.
    put(84, &(HEAD as u32).to_le_bytes()); // alignment
    let checksum = fletcher64(&block);
    block[INFO_BLOCK as usize - 8..].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// Fletcher's sums over words of 32 bits, as the kernel's `nd_fletcher64` computes them.
fn fletcher64(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes")));
    let (low, high) = words.fold((0u32, 0u32), |(low, high), word| {
        let low = low.wrapping_add(word);
        (low, high.wrapping_add(low))
    });
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_are_of_words() {
        let bytes: Vec<u8> = [1u32, 2, u32::MAX].iter().flat_map(|word| word.to_le_bytes()).collect();
        // 1, 3, 2 and their sum.
        assert_eq!(fletcher64(&bytes), 6 << 32 | 2);
    }

    #[test]
    fn the_info_block_is_as_long_as_the_drivers() {
        let block = info_block(Uuid([7; 16]), 4 << 20);
        assert_eq!(block[..16], *b"NVDIMM_PFN_INFO\0");
        assert_eq!(block[16..52], [[7; 16].as_slice(), &[0; 20]].concat());
        let fields = [1, 0, 3, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        assert_eq!(block[52..76], fields);
        assert_eq!(block[76..88], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0]);
        assert!(block[88..4088].iter().all(|byte| *byte == 0));
        let mut without = block;
        without[4088..].fill(0);
        assert_eq!(block[4088..], fletcher64(&without).to_le_bytes());
    }
}
