//! See `husk_agent::fuzz::oci_spec`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| husk_agent::fuzz::oci_spec(bytes));
