//! See `guest_debian::fuzz::release`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| guest_debian::fuzz::release(bytes));
