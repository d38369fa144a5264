//! Judges a resolved configuration: what was asked for and not granted, what the kernel would have had by itself and lost
//! without a reason, what a list demands. Plain functions on values.

use std::{collections::BTreeSet, fmt};

use crate::{
    fragment::{Mismatch, Symbols, mismatches},
    list::{Kind, List, Lists},
};

/// One kernel's configuration, and where it comes from.
pub(crate) struct Facts {
    pub(crate) kind: Kind,
    /// What the fragments ask for.
    pub(crate) requested: Symbols,
    /// What came of it over `allnoconfig`: what is built.
    pub(crate) resolved: Symbols,
    /// What came of it over `alldefconfig`: what the kernel's authors would add.
    pub(crate) defaults: Symbols,
}

/// Something that is not as it has to be. Each names a symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A fragment's line did not come out as it says.
    NotGranted(Mismatch),
    /// On by default, off here, and nobody said why.
    Dropped {
        /// Its full name.
        symbol: String,
    },
    /// A list demands another value.
    Demanded {
        /// Which list, as "hardening.toml".
        list: String,
        /// Which of its groups.
        group: String,
        /// What it is about.
        mismatch: Mismatch,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::NotGranted(mismatch) => {
                write!(f, "{mismatch}: the kernel did not grant what a fragment asks for")
            }
            Finding::Dropped { symbol } => {
                write!(
                    f,
                    "{symbol} is on by default and got lost: ask for it, or give a reason in checks/dropped/"
                )
            }
            Finding::Demanded { list, group, mismatch } => {
                write!(f, "{mismatch}: demanded by checks/{list} [{group}]")
            }
        }
    }
}

/// Entries of lists of reasons: the list's name, the group's, the entry. Those that were of use, or those that were not.
pub(crate) type Entries = BTreeSet<(String, String, String)>;

/// Everything that is wrong with a configuration. What a list excuses is left out, and the entry noted in `used`.
pub(crate) fn judge(facts: &Facts, lists: &Lists, used: &mut Entries) -> Vec<Finding> {
    let kind = facts.kind;
    let mut is_excused = |lists: &[&List], symbol: &str| {
        let name = symbol.strip_prefix("CONFIG_").unwrap_or(symbol);
        let found = lists.iter().find_map(|list| Some((list, list.entry(kind, name)?)));
        if let Some((list, (group, entry))) = found {
            used.insert((list.name.clone(), group.to_owned(), entry.to_owned()));
        }
        found.is_some()
    };
    let mut findings = Vec::new();
    for mismatch in mismatches(&facts.requested, &facts.resolved) {
        if !is_excused(&[&lists.allowed], &mismatch.symbol) {
            findings.push(Finding::NotGranted(mismatch));
        }
    }
    let is_on = |symbols: &Symbols, symbol: &str| symbols.get(symbol).is_some_and(|value| value == "y");
    for (symbol, _) in facts.defaults.iter().filter(|(_, value)| *value == "y") {
        let reasons = [&lists.dropped_by[&kind.arch], &lists.dropped];
        if !is_on(&facts.resolved, symbol) && !is_excused(&reasons, symbol) {
            findings.push(Finding::Dropped { symbol: symbol.clone() });
        }
    }
    for list in &lists.required {
        for (name, group) in list.groups.iter().filter(|(_, group)| group.is_for(kind)) {
            for mismatch in mismatches(&demands(group), &facts.resolved) {
                if !is_excused(&[&lists.allowed], &mismatch.symbol) {
                    let (list, group) = (list.name.clone(), name.clone());
                    findings.push(Finding::Demanded { list, group, mismatch });
                }
            }
        }
    }
    findings
}

/// Every entry of these lists.
pub(crate) fn entries<'a>(lists: impl IntoIterator<Item = &'a List>) -> Entries {
    let groups =
        lists.into_iter().flat_map(|list| list.groups.iter().map(move |(name, group)| (list, name, group)));
    groups
        .flat_map(|(list, name, group)| {
            group.symbols.iter().map(|entry| (list.name.clone(), name.clone(), entry.clone()))
        })
        .collect()
}

fn demands(group: &crate::list::Group) -> Symbols {
    let full = |symbol: &String| format!("CONFIG_{symbol}");
    let on = group.symbols.iter().map(|symbol| (full(symbol), "y".to_owned()));
    let off = group.off.iter().map(|symbol| (full(symbol), "n".to_owned()));
    let values = group.values.iter().map(|(symbol, value)| (full(symbol), value.clone()));
    on.chain(off).chain(values).collect()
}

#[cfg(test)]
#[path = "verdict/tests.rs"]
mod tests;
