//! A list of packages (`Packages`) of one suite, and all lists that a resolution looks into.
//!
//! A list has some 60,000 stanzas, of which an image needs a hundred: it is read once for names, and a stanza
//! wholly when somebody asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::error::Error;
use crate::package::{Entry, Provenance};
use crate::relation;
use crate::stanza::{Stanza, Stanzas};

/// One suite's packages of one component.
#[derive(Debug)]
pub(crate) struct Index {
    from: Provenance,
    /// apt takes nothing from it by itself.
    pub(crate) not_automatic: bool,
    text: String,
    /// By name: where its stanzas are in the text, and on which line.
    names: BTreeMap<String, Vec<(Range<usize>, usize)>>,
    /// By name of a virtual package: the packages that provide it.
    providers: BTreeMap<String, BTreeSet<String>>,
}

impl Index {
    /// Reads a list.
    pub(crate) fn read(from: Provenance, not_automatic: bool, text: String) -> Result<Self, Error> {
        let suite = from.suite.clone();
        let wrong = |what: String| Error::Packages { suite: suite.clone(), what };
        let mut names: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut providers: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for stanza in Stanzas::of(&text) {
            let stanza = stanza.map_err(|error| wrong(error.to_string()))?;
            let Some(name) = stanza.get("Package") else {
                return Err(wrong(format!("line {}: a stanza without Package", stanza.line)));
            };
            for provided in relation::relations(stanza.get("Provides").unwrap_or_default()).map_err(&wrong)? {
                providers.entry(provided.name).or_default().insert(name.to_owned());
            }
            let place = (stanza.start..stanza.start + stanza.text.len(), stanza.line);
            names.entry(name.to_owned()).or_default().push(place);
        }
        Ok(Index { from, not_automatic, text, names, providers })
    }

    /// The suite's name.
    pub(crate) fn suite(&self) -> &str {
        &self.from.suite
    }

    /// All versions of a package.
    pub(crate) fn named(&self, name: &str) -> Result<Vec<Entry>, Error> {
        let places = self.names.get(name).into_iter().flatten();
        places.map(|(range, line)| self.entry(range.clone(), *line)).collect()
    }

    /// Packages that provide a virtual one, by name.
    pub(crate) fn providers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.providers.get(name).into_iter().flatten().map(String::as_str)
    }

    fn entry(&self, range: Range<usize>, line: usize) -> Result<Entry, Error> {
        let wrong = |what: String| Error::Packages { suite: self.from.suite.clone(), what };
        let mut stanza = Stanza::only(&self.text[range]).map_err(|error| wrong(error.to_string()))?;
        stanza.line = line;
        Entry::read(&stanza, &self.from).map_err(wrong)
    }
}

/// The lists of several suites for one architecture.
#[derive(Debug)]
pub struct Packages {
    pub(crate) architecture: String,
    pub(crate) indexes: Vec<Index>,
}

impl Packages {
    /// All that can be installed under a name, the best first: what apt would take by itself before
    /// backports, later versions before earlier ones, suites in their order.
    pub(crate) fn named(&self, name: &str) -> Result<Vec<Entry>, Error> {
        let mut all = Vec::new();
        for (order, index) in self.indexes.iter().enumerate() {
            let fitting = index.named(name)?.into_iter().filter(|entry| self.fits(entry));
            all.extend(fitting.map(|entry| (index.not_automatic, order, entry)));
        }
        all.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| b.2.version.cmp(&a.2.version)).then(a.1.cmp(&b.1)));
        Ok(all.into_iter().map(|(_, _, entry)| entry).collect())
    }

    /// Names of the packages that provide a virtual one.
    pub(crate) fn providers(&self, name: &str) -> BTreeSet<&str> {
        self.indexes.iter().flat_map(|index| index.providers(name)).collect()
    }

    fn fits(&self, entry: &Entry) -> bool {
        [self.architecture.as_str(), "all"].contains(&entry.package.architecture.as_str())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::package::tests::{DIGEST, provenance};

    /// A list of packages from lines `name version field: value; field: value`.
    pub(crate) fn index(suite: &str, not_automatic: bool, lines: &[&str]) -> Index {
        let stanza = |line: &&str| {
            let (head, fields) = line.split_once(';').unwrap_or((line, ""));
            let (name, version) = head.trim().split_once(' ').unwrap();
            let fields: String =
                fields.split(';').map(|f| format!("{}\n", f.trim())).filter(|f| f != "\n").collect();
            let architecture = if fields.contains("Architecture") { "" } else { "Architecture: amd64\n" };
            format!(
                "Package: {name}\nVersion: {version}\n{architecture}{fields}Filename: pool/{name}_{version}.deb\n\
                 Size: 1\nSHA256: {DIGEST}\n\n"
            )
        };
        let from = Provenance { suite: suite.to_owned(), ..provenance() };
        Index::read(from, not_automatic, lines.iter().map(stanza).collect()).unwrap()
    }

    pub(crate) fn packages(indexes: Vec<Index>) -> Packages {
        Packages { architecture: "amd64".to_owned(), indexes }
    }

    #[test]
    fn the_best_comes_first() {
        let all = packages(vec![
            index("backports", true, &["a 3"]),
            index("stable", false, &["a 1", "a 9; Architecture: i386"]),
            index("security", false, &["a 1+deb1; Architecture: all", "b 1"]),
        ]);
        let versions: Vec<_> = all.named("a").unwrap().into_iter().map(|e| e.package.version).collect();
        assert_eq!(versions, ["1+deb1", "1", "3"]);
        assert!(all.named("c").unwrap().is_empty());
    }

    #[test]
    fn providers_are_found_in_every_suite() {
        let all = packages(vec![
            index("one", false, &["mawk 1; Provides: awk"]),
            index("two", false, &["gawk 1; Provides: awk (= 2), x"]),
        ]);
        assert_eq!(all.providers("awk").into_iter().collect::<Vec<_>>(), ["gawk", "mawk"]);
    }

    #[test]
    fn a_broken_list_names_suite_and_line() {
        let error = |text: &str| Index::read(provenance(), false, text.to_owned()).unwrap_err().to_string();
        assert_eq!(
            error("Package: a\n\nVersion: 1\n"),
            "suite sid: Packages: line 3: a stanza without Package"
        );
        assert_eq!(error("Package: a\nx\n"), "suite sid: Packages: line 2: has no colon");
        let late = Index::read(provenance(), false, "\n\nPackage: a\nVersion: x y\n".to_owned()).unwrap();
        let error = late.named("a").unwrap_err().to_string();
        assert_eq!(error, "suite sid: Packages: line 3: package \"a\": odd version \"x y\"");
    }
}
