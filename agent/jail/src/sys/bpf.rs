//! `bpf(2)`: the few commands that put a device program on a cgroup.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

use crate::cgroup::Instruction;

type Result<T> = std::result::Result<T, Errno>;

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 2;
const F_REPLACE: u32 = 4;

/// How often a program is loaded that signals keep from it.
const ATTEMPTS: usize = 32;

/// Room for what each command reads of `union bpf_attr`. What is behind it counts as zero.
#[repr(C, align(8))]
struct Attributes([u32; 12]);

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
pub(crate) fn load_device_program(program: &[Instruction]) -> Result<OwnedFd> {
    let code: Vec<[u8; 8]> = program.iter().map(|instruction| instruction.encode()).collect();
    let mut attributes = Attributes([0; 12]);
    attributes.0[0] = PROG_TYPE_CGROUP_DEVICE;
    attributes.0[1] = u32::try_from(code.len()).map_err(|_| Errno::E2BIG)?;
    attributes.set_pointer(2, code.as_ptr().cast());
    // Said of a program that calls no function of the kernel's; the field must be there all the same.
    attributes.set_pointer(4, c"Apache-2.0".as_ptr().cast());
    let load = || {
        // SAFETY: the attributes hold the address and the number of instructions and the address of a C string; `code`
        // and the string outlive the call.
        unsafe { attributes.call(PROG_LOAD) }
    };
    // The verifier gives up with EAGAIN when a signal arrives, as it does with the end of any child.
    let fd = std::iter::repeat_with(load).take(ATTEMPTS).find(|loaded| *loaded != Err(Errno::EAGAIN));
    let fd = fd.unwrap_or(Err(Errno::EAGAIN))?;
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The device program that is attached to a cgroup itself, if any.
pub(crate) fn device_program_of(cgroup: impl AsFd) -> Result<Option<OwnedFd>> {
    let mut ids = [0_u32; 8];
    let mut attributes = Attributes([0; 12]);
    attributes.0[0] = cgroup.as_fd().as_raw_fd() as u32;
    attributes.0[1] = CGROUP_DEVICE;
    attributes.set_pointer(4, ids.as_mut_ptr().cast_const().cast());
    attributes.0[6] = ids.len() as u32;
    // SAFETY: the attributes hold the address of `ids` and its length; it outlives the call.
    match unsafe { attributes.call(PROG_QUERY) } {
        // More than fit: the first of them was stored.
        Ok(_) | Err(Errno::ENOSPC) => {}
        Err(errno) => return Err(errno),
    }
    if attributes.0[6] == 0 || ids[0] == 0 {
        return Ok(None);
    }
    let mut attributes = Attributes([0; 12]);
    attributes.0[0] = ids[0];
    // SAFETY: this command takes a number.
    match unsafe { attributes.call(PROG_GET_FD_BY_ID) } {
        Err(Errno::ENOENT) => Ok(None),
        // SAFETY: the call returned a new descriptor that nobody else owns.
        other => other.map(|fd| Some(unsafe { OwnedFd::from_raw_fd(fd) })),
    }
}

/// Attaches a device program to a cgroup, in the place of `before` if there is one. Those of the cgroups above and below
/// stay and have their say as well.
pub(crate) fn attach_device_program(
    cgroup: impl AsFd,
    program: &OwnedFd,
    before: Option<&OwnedFd>,
) -> Result<()> {
    let mut attributes = Attributes([0; 12]);
    attributes.0[0] = cgroup.as_fd().as_raw_fd() as u32;
    attributes.0[1] = program.as_raw_fd() as u32;
    attributes.0[2] = CGROUP_DEVICE;
    attributes.0[3] = F_ALLOW_MULTI | if before.is_some() { F_REPLACE } else { 0 };
    attributes.0[4] = before.map_or(0, |before| before.as_raw_fd() as u32);
    // SAFETY: this command takes descriptors, all of which are open for the call.
    unsafe { attributes.call(PROG_ATTACH) }.map(drop)
}

impl Attributes {
    /// Puts an address, which takes two words, at word `at`.
    fn set_pointer(&mut self, at: usize, pointer: *const libc::c_void) {
        let bytes = (pointer as u64).to_ne_bytes();
        for (word, bytes) in self.0[at..].iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
    }

    /// SAFETY: whatever the command takes for an address must be one, and stay valid for the call.
    unsafe fn call(&mut self, command: libc::c_int) -> Result<RawFd> {
        // SAFETY: the kernel reads and writes at most the size that is passed; the rest is the caller's contract.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, command, (&raw mut *self).cast::<u32>(), size_of::<Self>())
        };
        Errno::result(result).map(|fd| fd as RawFd)
    }
}
