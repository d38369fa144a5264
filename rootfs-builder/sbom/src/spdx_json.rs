//! A document as SPDX 2.3 JSON. The comments cite that specification's clauses.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    Component, Digest, Document, Kind, Licence, Role, Sha256,
    document::{IMAGE, Listed, TOOL},
    uuid,
};

/// When the document was created (6.9). The field is mandatory and wants a moment; a build has none that two
/// machines could agree on, so it says the beginning of Unix time, which nobody takes for one.
const CREATED: &str = "1970-01-01T00:00:00Z";
/// "Nothing is claimed" where a field must say something.
const NO_ASSERTION: &str = "NOASSERTION";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";

/// The document in SPDX's form.
#[must_use]
pub fn spdx(document: &Document) -> Vec<u8> {
    let mut root = Root {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0", // the only one that 6.2 allows
        spdx_id: DOCUMENT,
        name: document.name(),
        document_namespace: String::new(),
        creation_info: CreationInfo { created: CREATED, creators: [format!("Tool: {}-{}", TOOL.0, TOOL.1)] },
        packages: packages(document),
        relationships: relationships(document),
        has_extracted_licensing_infos: extracted(document),
    };
    root.document_namespace = uuid::urn("spdx-2.3", &crate::json(&root));
    crate::json(&root)
}

fn packages(document: &Document) -> Vec<Package<'_>> {
    let image = Package {
        spdx_id: id(IMAGE),
        name: document.name().to_owned(),
        primary_package_purpose: "OPERATING_SYSTEM",
        checksums: vec![Checksum::of(document.image())],
        ..Package::default()
    };
    std::iter::once(image).chain(document.listed().map(package)).collect()
}

fn package(listed: &Listed) -> Package<'_> {
    let component = &listed.component;
    let purl = component.purl.as_ref().map(|purl| ExternalRef {
        reference_category: "PACKAGE-MANAGER",
        reference_type: "purl",
        reference_locator: purl.as_str(),
    });
    Package {
        spdx_id: id(&listed.reference),
        name: line(&component.id.name),
        version_info: Some(line(&component.id.version)).filter(|version| !version.is_empty()),
        supplier: component.supplier.as_deref().and_then(supplier),
        source_info: source(component),
        license_declared: component.licence.as_ref().map_or(NO_ASSERTION, Licence::expression),
        checksums: component.digest.iter().map(|digest| Checksum::of(digest.sha256())).collect(),
        external_refs: purl.into_iter().collect(),
        primary_package_purpose: purpose(component.id.kind),
        ..Package::default()
    }
}

/// Everything hangs on the image (11.1): it contains what ships, and the rest was needed to build it.
fn relationships(document: &Document) -> Vec<Relationship> {
    let image = id(IMAGE);
    let relation = |from: &str, relationship_type, to: &str| Relationship {
        spdx_element_id: from.to_owned(),
        relationship_type,
        related_spdx_element: to.to_owned(),
    };
    let mut all = vec![relation(DOCUMENT, "DESCRIBES", &image)];
    for listed in document.listed() {
        let from = id(&listed.reference);
        all.push(match listed.component.role {
            Role::Ships => relation(&image, "CONTAINS", &from),
            Role::Builds => relation(&from, "BUILD_DEPENDENCY_OF", &image),
        });
        for on in document.needs(listed) {
            let to = id(&on.reference);
            all.push(match on.component.role {
                Role::Ships => relation(&from, "DEPENDS_ON", &to),
                Role::Builds => relation(&to, "BUILD_DEPENDENCY_OF", &from),
            });
        }
    }
    all
}

/// The texts of all licences that SPDX does not list (10). One identifier stands for one text, so a map will
/// do.
fn extracted(document: &Document) -> Vec<ExtractedLicence<'_>> {
    let licences = document.listed().filter_map(|listed| listed.component.licence.as_ref());
    let texts: BTreeMap<&str, &str> =
        licences.flat_map(|licence| licence.texts()).map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let info = |(id, text)| ExtractedLicence { license_id: id, extracted_text: text, name: NO_ASSERTION };
    texts.into_iter().map(info).collect()
}

fn id(reference: &str) -> String {
    format!("SPDXRef-{reference}")
}

