//! See `rootfs_builder::fuzz::recipe`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rootfs_builder::fuzz::recipe(bytes));
