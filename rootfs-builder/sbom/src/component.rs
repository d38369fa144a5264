//! One part of an image: what it is called, what bytes it came from, under which licence, and what it needs.

use std::{collections::BTreeSet, fmt, str::FromStr};

use guest_inputs::Pin;

use crate::{Error, Licence, Purl};

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A Rust crate.
    Crate,
    /// A binary package of Debian.
    DebianPackage,
    /// The kernel.
    Kernel,
    /// Rust's standard library.
    StandardLibrary,
    /// A library in C: musl, libseccomp.
    CLibrary,
    /// A program that took part in the build and put bytes of its own into the artefact.
    Tool,
    /// A single file that somebody added. Its name is its path in the image.
    File,
}

/// How a component got into the image. What ships comes first, and weighs more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It is in the image: its code or its files.
    Ships,
    /// It ran while the image was built, and shaped bytes of it: a procedural macro, a code generator, a
    /// compiler. Its own code is not in the image.
    Builds,
}

/// What tells a component from every other of a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its version; empty where there is none, as with a file.
    pub version: String,
}

/// One part of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Kind, name and version.
    pub id: Id,
    /// Whether it is in the image, or only helped to make it.
    pub role: Role,
    /// Its licence, where one is declared.
    pub licence: Option<Licence>,
    /// The digest of what was fetched or read.
    pub digest: Option<Digest>,
    /// Its name among all packages of the world.
    pub purl: Option<Purl>,
    /// Where its bytes came from.
    pub origin: Option<Origin>,
    /// Who supplies it: Debian's `Maintainer`, as `Name <address>` or a name alone.
    pub supplier: Option<String>,
    /// Other components of the same document that it needs.
    pub depends_on: BTreeSet<Id>,
}

/// Where bytes came from. There is no host in it: which mirror served them is the machine's affair, and the
/// digest says that it does not matter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The archive's name: "debian", "debian-security".
    pub archive: String,
    /// The path below the archive's base: "pool/main/m/musl/musl_1.2.5.orig.tar.gz".
    pub path: String,
}

/// A sha256 digest, and of what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Digest {
    /// Of one file: a package, an archive.
    File(Sha256),
    /// Of a directory, by in-toto's `dirHash`: of the lines "digest  path" of its files, sorted by path.
    Tree(Sha256),
}

/// A sha256 digest in hexadecimal, known to be one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Sha256(String);

impl Component {
    /// A component that ships, of which nothing but the name is known yet.
    #[must_use]
    pub fn new(kind: Kind, name: impl Into<String>, version: impl Into<String>) -> Self {
        Component {
            id: Id { kind, name: name.into(), version: version.into() },
            role: Role::Ships,
            licence: None,
            digest: None,
            purl: None,
            origin: None,
            supplier: None,
            depends_on: BTreeSet::new(),
        }
    }

    /// The same, made from a pinned file of a Debian archive: its digest, its place there and its package
    /// URL. `arch` is Debian's word for what the package is for: "amd64", or "all".
    pub fn fetched_as(self, pin: &Pin, arch: &str) -> Result<Self, Error> {
        Ok(Component {
            digest: Some(Digest::File(pin.sha256.parse()?)),
            purl: Some(Purl::deb(&pin.name, &pin.version, arch)?),
            origin: Some(Origin { archive: pin.archive.to_string(), path: pin.path.clone() }),
            ..self
        })
    }
}

impl Kind {
    /// The word for it in identifiers.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Crate => "Crate",
            Kind::DebianPackage => "Debian",
            Kind::Kernel => "Kernel",
            Kind::StandardLibrary => "Std",
            Kind::CLibrary => "CLibrary",
            Kind::Tool => "Tool",
            Kind::File => "File",
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names come from strangers: quoted where they are not plain.
        let word = |text: &str| match text.chars().all(|c| c.is_ascii_graphic()) {
            true => text.to_owned(),
            false => format!("{text:?}"),
        };
        write!(f, "{} {}", self.kind.word().to_ascii_lowercase(), word(&self.name))?;
        if self.version.is_empty() { Ok(()) } else { write!(f, " {}", word(&self.version)) }
    }
}

impl Digest {
    /// The digest itself.
    #[must_use]
    pub fn sha256(&self) -> &Sha256 {
        match self {
            Digest::File(sha256) | Digest::Tree(sha256) => sha256,
        }
    }
}

impl Sha256 {
    /// Of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Sha256(guest_inputs::sha256(bytes))
    }

    /// In hexadecimal.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Sha256 {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 64 && text.bytes().all(is_digit) {
            Ok(Sha256(text.to_owned()))
        } else {
            Err(Error::Digest(text.to_owned()))
        }
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_64_small_hexadecimal_digits() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(abc.parse::<Sha256>().unwrap(), Sha256::of(b"abc"));
        for bad in
            ["", "ba78", &abc.to_uppercase(), &abc.replace('b', "g"), &format!("{abc}0"), &"é".repeat(32)]
        {
            let error = bad.parse::<Sha256>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("sbom: {bad:?} is not a sha256 digest")), "{error}");
        }
    }

    #[test]
    fn a_name_on_the_terminal_is_harmless() {
        let id = |name: &str| Component::new(Kind::Crate, name, "1").id.to_string();
        assert_eq!(id("serde"), "crate serde 1");
        assert_eq!(id("\x1b[2J"), "crate \"\\u{1b}[2J\" 1");
    }
}
