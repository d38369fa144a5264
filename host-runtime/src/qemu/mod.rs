//! QEMU: which accelerator, which arguments, and the channel that tells what happens to the guest.

mod accel;
pub(crate) mod boot;
pub(crate) mod config;
pub(crate) mod qmp;

pub(crate) use accel::Accel;
