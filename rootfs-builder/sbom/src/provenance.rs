//! How artefacts came about: an in-toto statement (v1) whose predicate is SLSA's provenance (v1). It says
//! what was asked for and every input that was resolved for it; it has no clock and no name of the machine,
//! so that whoever builds the same gets the same statement, and can compare.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{Component, Digest, Error, Sha256, component::Origin, document::TOOL};

/// What `externalParameters` means: recipe, architecture, formats and kernel variant of one `cargo xtask
/// build-image`.
const BUILD_TYPE: &str = "urn:husk:build-image:v1";
/// Who vouches for the steps: the builder in this repository, on whatever machine.
const BUILDER: &str = "urn:husk:xtask";

/// One build: what was asked for, what it took, what came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The recipe's name.
    pub recipe: String,
    /// The guest's architecture, as in guest-arch.
    pub arch: String,
    /// The formats that were asked for, in any order.
    pub formats: Vec<String>,
    /// The kernel's variant.
    pub variant: String,
    /// What came out.
    pub artefacts: Vec<Artefact>,
    /// Everything that went in, in any order.
    pub inputs: Vec<Input>,
}

/// A file that was built.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Artefact {
    /// Its name in the output directory.
    pub name: String,
    /// Its digest.
    pub sha256: Sha256,
}

/// Something that was fetched, read or run for a build.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Input {
    /// What a person calls it: "crate serde 1.0.229".
    pub name: String,
    /// Its digest.
    pub digest: Digest,
    /// What it is among all things: a package URL, or another URI without a host.
    pub uri: Option<String>,
    /// Where its bytes came from.
    pub origin: Option<Origin>,
}

impl Input {
    /// A component as an input. Without a digest it is none: there would be nothing to compare.
    #[must_use]
    pub fn of(component: &Component) -> Option<Self> {
        Some(Input {
            name: component.id.to_string(),
            digest: component.digest.clone()?,
            uri: component.purl.as_ref().map(ToString::to_string),
            origin: component.origin.clone(),
        })
    }
}

/// The statement about `build`.
pub fn provenance(build: &Build) -> Result<Vec<u8>, Error> {
    if build.artefacts.is_empty() {
        return Err(Error::NoArtefact);
    }
    let subject =
        by_name(&build.artefacts, |artefact| &artefact.name)?.into_values().map(Resource::built).collect();
    let resolved = by_name(&build.inputs, |input| &input.name)?.into_values().map(Resource::read).collect();
    let mut formats: Vec<&str> = build.formats.iter().map(String::as_str).collect();
    formats.sort_unstable();
    formats.dedup();
    Ok(crate::json(&Statement {
        statement_type: "https://in-toto.io/Statement/v1",
        subject,
        predicate_type: "https://slsa.dev/provenance/v1",
        predicate: Predicate {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE,
                external_parameters: Parameters {
                    recipe: &build.recipe,
                    arch: &build.arch,
                    formats,
                    variant: &build.variant,
                },
                resolved_dependencies: resolved,
            },
            run_details: RunDetails { builder: Builder { id: BUILDER, version: BTreeMap::from([TOOL]) } },
        },
    }))
}

/// Sorted, and each name once.
fn by_name<T: Eq>(all: &[T], name: impl Fn(&T) -> &str) -> Result<BTreeMap<&str, &T>, Error> {
    let mut sorted = BTreeMap::new();
    for one in all {
        if sorted.insert(name(one), one).is_some_and(|other| other != one) {
            return Err(Error::Ambiguous(name(one).to_owned()));
        }
    }
    Ok(sorted)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    #[serde(rename = "_type")]
    statement_type: &'static str,
    subject: Vec<Resource<'a>>,
    predicate_type: &'static str,
    predicate: Predicate<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Predicate<'a> {
    build_definition: BuildDefinition<'a>,
    run_details: RunDetails,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildDefinition<'a> {
    build_type: &'static str,
    external_parameters: Parameters<'a>,
    resolved_dependencies: Vec<Resource<'a>>,
}

#[derive(Serialize)]
struct Parameters<'a> {
    recipe: &'a str,
    arch: &'a str,
    formats: Vec<&'a str>,
    variant: &'a str,
}

#[derive(Serialize)]
struct RunDetails {
    builder: Builder,
}

#[derive(Serialize)]
struct Builder {
    id: &'static str,
    version: BTreeMap<&'static str, &'static str>,
}

#[derive(Serialize)]
struct Resource<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<&'a str>,
    digest: BTreeMap<&'static str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, &'a str>,
}

impl<'a> Resource<'a> {
    fn built(artefact: &'a Artefact) -> Self {
        Resource {
            name: &artefact.name,
            uri: None,
            digest: BTreeMap::from([("sha256", artefact.sha256.as_str())]),
            annotations: BTreeMap::new(),
        }
    }

    fn read(input: &'a Input) -> Self {
        let algorithm = match input.digest {
            Digest::File(_) => "sha256",
            Digest::Tree(_) => "dirHash",
        };
        let origin =
            |origin: &'a Origin| [("archive", origin.archive.as_str()), ("path", origin.path.as_str())];
        Resource {
            name: &input.name,
            uri: input.uri.as_deref(),
            digest: BTreeMap::from([(algorithm, input.digest.sha256().as_str())]),
            annotations: input.origin.iter().flat_map(origin).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build() -> Build {
        let input = |name: &str| Input {
            name: name.to_owned(),
            digest: Digest::File(Sha256::of(name.as_bytes())),
            uri: None,
            origin: None,
        };
        Build {
            recipe: "minimal".into(),
            arch: "x86_64".into(),
            formats: vec!["initrd".into(), "erofs".into()],
            variant: "lean".into(),
            artefacts: vec![Artefact { name: "vmlinux".into(), sha256: Sha256::of(b"") }],
            inputs: vec![input("b"), input("a"), input("\"\n\u{1}ä")],
        }
    }

    #[test]
    fn the_order_of_the_input_is_forgotten() {
        let one = build();
        let mut two = build();
        two.inputs.reverse();
        two.inputs.push(two.inputs[0].clone());
        two.formats.reverse();
        assert_eq!(provenance(&one).unwrap(), provenance(&two).unwrap());
    }

    #[test]
    fn contradictions_and_statements_about_nothing_are_refused() {
        let mut two = build();
        two.artefacts.push(Artefact { name: "vmlinux".into(), sha256: Sha256::of(b"other") });
        let error = provenance(&two).unwrap_err().to_string();
        assert_eq!(error, "provenance: \"vmlinux\" is named twice, with different contents");
        two.artefacts.clear();
        assert_eq!(provenance(&two).unwrap_err().to_string(), "provenance: no artefact is named");
    }
}
