//! Volumes that are mounted: how full they are, and making them larger.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use agent_api::csi::{VolumeCondition, VolumeStatsResponse, VolumeUsage, volume_usage::Unit};
use nix::libc;
use nix::sys::stat::{major, minor};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, FsType, fstatfs};
use nix::sys::statvfs::fstatvfs;

use crate::sys::resize;

/// Which nix has for glibc only (magic.h).
const XFS_SUPER_MAGIC: FsType = FsType(0x5846_5342);

/// How long a volume may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The kernel's unit of a device's length.
const SECTOR: u64 = 512;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("volume_guest_path: {0:?} is not an absolute path without '..'")]
    Path(String),
    #[error("volume {path:?}: {step}: {source}")]
    Step { path: PathBuf, step: &'static str, source: io::Error },
    #[error("volume {0:?}: no answer in time")]
    Deadline(PathBuf),
    #[error("volume {path:?}: its file system (type {magic:#x}) cannot grow, only ext4 and xfs can")]
    FileSystem { path: PathBuf, magic: u64 },
    #[error("volume {0:?}: it lies on a device of the device mapper, which does not grow")]
    Mapped(PathBuf),
    #[error("volume {path:?}: size: the device has {has} bytes, {wanted} are wanted")]
    Device { path: PathBuf, has: u64, wanted: u64 },
}

/// How full the volume at a path is, in bytes and in inodes.
pub(crate) async fn stats(path: String) -> Result<VolumeStatsResponse, Error> {
    let path = checked(path)?;
    let volume = path.clone();
    let asked = blocking(PATIENCE, &path, move || {
        let file = open(&volume)?;
        let full = fstatvfs(&file).map_err(|errno| step(&volume, "statfs", errno))?;
        let block = full.fragment_size();
        let usage = |unit: Unit, available, total, free, size: u64| VolumeUsage {
            available: size * available,
            total: size * total,
            used: size * u64::saturating_sub(total, free),
            unit: unit.into(),
            ..Default::default()
        };
        let bytes = usage(Unit::BYTES, full.blocks_available(), full.blocks(), full.blocks_free(), block);
        let inodes = usage(Unit::INODES, full.files_available(), full.files(), full.files_free(), 1);
        Ok(VolumeStatsResponse {
            usage: vec![bytes, inodes],
            volume_condition: Some(VolumeCondition { message: "OK".to_string(), ..Default::default() })
                .into(),
            ..Default::default()
        })
    });
    asked.await
}

/// Makes the file system at a path as large as `size` bytes, or as its device if that is 0. The device may grow a
/// moment later than its host says so; it is waited for.
pub(crate) async fn resize(path: String, size: u64, patience: Duration) -> Result<(), Error> {
    let path = checked(path)?;
    let volume = path.clone();
    blocking(PATIENCE + patience, &path, move || grow(&volume, size, patience)).await
}

fn grow(path: &Path, size: u64, patience: Duration) -> Result<(), Error> {
    let file = open(path)?;
    let found = file.metadata().map_err(|error| step(path, "stat", error))?;
    if found.file_type().is_block_device() {
        // What uses the device itself sees its new size by itself.
        return grown_device(path, found.rdev(), size, patience).map(drop);
    }
    let FsType(magic) = fstatfs(&file).map_err(|errno| step(path, "statfs", errno))?.filesystem_type();
    let kind = FsType(magic);
    if kind != EXT4_SUPER_MAGIC && kind != XFS_SUPER_MAGIC {
        return Err(Error::FileSystem { path: path.to_path_buf(), magic: magic as u64 });
    }
    let has = grown_device(path, found.dev(), size, patience)?;
    let bytes = if size == 0 { has } else { size };
    let grown = if kind == XFS_SUPER_MAGIC {
        resize::grow_xfs(file.as_fd(), bytes)
    } else {
        let block = fstatfs(&file).map_err(|errno| step(path, "statfs", errno))?.block_size();
        resize::grow_ext4(file.as_fd(), bytes / (block as u64).max(1))
    };
    match grown {
        // What both say when they are to become smaller.
        Err(nix::Error::EINVAL) => {
            Err(step(path, "grow", io::Error::other(format!("it is larger than {bytes} bytes already"))))
        }
        grown => grown.map_err(|errno| step(path, "grow", errno)),
    }
}

/// The size of a device, once it is what is wanted.
fn grown_device(path: &Path, number: u64, wanted: u64, patience: Duration) -> Result<u64, Error> {
    let device = PathBuf::from(format!("/sys/dev/block/{}:{}", major(number), minor(number)));
    if device.join("dm").exists() {
        return Err(Error::Mapped(path.to_path_buf()));
    }
    let begun = Instant::now();
    loop {
        // SCSI disks are asked for their size when somebody says so; others tell by themselves.
        let _ = fs::write(device.join("device/rescan"), "1");
        let text =
            fs::read_to_string(device.join("size")).map_err(|error| step(path, "find its device", error))?;
        let has = text.trim().parse::<u64>().unwrap_or(0) * SECTOR;
        if has >= wanted && has > 0 {
            return Ok(has);
        }
        if begun.elapsed() > patience {
            return Err(Error::Device { path: path.to_path_buf(), has, wanted });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A volume's path means what it says: links in it are the guest's own, for containers see volumes by other paths.
fn checked(path: String) -> Result<PathBuf, Error> {
    let plain = Path::new(&path).components().all(|part| part != Component::ParentDir);
    if !path.starts_with('/') || !plain || path.contains('\0') {
        return Err(Error::Path(path.chars().take(512).collect()));
    }
    Ok(path.into())
}

fn open(path: &Path) -> Result<File, Error> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path).map_err(|error| step(path, "open", error))
}

fn step(path: &Path, step: &'static str, source: impl Into<io::Error>) -> Error {
    Error::Step { path: path.to_path_buf(), step, source: source.into() }
}

async fn blocking<T: Send + 'static>(
    patience: Duration,
    path: &Path,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::time::timeout(patience, tokio::task::spawn_blocking(work)).await {
        Ok(done) => done.unwrap_or_else(|panic| Err(step(path, "run", io::Error::other(panic)))),
        Err(_) => Err(Error::Deadline(path.to_path_buf())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_come_first_then_inodes() {
        let answer = stats("/tmp".into()).await.unwrap();
        let units: Vec<_> = answer.usage.iter().map(|usage| usage.unit.enum_value().unwrap()).collect();
        assert_eq!(units, [Unit::BYTES, Unit::INODES]);
        let bytes = &answer.usage[0];
        assert!(bytes.total > 0 && bytes.used + bytes.available <= bytes.total, "{bytes:?}");
        assert_eq!(
            (answer.volume_condition.abnormal, answer.volume_condition.message.as_str()),
            (false, "OK")
        );
    }

    #[tokio::test]
    async fn paths_are_checked_and_must_exist() {
        for path in ["", "tmp", "/tmp/../etc", "/a\0b"] {
            assert!(matches!(stats(path.into()).await, Err(Error::Path(_))), "{path:?}");
            assert!(matches!(resize(path.into(), 1, Duration::ZERO).await, Err(Error::Path(_))), "{path:?}");
        }
        let error = stats("/no/such/volume".into()).await.unwrap_err().to_string();
        assert!(error.starts_with("volume \"/no/such/volume\": open: "), "{error}");
    }

    #[tokio::test]
    async fn only_known_file_systems_grow() {
        let error = resize("/proc".into(), 1, Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, Error::FileSystem { .. }), "{error}");
    }
}
