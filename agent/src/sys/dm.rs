//! The device mapper's one system call.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// Type and size in the number of every request (linux/dm-ioctl.h: DM_IOCTL and struct dm_ioctl).
const TYPE: u8 = 0xfd;
const HEADER: usize = 312;

/// Sends request `number`. `buffer` begins with a struct dm_ioctl, and the kernel writes its answer there.
///
/// # Panics
/// When the buffer's second word, which tells the kernel its size, is not true.
pub(crate) fn request(control: BorrowedFd<'_>, number: u8, buffer: &mut [u8]) -> nix::Result<()> {
    let size = u32::from_ne_bytes(buffer[12..16].try_into().expect("four bytes"));
    assert!(
        size as usize == buffer.len() && buffer.len() >= HEADER,
        "a device mapper request of {size} bytes"
    );
    let code = nix::request_code_readwrite!(TYPE, number, HEADER);
    // SAFETY: the buffer lives through the call and is as long as its data_size says (checked above), which bounds what
    // the kernel reads and writes. The kernel copies it, so that its alignment does not matter.
    let done = unsafe { libc::ioctl(control.as_raw_fd(), code as _, buffer.as_mut_ptr()) };
    Errno::result(done).map(drop)
}
