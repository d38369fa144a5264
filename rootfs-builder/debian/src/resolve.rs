//! From the packages that somebody wants to all that these need: a closure over Pre-Depends and Depends.
//!
//! No search: each choice is made once, in a fixed order, and stands. Of alternatives the first one that can
//! be had is taken, of the providers of a virtual package the one of highest priority, then the first by
//! name; what has been chosen before, for whatever reason, is preferred to both. Nothing is in an image
//! because it is "essential": a guest without package manager needs no such set. When choices collide the
//! error says which, and the recipe names what it wants.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::error::Error;
use crate::index::Packages;
use crate::package::{Entry, Package};
use crate::relation::{self, Relation, is_package_name, spelt};
use crate::version::Version;

/// What an image should have.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Packages by name, each as `name`, `name=version` or `name/suite`.
    pub packages: &'a [String],
    /// Packages, real or virtual, that stay out whoever depends on them: such a dependency counts as met,
    /// whatever its other alternatives are.
    pub exclude: &'a [String],
}

/// All that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// In order of their names.
    pub packages: Vec<Package>,
    /// Dependencies that are not met, because the request excludes what they name.
    pub waived: Vec<Waived>,
}

/// A dependency that the request waives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waived {
    /// Whose dependency.
    pub package: String,
    /// As it is spelt.
    pub dependency: String,
}

/// Resolves a request.
pub fn resolve(available: &Packages, request: Request<'_>) -> Result<Resolution, Error> {
    for name in request.exclude {
        if !is_package_name(name) {
            return Err(unresolved(name, Vec::new(), "is no package's name"));
        }
    }
    let exclude = request.exclude.iter().map(String::as_str).collect();
    let mut choice = Choice { available, exclude, chosen: BTreeMap::new(), to_do: VecDeque::new() };
    for wanted in request.packages {
        choice.take_requested(wanted)?;
    }
    let mut waived = BTreeSet::new();
    while let Some(name) = choice.to_do.pop_front() {
        choice.meet_needs(&name, &mut waived)?;
    }
    Ok(Resolution { packages: choice.packages(), waived: waived.into_iter().collect() })
}

/// What has been chosen so far.
struct Choice<'a> {
    available: &'a Packages,
    exclude: BTreeSet<&'a str>,
    chosen: BTreeMap<String, Chosen>,
    /// Chosen ones whose needs have not been looked at.
    to_do: VecDeque<String>,
}

struct Chosen {
    entry: Entry,
    /// The package that needed it; none if the request names it.
    by: Option<String>,
}

