//! See `husk_agent::fuzz::uevents`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| husk_agent::fuzz::uevents(bytes));
