//! A binary package: what the archive says of it, as far as we need it, and what a lock file keeps of that.

use guest_inputs::{Archive, Pin};
use serde::{Deserialize, Serialize};

use crate::relation::{self, Group, Relation, is_package_name};
use crate::release::is_sha256;
use crate::stanza::Stanza;
use crate::version::Version;

/// One package that goes into an image. A lock file holds these, field by field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Debian's name of its architecture, or `all`.
    pub architecture: String,
    /// The source package it was built from.
    pub source: String,
    /// The version of that, which differs in rebuilds.
    pub source_version: String,
    /// Which archive holds it.
    #[serde(default)]
    pub archive: Archive,
    /// The suite it was found in.
    pub suite: String,
    /// Path below the archive's base.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest in hexadecimal.
    pub sha256: String,
    /// The fingerprint of the certificate that signed for that digest.
    pub signed_by: String,
    /// Which packages of the same image meet what it needs, in order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends: Vec<String>,
}

impl Package {
    /// What to fetch.
    #[must_use]
    pub fn pin(&self) -> Pin {
        Pin {
            name: self.name.clone(),
            version: self.version.clone(),
            archive: self.archive,
            path: self.path.clone(),
            size: self.size,
            sha256: self.sha256.clone(),
        }
    }

    /// Who put its files into an image.
    #[must_use]
    pub fn origin(&self) -> guest_tree::Origin {
        format!("package {} {}", self.name, self.version).into()
    }
}

/// Where a list of packages is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provenance {
    pub(crate) suite: String,
    pub(crate) archive: Archive,
    pub(crate) signed_by: String,
}

/// A package as a list of packages has it, with its relations to others.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) package: Package,
    pub(crate) version: Version,
    /// required, important, standard, optional, extra: 0 to 4.
    pub(crate) priority: usize,
    /// Pre-Depends and Depends.
    pub(crate) needs: Vec<Group>,
    pub(crate) provides: Vec<Relation>,
    /// Conflicts and Breaks: with neither can it be installed.
    pub(crate) excludes: Vec<Relation>,
}

impl Entry {
    /// Reads a stanza.
    pub(crate) fn read(stanza: &Stanza<'_>, from: &Provenance) -> Result<Self, String> {
        let name = stanza.get("Package").unwrap_or_default();
        let fail = |what: String| format!("line {}: package {name:?}: {what}", stanza.line);
        let field = |field: &str| stanza.get(field).ok_or_else(|| fail(format!("has no {field}")));
        if !is_package_name(name) {
            return Err(fail("odd name".to_owned()));
        }
        let text = field("Version")?;
        let version = Version::parse(text).ok_or_else(|| fail(format!("odd version {text:?}")))?;
        let (source, source_version) = source(stanza.get("Source"), name, text);
        let path = field("Filename")?;
        if !is_pool_path(path) {
            return Err(fail(format!("odd file name {path:?}")));
        }
        let size = field("Size")?;
        let digest = field("SHA256")?;
        if !is_sha256(digest) {
            return Err(fail(format!("odd digest {digest:?}")));
        }
        let list = |name: &str| stanza.get(name).unwrap_or_default();
        let groups = |name: &str| relation::groups(list(name)).map_err(&fail);
        let relations = |name: &str| relation::relations(list(name)).map_err(&fail);
        Ok(Entry {
            version,
            priority: priority(list("Priority")),
            needs: [groups("Pre-Depends")?, groups("Depends")?].concat(),
            provides: relations("Provides")?,
            excludes: [relations("Conflicts")?, relations("Breaks")?].concat(),
            package: Package {
                name: name.to_owned(),
                version: text.to_owned(),
                architecture: field("Architecture")?.to_owned(),
                source,
                source_version,
                archive: from.archive,
                suite: from.suite.clone(),
                path: path.to_owned(),
                size: size.parse().map_err(|_| fail(format!("odd size {size:?}")))?,
                sha256: digest.to_owned(),
                signed_by: from.signed_by.clone(),
                depends: Vec::new(),
            },
        })
    }

    /// Whether it meets one alternative of a dependency, under its own name or another that it provides.
    pub(crate) fn meets(&self, wanted: &Relation) -> bool {
        if wanted.name == self.package.name && wanted.admits(&self.version) {
            return true;
        }
        self.provides
            .iter()
            .filter(|provided| provided.name == wanted.name)
            .any(|provided| wanted.admits_provided(provided.versions.as_ref().map(|(_, version)| version)))
    }
}

