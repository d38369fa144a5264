//! Package URLs: a package's name among all packages of the world, which is what scanners look up. They name
//! a kind of registry, never a host.

use std::fmt;

use packageurl::PackageUrl;

use crate::Error;

/// A package URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Purl(String);

impl Purl {
    /// A crate of crates.io.
    pub fn cargo(name: &str, version: &str) -> Result<Self, Error> {
        Self::make("cargo", None, name, version, None)
    }

    /// A package of Debian. `arch` is Debian's word: "amd64", "all", or "source" for a source package.
    pub fn deb(name: &str, version: &str, arch: &str) -> Result<Self, Error> {
        Self::make("deb", Some("debian"), name, version, Some(("arch", arch)))
    }

    /// A package of PyPI.
    pub fn pypi(name: &str, version: &str) -> Result<Self, Error> {
        Self::make("pypi", None, name, version, None)
    }

    /// Something that no registry has: ours, or a bare archive. A crate of this workspace is one; called
    /// `pkg:cargo/jail`, it would be taken for somebody else's crate of that name.
    pub fn generic(namespace: &str, name: &str, version: &str) -> Result<Self, Error> {
        Self::make("generic", Some(namespace), name, version, None)
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn make(
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        version: &str,
        qualifier: Option<(&str, &str)>,
    ) -> Result<Self, Error> {
        let build = || {
            let mut url = PackageUrl::new(kind, name)?;
            if let Some(namespace) = namespace {
                url.with_namespace(namespace)?;
            }
            url.with_version(version)?;
            if let Some((key, value)) = qualifier {
                url.add_qualifier(key, value)?;
            }
            Ok(Purl(url.to_string()))
        };
        build().map_err(|source| Error::Purl { name: name.to_owned(), source })
    }
}

impl fmt::Display for Purl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_registry_has_its_form() {
        let text = |purl: Result<Purl, Error>| purl.unwrap().to_string();
        assert_eq!(text(Purl::cargo("serde", "1.0.229")), "pkg:cargo/serde@1.0.229");
        assert_eq!(
            text(Purl::cargo("toml_parser", "1.0.6+spec-1.1.0")),
            "pkg:cargo/toml_parser@1.0.6%2Bspec-1.1.0"
        );
        assert_eq!(
            text(Purl::deb("bash", "5.2.15-2+b7", "amd64")),
            "pkg:deb/debian/bash@5.2.15-2%2Bb7?arch=amd64"
        );
        assert_eq!(text(Purl::generic("husk", "jail", "0.1.0")), "pkg:generic/husk/jail@0.1.0");
        assert_eq!(text(Purl::pypi("ziglang", "0.15.1")), "pkg:pypi/ziglang@0.15.1");
    }

    #[test]
    fn a_hostile_name_stays_one_segment() {
        let hostile = Purl::cargo("a/b@2?x=y#z\"\n é", "1").unwrap();
        assert_eq!(hostile.as_str(), "pkg:cargo/a%2Fb%402%3Fx%3Dy%23z%22%0A%20%C3%A9@1");
        assert!(Purl::cargo("", "1").is_err());
    }
}