/// A name or a version is one line (7.1, 7.3): a control character in it is shown as an escape.
fn line(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// `Name <address>` in the form of 7.5. Debian's maintainers are mostly teams, and SPDX wants to know: an
/// organisation.
fn supplier(text: &str) -> Option<String> {
    let text = line(text);
    let (name, address) = match text.trim().strip_suffix('>').and_then(|text| text.rsplit_once('<')) {
        Some((name, address)) => (name.trim().to_owned(), Some(address.trim().to_owned())),
        None => (text.trim().to_owned(), None),
    };
    // Parentheses set the address off: within a name they would be taken for one.
    let name = name.replace(['(', ')'], " ");
    let address = address.filter(|address| address.contains('@') && !address.contains(['(', ')']));
    match (name.trim(), address) {
        ("", _) => None,
        (name, Some(address)) => Some(format!("Organization: {name} ({address})")),
        (name, None) => Some(format!("Organization: {name}")),
    }
}

/// Where the bytes came from and what the digest is of (7.12: free text).
fn source(component: &Component) -> Option<String> {
    let origin =
        component.origin.as_ref().map(|origin| format!("{} in the archive {}", origin.path, origin.archive));
    let tree = matches!(component.digest, Some(Digest::Tree(_)))
        .then(|| "the checksum is in-toto's dirHash of the source directory".to_owned());
    let parts: Vec<_> = origin.into_iter().chain(tree).map(|text| line(&text)).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn purpose(kind: Kind) -> &'static str {
    match kind {
        Kind::Crate | Kind::StandardLibrary | Kind::CLibrary => "LIBRARY",
        Kind::DebianPackage => "INSTALL",
        Kind::Kernel => "OPERATING_SYSTEM",
        Kind::Tool => "APPLICATION",
        // As a package: an SPDX "file" must have a SHA-1 (8.4), and we make none.
        Kind::File => "FILE",
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Root<'a> {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    spdx_id: &'static str,
    name: &'a str,
    document_namespace: String,
    creation_info: CreationInfo,
    packages: Vec<Package<'a>>,
    relationships: Vec<Relationship>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    has_extracted_licensing_infos: Vec<ExtractedLicence<'a>>,
}

#[derive(Serialize)]
struct CreationInfo {
    created: &'static str,
    creators: [String; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Package<'a> {
    #[serde(rename = "SPDXID")]
    spdx_id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<String>,
    download_location: &'static str,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<String>,
    license_concluded: &'static str,
    license_declared: &'a str,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalRef<'a>>,
    primary_package_purpose: &'static str,
}

/// What every package has alike: nothing concluded, no URL (there is no host in our documents), no list of
/// files.
impl Default for Package<'_> {
    fn default() -> Self {
        Package {
            spdx_id: String::new(),
            name: String::new(),
            version_info: None,
            supplier: None,
            download_location: NO_ASSERTION,
            files_analyzed: false,
            checksums: Vec::new(),
            source_info: None,
            license_concluded: NO_ASSERTION,
            license_declared: NO_ASSERTION,
            copyright_text: NO_ASSERTION,
            external_refs: Vec::new(),
            primary_package_purpose: "OTHER",
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum<'a> {
    algorithm: &'static str,
    checksum_value: &'a str,
}

impl<'a> Checksum<'a> {
    fn of(sha256: &'a Sha256) -> Self {
        Checksum { algorithm: "SHA256", checksum_value: sha256.as_str() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef<'a> {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExtractedLicence<'a> {
    license_id: &'a str,
    extracted_text: &'a str,
    name: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maintainer_is_an_organisation_with_an_address() {
        let text = |text| supplier(text).unwrap();
        assert_eq!(text("A Team <a@b.invalid>"), "Organization: A Team (a@b.invalid)");
        assert_eq!(text("A (B) <a@b.invalid>"), "Organization: A  B  (a@b.invalid)".replace("B  (", "B ("));
        assert_eq!(text("A Team"), "Organization: A Team");
        assert_eq!(text("A <nowhere>\n"), "Organization: A <nowhere>\\n");
        assert_eq!(supplier(" <a@b.invalid>"), None);
    }

    #[test]
    fn a_line_stays_one() {
        assert_eq!(line("a\nb\u{7}\u{85}é\""), "a\\nb\\u{7}\\u{85}é\"");
    }
}