/// `name` or `name (version)`; without the field, the package's own.
fn source(field: Option<&str>, name: &str, version: &str) -> (String, String) {
    match field.map(|source| source.split_once('(').unwrap_or((source, ""))) {
        None => (name.to_owned(), version.to_owned()),
        Some((source, "")) => (source.trim().to_owned(), version.to_owned()),
        Some((source, of)) => (source.trim().to_owned(), of.trim_end_matches(')').trim().to_owned()),
    }
}

/// Below the archive's base, and in characters that mean nothing in an address.
fn is_pool_path(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._+~-:%".contains(&b);
    path.ends_with(".deb")
        && path.bytes().all(plain)
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn priority(text: &str) -> usize {
    const ALL: [&str; 4] = ["required", "important", "standard", "optional"];
    ALL.iter().position(|name| *name == text).unwrap_or(ALL.len())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    pub(crate) fn provenance() -> Provenance {
        Provenance { suite: "sid".to_owned(), archive: Archive::Debian, signed_by: "f".to_owned() }
    }

    fn read(text: &str) -> Result<Entry, String> {
        Entry::read(&Stanza::only(text).unwrap(), &provenance())
    }

    fn text() -> String {
        format!(
            "Package: a\nVersion: 1:2-3+b1\nSource: b (1:2-3)\nArchitecture: amd64\nPriority: required\n\
             Pre-Depends: c\nDepends: d | e, f (>= 1)\nProvides: g (= 5), h\nConflicts: i\nBreaks: j (<< 2)\n\
             Filename: pool/main/b/b/a_2-3+b1_amd64.deb\nSize: 12\nSHA256: {DIGEST}\n"
        )
    }

    #[test]
    fn a_stanza_is_read() {
        let entry = read(&text()).unwrap();
        assert_eq!((entry.package.source.as_str(), entry.package.source_version.as_str()), ("b", "1:2-3"));
        assert_eq!((entry.needs.len(), entry.provides.len(), entry.excludes.len()), (3, 2, 2));
        assert_eq!((entry.priority, entry.package.size), (0, 12));
        assert_eq!(entry.package.pin().to_string(), "a 1:2-3+b1");
        let meets = |text: &str| entry.meets(&relation::relations(text).unwrap()[0]);
        assert!(meets("a") && meets("a (>= 1:2)") && !meets("a (<< 1:2)"));
        assert!(meets("g (>= 4)") && meets("h") && !meets("h (>= 1)") && !meets("d"));
    }

    #[test]
    fn a_lock_file_keeps_every_field() {
        let package = Package { depends: vec!["c".to_owned()], ..read(&text()).unwrap().package };
        let kept = toml::to_string(&package).unwrap();
        assert_eq!(toml::from_str::<Package>(&kept), Ok(package));
        assert!(kept.contains("source-version = \"1:2-3\"") && kept.contains("signed-by = \"f\""), "{kept}");
        assert!(toml::from_str::<Package>(&format!("{kept}\nshasum = \"0\"\n")).is_err());
    }

    #[test]
    fn source_is_the_package_unless_said() {
        let entry = read(&text().replace("Source: b (1:2-3)\n", "")).unwrap();
        assert_eq!((entry.package.source.as_str(), entry.package.source_version.as_str()), ("a", "1:2-3+b1"));
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        for (from, to, what) in [
            ("Package: a", "Package: ../a", "odd name"),
            ("Package: a", "Package:", "odd name"),
            ("pool/main", "pool/../..", "odd file name"),
            ("pool/main", "/pool", "odd file name"),
            ("pool/main", "pool?x=", "odd file name"),
            ("pool/main", "pool//", "odd file name"),
            ("amd64.deb", "amd64.exe", "odd file name"),
            ("Size: 12", "Size: -12", "odd size"),
            ("SHA256: b", "SHA256: B", "odd digest"),
            ("1:2-3+b1", "1 2", "odd version"),
            ("d | e", "d | E", "is no dependency"),
            ("Architecture", "Arch", "has no Architecture"),
        ] {
            let error = read(&text().replacen(from, to, 1)).unwrap_err();
            assert!(error.starts_with("line 1: package ") && error.contains(what), "{error} / {what}");
        }
    }
}
