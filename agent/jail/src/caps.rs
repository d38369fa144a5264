//! Capability names, as runtimes spell them.
//!
//! A name that nobody knows is skipped: a newer host may know more capabilities than this kernel, and one that does
//! not exist cannot be granted.

use std::str::FromStr;

use crate::oci::{Capabilities, Capability};

/// Reads capability names: `CAP_CHOWN`, `CHOWN`, `cap_chown`, or any of them in the quotes of a JSON string.
pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Capabilities {
    names.into_iter().filter_map(one).collect()
}

fn one(name: &str) -> Option<Capability> {
    let upper = name.trim().trim_matches('"').to_ascii_uppercase();
    Capability::from_str(upper.strip_prefix("CAP_").unwrap_or(&upper)).ok()
}

/// The set as the kernel's bits.
pub(crate) fn bits(capabilities: &Capabilities) -> u64 {
    capabilities
        .iter()
        .filter_map(|&capability| number(capability))
        .fold(0, |bits, number| bits | 1 << number)
}

fn number(capability: Capability) -> Option<u8> {
    capctl::Cap::from_str(&format!("CAP_{capability}")).ok().map(|cap| cap as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_read_and_unknown_ones_are_skipped() {
        let got = parse(["CAP_CHOWN", "KILL", "\"CAP_SYS_ADMIN\"", "cap_bpf", "CAP_NO_SUCH", "", "\""]);
        assert_eq!(bits(&got), 1 | 1 << 5 | 1 << 21 | 1 << 39);
    }

    #[test]
    fn every_capability_of_the_spec_has_a_number() {
        for cap in capctl::Cap::iter() {
            let name = cap.to_string();
            assert_eq!(bits(&parse([name.as_str()])), 1 << cap as u8, "{name}");
        }
    }
}
