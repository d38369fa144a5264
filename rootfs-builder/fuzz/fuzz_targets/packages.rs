//! See `guest_debian::fuzz::packages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| guest_debian::fuzz::packages(bytes));
