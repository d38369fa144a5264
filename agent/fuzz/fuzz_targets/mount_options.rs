//! See `husk_agent::fuzz::mount_options`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| husk_agent::fuzz::mount_options(bytes));
