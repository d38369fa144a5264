//! What the kernel is told about the calling process: its scheduling, its memory, its system calls.

use nix::errno::Errno;
use nix::libc;

use super::Result;
use crate::plan::{MemoryPolicy, Scheduler};

/// Sets class and level of input and output.
pub(crate) fn set_io_priority(priority: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: takes integers only; 0 is the calling process.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) };
    Errno::result(done).map(drop)
}

/// `struct sched_attr`.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

/// Sets the scheduling policy.
pub(crate) fn set_scheduler(wanted: &Scheduler) -> Result<()> {
    let attributes = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: wanted.policy,
        flags: wanted.flags,
        nice: wanted.nice,
        priority: wanted.priority,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
        util_min: 0,
        util_max: 0,
    };
    // SAFETY: the structure is the kernel's and says how long it is; 0 is the calling thread.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) }).map(drop)
}

/// Sets the processors the calling process runs on.
pub(crate) fn set_processors(bits: &[u64]) -> Result<()> {
    // SAFETY: pointer and length, in bytes, describe one live slice; 0 is the calling thread.
    let done = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(bits), bits.as_ptr()) };
    Errno::result(done).map(drop)
}

/// Sets the memory nodes the calling process prefers.
pub(crate) fn set_memory_policy(policy: &MemoryPolicy) -> Result<()> {
    // The kernel counts one bit more than it looks at.
    let bits = if policy.nodes.is_empty() { 0 } else { policy.nodes.len() * 64 + 1 };
    let nodes = if policy.nodes.is_empty() { std::ptr::null() } else { policy.nodes.as_ptr() };
    // SAFETY: the kernel reads as many bits of the live vector as it has, rounded to whole words.
    let done = unsafe { libc::syscall(libc::SYS_set_mempolicy, policy.mode, nodes, bits) };
    Errno::result(done).map(drop)
}

/// Sets the execution domain.
pub(crate) fn set_personality(persona: u32) -> Result<()> {
    // SAFETY: takes an integer only.
    Errno::result(unsafe { libc::personality(persona.into()) }).map(drop)
}

/// Filters the system calls of the calling process from here on.
pub(crate) fn set_seccomp(flags: u32, program: &[u64]) -> Result<()> {
    const SECCOMP_SET_MODE_FILTER: libc::c_long = 1;
    // The kernel has the same limit, and says no more of it.
    let length = u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the instructions are as long as said (each a struct sock_filter of eight bytes, as aligned as is needed)
    // and only read.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    Errno::result(done).map(drop)
}
