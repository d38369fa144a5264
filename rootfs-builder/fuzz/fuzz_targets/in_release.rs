//! See `guest_debian::fuzz::in_release`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| guest_debian::fuzz::in_release(bytes));
