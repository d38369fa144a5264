//! See `husk_agent::fuzz::pci_paths`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| husk_agent::fuzz::pci_paths(bytes));
