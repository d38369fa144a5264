//! See `guest_debian::fuzz::deb`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| guest_debian::fuzz::deb(bytes));
