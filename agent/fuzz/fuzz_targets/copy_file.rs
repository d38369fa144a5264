//! See `husk_agent::fuzz::copy_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| husk_agent::fuzz::copy_file(bytes));