impl Choice<'_> {
    fn take_requested(&mut self, wanted: &str) -> Result<(), Error> {
        let fail = |what: &str| unresolved(wanted, vec!["the recipe".to_owned()], what);
        let (name, suite, version) = parse_wanted(wanted).ok_or_else(|| fail("is no package's name"))?;
        if self.exclude.contains(name) {
            return Err(fail("is both wanted and excluded"));
        }
        let fits = |entry: &&Entry| {
            suite.is_none_or(|suite| entry.package.suite == suite)
                && version.as_ref().is_none_or(|version| entry.version == *version)
        };
        let all = self.available.named(name)?;
        let Some(entry) = all.iter().find(fits) else {
            return Err(fail(&self.why_none(name, &all)));
        };
        match self.chosen.get(name) {
            Some(there) if there.entry.version == entry.version => Ok(()),
            Some(there) => Err(fail(&format!("{} is wanted too", there.entry.package.version))),
            None => match self.in_the_way(entry) {
                Some(other) => Err(fail(&other)),
                None => {
                    self.take(entry.clone(), None);
                    Ok(())
                }
            },
        }
    }

    fn meet_needs(&mut self, name: &str, waived: &mut BTreeSet<Waived>) -> Result<(), Error> {
        let Some(Chosen { entry, .. }) = self.chosen.get(name) else { return Ok(()) };
        for group in entry.needs.clone() {
            if self.is_met(&group) {
                continue;
            }
            if group.iter().any(|wanted| self.exclude.contains(wanted.name.as_str())) {
                waived.insert(Waived { package: name.to_owned(), dependency: spelt(&group) });
                continue;
            }
            let mut why_not = Vec::new();
            let mut found = None;
            for wanted in &group {
                match self.best(wanted)? {
                    Ok(entry) => {
                        found = Some(entry);
                        break;
                    }
                    Err(why) => why_not.push(why),
                }
            }
            match found {
                Some(entry) => self.take(entry, Some(name)),
                None => return Err(unresolved(&spelt(&group), self.chain(name), &why_not.join("; "))),
            }
        }
        Ok(())
    }

    fn is_met(&self, group: &[Relation]) -> bool {
        group.iter().any(|wanted| self.meeting(wanted).is_some())
    }

    /// The chosen package that meets one alternative.
    fn meeting(&self, wanted: &Relation) -> Option<&str> {
        if !wanted.is_for(&self.available.architecture) {
            return None;
        }
        let under_its_name = self.chosen.get(&wanted.name).filter(|chosen| chosen.entry.meets(wanted));
        let found =
            under_its_name.or_else(|| self.chosen.values().find(|chosen| chosen.entry.meets(wanted)))?;
        Some(&found.entry.package.name)
    }

    /// The package to take for one alternative, or why there is none.
    fn best(&self, wanted: &Relation) -> Result<Result<Entry, String>, Error> {
        if !wanted.is_for(&self.available.architecture) {
            return Ok(Err(format!("{wanted} is of another architecture")));
        }
        if let Some(there) = self.chosen.get(&wanted.name) {
            return Ok(Err(format!("{} {} is chosen already", wanted.name, there.entry.package.version)));
        }
        let real = self.available.named(&wanted.name)?;
        let mut virtually = Vec::new();
        for name in self.available.providers(&wanted.name) {
            if !self.exclude.contains(name) && !self.chosen.contains_key(name) {
                virtually.extend(self.available.named(name)?);
            }
        }
        // Stable: what `named` gives first for one name stays first.
        virtually.sort_by(|a, b| (a.priority, &a.package.name).cmp(&(b.priority, &b.package.name)));
        let mut in_the_way = None;
        for entry in real.iter().chain(&virtually).filter(|entry| entry.meets(wanted)) {
            match self.in_the_way(entry) {
                None => return Ok(Ok(entry.clone())),
                Some(why) => in_the_way = in_the_way.or(Some(why)),
            }
        }
        Ok(Err(in_the_way.unwrap_or_else(|| self.why_none(&wanted.name, &real))))
    }

    /// What keeps a package out: a conflict with one that is chosen, whichever of them declares it. No
    /// package conflicts with itself: mail servers both provide and exclude "mail-transport-agent".
    fn in_the_way(&self, entry: &Entry) -> Option<String> {
        let excludes = |one: &Entry, other: &Entry| {
            one.excludes.iter().find(|excluded| other.meets(excluded)).map(Relation::to_string)
        };
        self.chosen.values().find_map(|Chosen { entry: there, .. }| {
            let (a, b) = (&entry.package, &there.package);
            let declared = |by: &Package, what: String| format!("{} {} excludes {what}", by.name, by.version);
            let found = excludes(entry, there).map(|what| declared(a, what));
            let found = found.or_else(|| excludes(there, entry).map(|what| declared(b, what)));
            found.map(|why| format!("{} cannot be with {}: {why}", a.name, b.name))
        })
    }

    fn why_none(&self, name: &str, there: &[Entry]) -> String {
        let suites: Vec<_> = self.available.indexes.iter().map(|index| index.suite()).collect();
        let suites = suites.join(", ");
        if there.is_empty() {
            return format!("{name} is in none of {suites} for {}", self.available.architecture);
        }
        let versions: Vec<_> =
            there.iter().map(|e| format!("{}/{}", e.package.version, e.package.suite)).collect();
        format!("of {name} there is only {}", versions.join(", "))
    }

    fn take(&mut self, entry: Entry, by: Option<&str>) {
        let name = entry.package.name.clone();
        self.to_do.push_back(name.clone());
        self.chosen.insert(name, Chosen { entry, by: by.map(str::to_owned) });
    }

    /// Who wanted a package, and who wanted that, up to the recipe.
    fn chain(&self, name: &str) -> Vec<String> {
        let mut chain = Vec::new();
        let mut next = Some(name);
        while let Some(Chosen { entry, by }) = next.and_then(|name| self.chosen.get(name)) {
            chain.push(format!("{} {}", entry.package.name, entry.package.version));
            next = by.as_deref();
        }
        chain.push("the recipe".to_owned());
        chain
    }

    fn packages(&self) -> Vec<Package> {
        let with_needs = self.chosen.values().map(|Chosen { entry, .. }| {
            let met =
                entry.needs.iter().filter_map(|group| group.iter().find_map(|wanted| self.meeting(wanted)));
            let depends: BTreeSet<_> =
                met.filter(|name| *name != entry.package.name).map(str::to_owned).collect();
            Package { depends: depends.into_iter().collect(), ..entry.package.clone() }
        });
        with_needs.collect()
    }
}

/// `name`, `name=version` or `name/suite`.
fn parse_wanted(text: &str) -> Option<(&str, Option<&str>, Option<Version>)> {
    let (name, suite, version) = match (text.split_once('='), text.split_once('/')) {
        (Some((name, version)), _) => (name, None, Some(Version::parse(version)?)),
        (None, Some((name, suite))) => (name, Some(suite), None),
        (None, None) => (text, None, None),
    };
    relation::is_package_name(name).then_some((name, suite, version))
}

fn unresolved(wanted: &str, by: Vec<String>, what: &str) -> Error {
    Error::Unresolved { wanted: wanted.to_owned(), by, what: what.to_owned() }
}

#[cfg(test)]
mod tests;
