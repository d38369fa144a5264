//! Identifiers of documents. Both formats want one that no other document has; ours is made from the document
//! itself, so that two builds of one image name it alike.

use guest_inputs::Key;

/// A UUID of version 8 (RFC 9562, 5.8: the bits are the maker's affair) from the digest of a document that
/// has no identifier yet. `format` keeps the names of two formats apart.
pub(crate) fn urn(format: &str, document: &[u8]) -> String {
    let hex = Key::new("husk/sbom/v1").field("format", format).field("document", document).hex();
    // Version in the 13th digit; variant 0b10 in the two upper bits of the 17th.
    let variant = ["8", "9", "a", "b"][usize::from(hex.as_bytes()[16]) % 4];
    format!(
        "urn:uuid:{}-{}-8{}-{variant}{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..32]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_version_and_variant_and_depends_on_both_arguments() {
        let one = urn("spdx", b"x");
        let digits = one.strip_prefix("urn:uuid:").unwrap();
        let groups: Vec<_> = digits.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12]);
        assert_eq!(&digits[14..15], "8");
        assert!(matches!(&digits[19..20], "8" | "9" | "a" | "b"), "{digits}");
        assert_eq!(one, urn("spdx", b"x"));
        assert_ne!(one, urn("spdx", b"y"));
        assert_ne!(one, urn("cyclonedx", b"x"));
    }
}
