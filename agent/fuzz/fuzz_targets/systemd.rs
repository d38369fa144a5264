//! See `husk_agent::fuzz::systemd`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| husk_agent::fuzz::systemd(bytes));
