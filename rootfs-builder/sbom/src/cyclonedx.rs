//! A document as CycloneDX 1.6 JSON.

use serde::Serialize;

use crate::{
    Component, Digest, Document, Kind, Licence, Role, Sha256,
    document::{IMAGE, Listed, TOOL},
    uuid,
};

/// The document in CycloneDX's form. It has no `metadata.timestamp`: the field may be left out, and is.
#[must_use]
pub fn cyclonedx(document: &Document) -> Vec<u8> {
    let mut root = Root {
        bom_format: "CycloneDX",
        spec_version: "1.6",
        serial_number: String::new(),
        version: 1,
        metadata: Metadata {
            tools: Tools { components: [ToolPart { kind: "application", name: TOOL.0, version: TOOL.1 }] },
            component: image(document),
        },
        components: document.listed().map(part).collect(),
        dependencies: dependencies(document),
    };
    root.serial_number = uuid::urn("cyclonedx-1.6", &crate::json(&root));
    crate::json(&root)
}

fn image(document: &Document) -> Part<'_> {
    Part {
        kind: "operating-system",
        bom_ref: IMAGE,
        name: document.name(),
        version: None,
        supplier: None,
        scope: None,
        hashes: vec![Hash::of(document.image())],
        licenses: Vec::new(),
        purl: None,
        properties: Vec::new(),
    }
}

fn part(listed: &Listed) -> Part<'_> {
    let component = &listed.component;
    Part {
        kind: kind(component.id.kind),
        bom_ref: &listed.reference,
        name: &component.id.name,
        version: Some(component.id.version.as_str()).filter(|version| !version.is_empty()),
        supplier: component.supplier.as_deref().map(|name| Supplier { name }),
        // "Excluded" is CycloneDX's word for what takes part and is not there when the image runs.
        scope: Some(match component.role {
            Role::Ships => "required",
            Role::Builds => "excluded",
        }),
        hashes: component.digest.iter().map(|digest| Hash::of(digest.sha256())).collect(),
        licenses: component.licence.iter().map(choice).collect(),
        purl: component.purl.as_ref().map(|purl| purl.as_str()),
        properties: properties(component),
    }
}

/// The image depends on what is in it, and each component on its own.
fn dependencies(document: &Document) -> Vec<Dependency<'_>> {
    let shipped = document.shipped().map(|listed| listed.reference.as_str()).collect();
    let image = Dependency { reference: IMAGE, depends_on: shipped };
    let needs = document.listed().map(|listed| Dependency {
        reference: &listed.reference,
        depends_on: document.needs(listed).map(|on| on.reference.as_str()).collect(),
    });
    std::iter::once(image).chain(needs).collect()
}

/// An expression, or the text of a licence that is on no list: in an expression the format has no place for
/// texts.
fn choice(licence: &Licence) -> LicenceChoice<'_> {
    match licence.texts().get_key_value(licence.expression()) {
        Some((name, content)) => LicenceChoice::License { name, text: Text { content } },
        None => LicenceChoice::Expression(licence.expression()),
    }
}

fn properties(component: &Component) -> Vec<Property<'_>> {
    let origin = component
        .origin
        .iter()
        .flat_map(|origin| [("husk:archive", origin.archive.as_str()), ("husk:path", origin.path.as_str())]);
    let tree = matches!(component.digest, Some(Digest::Tree(_))).then_some(("husk:digest", "dirHash"));
    origin.chain(tree).map(|(name, value)| Property { name, value }).collect()
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Crate | Kind::StandardLibrary | Kind::CLibrary | Kind::DebianPackage => "library",
        Kind::Kernel => "operating-system",
        Kind::Tool => "application",
        Kind::File => "file",
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Root<'a> {
    bom_format: &'static str,
    spec_version: &'static str,
    serial_number: String,
    version: u32,
    metadata: Metadata<'a>,
    components: Vec<Part<'a>>,
    dependencies: Vec<Dependency<'a>>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    tools: Tools,
    component: Part<'a>,
}

#[derive(Serialize)]
struct Tools {
    components: [ToolPart; 1],
}

#[derive(Serialize)]
struct ToolPart {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Part<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "bom-ref")]
    bom_ref: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<Supplier<'a>>,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<LicenceChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property<'a>>,
}

#[derive(Serialize)]
struct Supplier<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Hash<'a> {
    alg: &'static str,
    content: &'a str,
}

impl<'a> Hash<'a> {
    fn of(sha256: &'a Sha256) -> Self {
        Hash { alg: "SHA-256", content: sha256.as_str() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum LicenceChoice<'a> {
    Expression(&'a str),
    License { name: &'a str, text: Text<'a> },
}

#[derive(Serialize)]
struct Text<'a> {
    content: &'a str,
}

#[derive(Serialize)]
struct Property<'a> {
    name: &'static str,
    value: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<&'a str>,
}
