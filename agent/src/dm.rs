//! Devices on top of devices: checked against a root hash (dm-verity), or encrypted (dm-crypt).
//!
//! The device mapper is asked directly, by the requests of linux/dm-ioctl.h, which spares the guest the tools and the
//! daemon that usually do so.

use std::fs::File;
use std::io::{self, Cursor, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::sys::stat::{major, minor};

use crate::sys;

const CONTROL: &str = "/dev/mapper/control";

/// The kernel's unit of a device's length, whatever the device's own is.
const SECTOR: u64 = 512;

// Numbers and flags of linux/dm-ioctl.h.
const CREATE: u8 = 3;
const REMOVE: u8 = 4;
const SUSPEND: u8 = 6;
const LOAD: u8 = 9;
const READ_ONLY: u32 = 1 << 0;
const SECURE_DATA: u32 = 1 << 15;
const DEFERRED_REMOVE: u32 = 1 << 17;

/// Offsets in struct dm_ioctl, and the lengths of it and of struct dm_target_spec.
const NAME: usize = 48;
const NAME_LENGTH: usize = 128;
const HEADER: usize = 312;
const TARGET: usize = 40;

/// Header, target, and the longest parameters there are: a salt of 256 bytes in hexadecimal digits is the most of them.
const REQUEST: usize = 2048;

/// A device that was made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Device {
    name: String,
    minor: u32,
}

/// What a verity device is checked against; the names are those of the kernel's table line
/// (Documentation/admin-guide/device-mapper/verity.rst).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verity {
    pub(crate) hash_type: u32,
    pub(crate) data_block_size: u32,
    pub(crate) hash_block_size: u32,
    pub(crate) data_blocks: u64,
    /// Where the hashes begin on their device, in blocks of their own size.
    pub(crate) hash_start: u64,
    pub(crate) algorithm: String,
    pub(crate) root_hash: String,
    /// Hexadecimal; `-` for none.
    pub(crate) salt: String,
}

/// Makes a device that shows `data` and fails to read what does not fit the root hash. The hashes may be on the same node.
pub(crate) fn verify(data: &Path, hashes: &Path, verity: &Verity) -> io::Result<Device> {
    let Some(bytes) = verity.data_blocks.checked_mul(verity.data_block_size.into()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let (on, hashed_on) = (device_numbers(data)?, device_numbers(hashes)?);
    let device = Device::create("verity", data)?;
    device.activate(bytes / SECTOR, "verity", READ_ONLY, |line| {
        let Verity { hash_type, data_block_size, hash_block_size, data_blocks, hash_start, .. } = verity;
        write!(line, "{hash_type} {on} {hashed_on} {data_block_size} {hash_block_size} {data_blocks} ")?;
        write!(line, "{hash_start} {} {} {}", verity.algorithm, verity.root_hash, verity.salt)
    })
}

/// Digits of a hash or a salt. What a table is made of goes into one line of words, so each is held to what it may be.
pub(crate) fn hexadecimal(text: &str) -> Option<String> {
    let fits = !text.is_empty()
        && text.len().is_multiple_of(2)
        && text.len() <= 512
        && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    fits.then(|| text.to_ascii_lowercase())
}

/// Sizes of blocks that dm-verity takes; the largest is a bound of ours.
pub(crate) fn block_size(bytes: u32) -> Option<u32> {
    (bytes.is_power_of_two() && (512..=1 << 20).contains(&bytes)).then_some(bytes)
}

/// Makes a device that encrypts what is written to `node`, with a random key that is nowhere but in the kernel: when
/// the device goes, what it wrote is noise.
pub(crate) fn encrypt(node: &Path) -> io::Result<Device> {
    let sectors = sys::resize::device_size(File::open(node)?.as_fd())? / SECTOR;
    let numbers = device_numbers(node)?;
    let device = Device::create("crypt", node)?;
    device.activate(sectors, "crypt", SECURE_DATA, |line| {
        let mut key = Secret([0; 64]);
        File::open("/dev/urandom")?.read_exact(&mut key.0)?;
        write!(line, "aes-xts-plain64 ")?;
        for byte in key.0 {
            write!(line, "{byte:02x}")?;
        }
        write!(line, " 0 {numbers} 0 1 allow_discards")
    })
}

impl Device {
    /// Its node in `/dev`, which the kernel makes.
    pub(crate) fn node(&self) -> PathBuf {
        PathBuf::from(format!("/dev/dm-{}", self.minor))
    }

    /// Removes it: now, or when the last who uses it is gone.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match Request::new(&self.name, DEFERRED_REMOVE).send(REMOVE) {
            Err(Errno::ENXIO) => Ok(()),
            removed => Ok(removed.map(drop)?),
        }
    }

    /// A device without a table, under a name that no other has.
    fn create(purpose: &str, below: &Path) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let below = below.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("husk-{purpose}-{below}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        if name.len() >= NAME_LENGTH {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let answer = Request::new(&name, 0).send(CREATE)?;
        Ok(Self { name, minor: minor(answer.device()) as u32 })
    }

    /// Gives it its table, one line, and sets it going. It is removed if that fails.
    fn activate(
        self,
        sectors: u64,
        target: &str,
        flags: u32,
        line: impl FnOnce(&mut Cursor<&mut [u8]>) -> io::Result<()>,
    ) -> io::Result<Self> {
        let loaded = (|| {
            let mut request = Request::new(&self.name, flags);
            request.target(sectors, target, line)?;
            request.send(LOAD)?;
            // Without the flag for it, "suspend" means "resume".
            Request::new(&self.name, flags & READ_ONLY).send(SUSPEND)?;
            Ok(())
        })();
        match loaded {
            Ok(()) => Ok(self),
            Err(error) => {
                let _ = self.remove();
                Err(error)
            }
        }
    }
}

