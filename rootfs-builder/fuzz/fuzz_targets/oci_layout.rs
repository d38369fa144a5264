//! See `rootfs_builder::fuzz::oci_layout`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rootfs_builder::fuzz::oci_layout(bytes));
