//! What moved between two locks, for a person to read.

use std::collections::BTreeMap;
use std::fmt;

use super::{Input, Lock};

/// One input that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Which: "source linux-source-6.12", "debian x86_64: package bash".
    pub what: String,
    /// What the lock has; nothing if it is new.
    pub before: Option<String>,
    /// What is there now; nothing if it is gone.
    pub after: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, &self.after) {
            (None, Some(after)) => write!(f, "+ {} {after}", self.what),
            (Some(before), None) => write!(f, "- {} {before}", self.what),
            (before, after) => {
                let [before, after] = [before, after].map(|side| side.as_deref().unwrap_or_default());
                write!(f, "~ {} {before} -> {after}", self.what)
            }
        }
    }
}

/// In the order of names. Two versions of one name are two inputs: pins of several compilers stand side by side.
pub(super) fn between(before: &Lock, after: &Lock) -> Vec<Change> {
    let (before, after) = (rows(before), rows(after));
    let mut changes = Vec::new();
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let empty = Vec::new();
        let (old, new) = (before.get(name).unwrap_or(&empty), after.get(name).unwrap_or(&empty));
        let gone: Vec<_> = old.iter().filter(|row| !new.contains(row)).collect();
        let come: Vec<_> = new.iter().filter(|row| !old.contains(row)).collect();
        for index in 0..gone.len().max(come.len()) {
            let [before, after] = [&gone, &come].map(|side| side.get(index).map(|row| (*row).clone()));
            // The same version with other bytes has to show what differs.
            let same = before.as_ref().zip(after.as_ref()).is_some_and(|(a, b)| a.0 == b.0);
            let said =
                |row: Option<Row>| row.map(|row| if same { format!("{} ({})", row.0, row.1) } else { row.0 });
            changes.push(Change { what: name.clone(), before: said(before), after: said(after) });
        }
    }
    changes
}

/// A version, and what else makes up its identity.
type Row = (String, String);

fn rows(lock: &Lock) -> BTreeMap<String, Vec<Row>> {
    let mut rows: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for input in &lock.inputs {
        let name = format!("{} {}", input.kind, input.name);
        rows.entry(name).or_default().push((input.version.clone(), identity(input)));
    }
    for resolved in &lock.recipes {
        for package in &resolved.packages {
            let name = format!("{} {}: package {}", resolved.name, resolved.arch, package.name);
            let identity = format!("{} {}", package.sha256, package.path);
            rows.entry(name).or_default().push((package.version.clone(), identity));
        }
    }
    rows
}

fn identity(input: &Input) -> String {
    let digest = input.sha256.as_deref().unwrap_or_default();
    format!("{digest} {}", input.from).trim().to_owned()
}