/// One request and its answer. It lies on the stack, for it may hold a key, and is wiped when it goes.
struct Request(Secret<REQUEST>);

impl Request {
    fn new(name: &str, flags: u32) -> Self {
        let mut request = Self(Secret([0; REQUEST]));
        for (at, word) in [(0, 4), (4, 0), (8, 0), (12, REQUEST as u32), (16, HEADER as u32), (28, flags)] {
            request.put(at, &u32::to_ne_bytes(word));
        }
        request.put(NAME, name.as_bytes());
        request
    }

    /// Adds a line of a table, of which there is only one here.
    fn target(
        &mut self,
        sectors: u64,
        kind: &str,
        line: impl FnOnce(&mut Cursor<&mut [u8]>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.put(20, &1_u32.to_ne_bytes());
        self.put(HEADER, &0_u64.to_ne_bytes());
        self.put(HEADER + 8, &sectors.to_ne_bytes());
        self.put(HEADER + 20, &((REQUEST - HEADER) as u32).to_ne_bytes());
        self.put(HEADER + 24, kind.as_bytes());
        // The last byte stays the zero that ends the line.
        let room = &mut self.0.0[HEADER + TARGET..REQUEST - 1];
        line(&mut Cursor::new(room))
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn send(mut self, number: u8) -> nix::Result<Self> {
        let control = File::options().read(true).write(true).open(CONTROL);
        let control = control.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
        sys::dm::request(control.as_fd(), number, &mut self.0.0)?;
        Ok(self)
    }

    /// The device's number in the answer, in the kernel's own form: the minor's upper bits are above the major's.
    fn device(&self) -> nix::libc::dev_t {
        let bytes = self.0.0[40..48].try_into().expect("eight bytes");
        let packed = u64::from_ne_bytes(bytes);
        let (major, minor) = ((packed >> 8) & 0xfff, packed & 0xff | (packed >> 12) & 0xf_ff00);
        nix::sys::stat::makedev(major as _, minor as _)
    }
}

/// Bytes that are wiped when they go.
struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.fill(0);
        // Somebody might look, as far as the compiler knows; so it cannot leave the filling out.
        std::hint::black_box(&self.0);
    }
}

/// `major:minor` of a block device.
fn device_numbers(node: &Path) -> io::Result<String> {
    let found = node.metadata()?;
    if !found.file_type().is_block_device() {
        return Err(io::Error::other(format!("{} is not a block device", node.display())));
    }
    Ok(format!("{}:{}", major(found.rdev()), minor(found.rdev())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_line_is_where_the_kernel_reads_it() {
        let mut request = Request::new("husk-test", READ_ONLY);
        request.target(8, "verity", |line| write!(line, "1 7:0 7:0")).unwrap();
        let bytes = &request.0.0;
        assert_eq!(&bytes[48..58], b"husk-test\0");
        assert_eq!(&bytes[HEADER + 24..HEADER + 31], b"verity\0");
        assert_eq!(&bytes[HEADER + 40..HEADER + 50], b"1 7:0 7:0\0");
        assert_eq!(bytes[HEADER + 8], 8);
        assert_eq!(u32::from_ne_bytes(bytes[12..16].try_into().unwrap()) as usize, REQUEST);
    }

    #[test]
    fn a_line_that_is_too_long_is_an_error() {
        let mut request = Request::new("husk-test", 0);
        assert!(request.target(8, "verity", |line| write!(line, "{}", "f".repeat(REQUEST))).is_err());
    }

    #[test]
    fn only_block_devices_are_mapped() {
        assert!(device_numbers(Path::new("/dev/null")).is_err());
        assert!(device_numbers(Path::new("/no/such")).is_err());
    }

    #[test]
    fn device_numbers_are_unpacked() {
        let mut request = Request::new("x", 0);
        let packed: u64 = (253 << 8) | 0x12 | (0x3 << 20);
        request.put(40, &packed.to_ne_bytes());
        assert_eq!((major(request.device()), minor(request.device())), (253, 0x312));
    }
}
