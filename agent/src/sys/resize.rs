//! Growing a mounted file system: the ioctls of ext4 and xfs.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::libc;

/// `struct xfs_growfs_data` (fs/xfs/libxfs/xfs_fs.h).
#[repr(C)]
struct XfsGrow {
    new_blocks: u64,
    max_inode_percent: u32,
}

/// `struct xfs_fsop_geom_v1`, as far as it is read here.
#[repr(C)]
struct XfsGeometry {
    block_size: u32,
    _extents: [u32; 6],
    max_inode_percent: u32,
    blocks: u64,
    _rest: [u64; 9],
}

nix::ioctl_write_ptr!(
    /// EXT4_IOC_RESIZE_FS: the new size in blocks.
    ext4_resize,
    b'f',
    16,
    u64
);
nix::ioctl_read!(
    /// XFS_IOC_FSGEOMETRY_V1.
    xfs_geometry,
    b'X',
    100,
    XfsGeometry
);
nix::ioctl_write_ptr!(
    /// XFS_IOC_FSGROWFSDATA.
    xfs_grow,
    b'X',
    110,
    XfsGrow
);
nix::ioctl_read!(
    /// BLKGETSIZE64: a device's size in bytes.
    blkgetsize64,
    0x12,
    114,
    libc::size_t
);

/// Makes the ext4 in which `file` is this many blocks large.
pub(crate) fn grow_ext4(file: BorrowedFd<'_>, blocks: u64) -> nix::Result<()> {
    // SAFETY: the descriptor is open for the call, and the request reads one u64.
    unsafe { ext4_resize(file.as_raw_fd(), &raw const blocks) }.map(drop)
}

/// Makes the xfs in which `file` is as large as `bytes` allow, in whole blocks.
pub(crate) fn grow_xfs(file: BorrowedFd<'_>, bytes: u64) -> nix::Result<()> {
    let mut geometry =
        XfsGeometry { block_size: 0, _extents: [0; 6], max_inode_percent: 0, blocks: 0, _rest: [0; 9] };
    // SAFETY: the descriptor is open for the call, and the structure is as long as the kernel's, whose size is part of
    // the request's number.
    unsafe { xfs_geometry(file.as_raw_fd(), &raw mut geometry) }?;
    let grow = XfsGrow {
        new_blocks: bytes / u64::from(geometry.block_size.max(512)),
        max_inode_percent: geometry.max_inode_percent,
    };
    // The kernel would take that for a wish to shrink, and try.
    if grow.new_blocks < geometry.blocks {
        return Err(nix::Error::EINVAL);
    }
    // SAFETY: as above; the request reads the structure.
    unsafe { xfs_grow(file.as_raw_fd(), &raw const grow) }.map(drop)
}

/// The size of a block device in bytes.
pub(crate) fn device_size(device: BorrowedFd<'_>) -> nix::Result<u64> {
    let mut bytes: u64 = 0;
    // SAFETY: despite the type in its number the request writes one u64 (block/ioctl.c), which is what it is given.
    unsafe { blkgetsize64(device.as_raw_fd(), (&raw mut bytes).cast()) }?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_long_as_the_kernels() {
        assert_eq!((size_of::<XfsGrow>(), size_of::<XfsGeometry>()), (16, 112));
    }
}
