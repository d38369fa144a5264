//! Layers of a root file system, as an image builder makes them: erofs images, hashes behind them, partitions; and as they
//! must not be.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::{NamedTempFile, TempDir};

const BLOCK: usize = 4096;
const SECTOR: usize = 512;

/// An erofs image.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The image, and the hashes behind it if it has them.
    pub bytes: Vec<u8>,
    /// What all of it is checked against, in hexadecimal digits.
    pub root_hash: String,
    /// Where the hashes begin.
    pub hash_offset: usize,
}

impl Layer {
    /// An image with these files, each a path and its content.
    pub fn new(files: &[(&str, &[u8])]) -> Layer {
        let dir = TempDir::with_prefix("husk-layer-").expect("a temporary directory");
        let tree = dir.path().join("tree");
        for (path, content) in files {
            let path = tree.join(path);
            std::fs::create_dir_all(path.parent().expect("it is in the tree")).expect("a new directory");
            std::fs::write(path, content).expect("a new file");
        }
        let image = dir.path().join("image");
        run(&["mkfs.erofs".as_ref(), image.as_os_str(), tree.as_os_str()]);
        let mut bytes = std::fs::read(&image).expect("mkfs.erofs made it");
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        Layer { bytes, root_hash: String::new(), hash_offset: 0 }
    }

    /// The same with hashes behind it, as veritysetup writes them.
    pub fn with_hashes(mut self) -> Layer {
        let mut file = NamedTempFile::with_prefix("husk-layer-").expect("a temporary file");
        file.write_all(&self.bytes).expect("it can be written");
        self.hash_offset = self.bytes.len();
        let offset = format!("--hash-offset={}", self.hash_offset);
        let blocks = format!("--data-blocks={}", self.hash_offset / BLOCK);
        let path = file.path().as_os_str();
        let said =
            run(&["veritysetup".as_ref(), "format".as_ref(), path, path, offset.as_ref(), blocks.as_ref()]);
        let hash = said.lines().find_map(|line| line.strip_prefix("Root hash:"));
        self.root_hash = hash.expect("veritysetup tells the root hash").trim().into();
        self.bytes = std::fs::read(file.path()).expect("it is still there");
        self
    }

    /// The options with which a runtime asks for the check.
    pub fn check_options(&self) -> Vec<String> {
        let key = "X-kata.dmverity";
        vec![
            format!("{key}-enabled=true"),
            format!("{key}.roothash={}", self.root_hash),
            format!("{key}.hashoffset={}", self.hash_offset),
        ]
    }
}

/// A disk of these partitions, numbered from 1 (UEFI specification, chapter 5). The second copy of the table, at the
/// end, is left out; the kernel does without.
pub fn partitioned(partitions: &[&[u8]]) -> Vec<u8> {
    const FIRST: usize = 2048;
    let mut entries = vec![0; 128 * 128];
    let mut next = FIRST;
    let mut placed = Vec::new();
    for (entry, content) in entries.chunks_mut(128).zip(partitions) {
        let sectors = content.len().div_ceil(SECTOR);
        // "Linux filesystem data", and any number of its own.
        entry[..16].copy_from_slice(b"\xaf\x3d\xc6\x0f\x83\x84\x72\x47\x8e\x79\x3d\x69\xd8\x47\x7d\xe4");
        entry[16..24].copy_from_slice(&(next as u64).to_le_bytes());
        entry[32..40].copy_from_slice(&(next as u64).to_le_bytes());
        entry[40..48].copy_from_slice(&((next + sectors - 1) as u64).to_le_bytes());
        placed.push((next * SECTOR, *content));
        next = (next + sectors).next_multiple_of(FIRST);
    }
    let last = next + 2047;
    let mut disk = vec![0; (last + 1) * SECTOR];
    let mut header = vec![0; 92];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..16].copy_from_slice(&[0, 0, 1, 0, 92, 0, 0, 0]);
    for (at, sector) in [(24, 1), (32, last), (40, FIRST), (48, next - 1), (72, 2)] {
        header[at..at + 8].copy_from_slice(&(sector as u64).to_le_bytes());
    }
    header[56] = 1;
    header[80..88].copy_from_slice(&[128, 0, 0, 0, 128, 0, 0, 0]);
    header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
    let sum = crc32(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    // The table before this one says that the whole disk is taken.
    disk[450] = 0xee;
    disk[454..458].copy_from_slice(&1_u32.to_le_bytes());
    disk[458..462].copy_from_slice(&(last as u32).to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[SECTOR..SECTOR + header.len()].copy_from_slice(&header);
    disk[2 * SECTOR..2 * SECTOR + entries.len()].copy_from_slice(&entries);
    for (at, content) in placed {
        disk[at..at + content.len()].copy_from_slice(content);
    }
    disk
}

/// Exchanges the places of the first two partitions of a disk that has a GPT, in both of its tables, and makes their sums
/// right again.
pub fn exchange_partitions(disk: &mut [u8]) {
    let number =
        |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let copy = number(disk, SECTOR + 32) as usize;
    for header in [SECTOR, copy * SECTOR] {
        assert_eq!(disk[header..header + 8], *b"EFI PART", "a header is at byte {header}");
        let entries = number(disk, header + 72) as usize * SECTOR;
        // What they are and are called stays, first and last sector change.
        let (one, other) = disk[entries..entries + 256].split_at_mut(128);
        one[32..48].swap_with_slice(&mut other[32..48]);
        let sum = crc32(&disk[entries..entries + 128 * 128]);
        disk[header + 88..header + 92].copy_from_slice(&sum.to_le_bytes());
        disk[header + 16..header + 20].fill(0);
        let sum = crc32(&disk[header..header + 92]);
        disk[header + 16..header + 20].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Puts the hash tree of an image's data, as veritysetup makes it, in the place of the one behind the data, and returns the
/// root hash.
pub fn rehashed(image: &mut [u8], verity: &guest_manifest::Verity) -> String {
    let mut file = NamedTempFile::with_prefix("husk-layer-").expect("a temporary file");
    file.write_all(image).expect("it can be written");
    let (salt, uuid) = (format!("--salt={}", verity.salt), format!("--uuid={}", verity.uuid));
    let (offset, blocks) =
        (format!("--hash-offset={}", verity.hash_offset), format!("--data-blocks={}", verity.data_blocks));
    let words = ["veritysetup", "format", &salt, &uuid, &offset, &blocks].map(std::ffi::OsStr::new);
    let path = file.path().as_os_str();
    let said = run(&[&words[..], &[path, path]].concat());
    image.copy_from_slice(&std::fs::read(file.path()).expect("it is still there"));
    said.lines().find_map(|line| line.strip_prefix("Root hash:")).expect("veritysetup tells it").trim().into()
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// Runs a tool of the host's and returns what it prints.
fn run(command: &[&std::ffi::OsStr]) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut tool = Command::new(command[0]);
    tool.args(&command[1..]).env("PATH", path).stdin(Stdio::null());
    let output = tool.output().unwrap_or_else(|error| panic!("{}: {error}", Path::new(command[0]).display()));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
