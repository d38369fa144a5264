//! Lists of symbols with reasons, as data in `checks/`: what must be on, what was given up on purpose, what cannot be had.
//!
//! A list is a TOML file of groups. A group says why, names symbols (`*` stands for any text), and may be bound to
//! architectures, variants and releases of Linux:
//!
//! ```toml
//! [fans]
//! why = "A guest has no fan."
//! symbols = ["ACPI_FAN", "THERMAL_*"]
//! arches = ["x86_64"]
//! before = "6.13"
//! ```

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr,
};

use guest_arch::Arch;
use serde::{Deserialize, Deserializer, de};

use crate::{
    Variant,
    error::{Error, at},
    release::Release,
};

/// What a kernel is, as far as a group may ask.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) arch: Arch,
    pub(crate) variant: Variant,
    pub(crate) release: Release,
}

/// One file of `checks/`.
#[derive(Debug)]
pub(crate) struct List {
    /// Where it is below `checks/`: "dropped/common.toml".
    pub(crate) name: String,
    /// By name.
    pub(crate) groups: BTreeMap<String, Group>,
}

/// Symbols that stand in a list for one reason. Names are without `CONFIG_`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    /// The reason.
    pub(crate) why: String,
    /// Names or patterns.
    #[serde(default)]
    pub(crate) symbols: Vec<String>,
    /// Names of what must be off; in lists of what is required only.
    #[serde(default)]
    pub(crate) off: Vec<String>,
    /// Values of symbols that are no switches; in lists of what is required only.
    #[serde(default)]
    pub(crate) values: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "names")]
    arches: Option<Vec<Arch>>,
    #[serde(default, deserialize_with = "names")]
    variants: Option<Vec<Variant>>,
    pub(crate) since: Option<Release>,
    pub(crate) before: Option<Release>,
}

/// Every list.
#[derive(Debug)]
pub(crate) struct Lists {
    /// What must be as they say.
    pub(crate) required: Vec<List>,
    /// What fragments or lists ask for and a kernel need not have.
    pub(crate) allowed: List,
    /// Defaults of the kernel that we gave up, on any architecture.
    pub(crate) dropped: List,
    /// The same for one.
    pub(crate) dropped_by: BTreeMap<Arch, List>,
}

/// `checks/` of this crate.
pub(crate) fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("checks")
}

impl Lists {
    /// Reads all of them.
    pub(crate) fn read(dir: &Path) -> Result<Self, Error> {
        let required = ["containers.toml", "hardening.toml", "transport.toml"];
        let per_arch =
            |arch: Arch| Ok((arch, List::read(dir, &format!("dropped/{arch}.toml"))?.explaining()?));
        Ok(Lists {
            required: required.iter().map(|name| List::read(dir, name)).collect::<Result<_, _>>()?,
            allowed: List::read(dir, "allowed.toml")?.explaining()?.bounded()?,
            dropped: List::read(dir, "dropped/common.toml")?.explaining()?,
            dropped_by: Arch::ALL.into_iter().map(per_arch).collect::<Result<_, Error>>()?,
        })
    }
}

impl List {
    fn read(dir: &Path, name: &str) -> Result<Self, Error> {
        let path = dir.join(name);
        let text = std::fs::read_to_string(&path).map_err(at("read", &path))?;
        Self::parse(name, &text)
    }

    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let groups = toml::from_str(text);
        let groups =
            groups.map_err(|source| Error::List { list: name.to_owned(), source: Box::new(source) })?;
        let list = List { name: name.to_owned(), groups };
        match list.groups.iter().find(|(_, group)| group.why.trim().is_empty()) {
            Some((group, _)) => Err(list.wrong(group, "gives no reason")),
            None => Ok(list),
        }
    }

    /// A list that explains why something is not as asked has no demands of its own.
    pub(crate) fn explaining(self) -> Result<Self, Error> {
        let demands = |group: &Group| !group.off.is_empty() || !group.values.is_empty();
        match self.groups.iter().find(|(_, group)| demands(group)) {
            Some((group, _)) => {
                Err(self.wrong(group, "has `off` or `values`, which only lists of demands have"))
            }
            None => Ok(self),
        }
    }

    /// A list of exceptions says for which releases they hold.
    pub(crate) fn bounded(self) -> Result<Self, Error> {
        match self.groups.iter().find(|(_, group)| group.before.is_none() && group.since.is_none()) {
            Some((group, _)) => Err(self.wrong(group, "has neither `since` nor `before`")),
            None => Ok(self),
        }
    }

    /// The entry that names this symbol for such a kernel: its group's name, and itself.
    pub(crate) fn entry(&self, kind: Kind, symbol: &str) -> Option<(&str, &str)> {
        let groups = self.groups.iter().filter(|(_, group)| group.is_for(kind));
        groups.into_iter().find_map(|(name, group)| {
            let entry = group.symbols.iter().find(|pattern| matches(pattern, symbol))?;
            Some((name.as_str(), entry.as_str()))
        })
    }

    fn wrong(&self, group: &str, what: &'static str) -> Error {
        Error::Group { list: self.name.clone(), group: group.to_owned(), what }
    }
}

impl Group {
    /// Whether it speaks of such a kernel.
    pub(crate) fn is_for(&self, kind: Kind) -> bool {
        self.arches.as_ref().is_none_or(|arches| arches.contains(&kind.arch))
            && self.variants.as_ref().is_none_or(|variants| variants.contains(&kind.variant))
            && kind.release.is_within(self.since, self.before)
    }
}

/// Whether a name fits a pattern, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let parts: Vec<_> = rest.split('*').collect();
    let (last, middle) = parts.split_last().expect("split yields at least one part");
    for part in middle {
        match name.split_once(part) {
            Some((_, after)) => name = after,
            None => return false,
        }
    }
    name.ends_with(last)
}

fn names<'de, D: Deserializer<'de>, T: FromStr<Err: std::fmt::Display>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    names.iter().map(|name| name.parse().map_err(de::Error::custom)).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(arch: Arch, release: &str) -> Kind {
        Kind { arch, variant: Variant::Lean, release: release.parse().unwrap() }
    }

    fn error(text: &str) -> String {
        let list = List::parse("allowed.toml", text).and_then(List::explaining).and_then(List::bounded);
        let error = list.unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("{error} {cause}")
    }

    #[test]
    fn a_star_is_any_text_and_everything_else_itself() {
        for (pattern, name) in [("A", "A"), ("A_*", "A_B"), ("*_B", "A_B"), ("A*C*E", "ABCDE"), ("A*", "A")] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("A", "AB"), ("A_*", "A"), ("*_B", "A_BC"), ("A*C*E", "ABDE"), ("AB*BC", "ABC")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn an_entry_holds_within_its_bounds() {
        let text = "[g]\nwhy = \"x\"\nsymbols = [\"A_*\"]\narches = [\"s390x\"]\nsince = \"6.9\"\nbefore = \"6.13\"\n";
        let list = List::parse("l.toml", text).unwrap();
        assert_eq!(list.entry(kind(Arch::S390x, "6.12.117"), "A_B"), Some(("g", "A_*")));
        assert_eq!(list.entry(kind(Arch::S390x, "6.13"), "A_B"), None);
        assert_eq!(list.entry(kind(Arch::S390x, "6.8"), "A_B"), None);
        assert_eq!(list.entry(kind(Arch::Riscv64, "6.12"), "A_B"), None);
        assert_eq!(list.entry(kind(Arch::S390x, "6.12"), "B"), None);
    }

    #[test]
    fn what_is_no_list_is_refused_with_its_place() {
        assert!(error("[g]\nwhy = \"x\"\nsymbol = []\nbefore = \"7.0\"").contains("unknown field `symbol`"));
        assert!(error("[g]\nsymbols = []").contains("missing field `why`"));
        assert!(error("[g]\nwhy = \" \"\nbefore = \"7.0\"").contains("allowed.toml [g] gives no reason"));
        assert!(error("[g]\nwhy = \"x\"\narches = [\"vax\"]\nbefore = \"7.0\"").contains("\"vax\""));
        assert!(error("[g]\nwhy = \"x\"\nbefore = \"later\"").contains("\"later\" is no release"));
        assert!(error("[g]\nwhy = \"x\"").contains("has neither `since` nor `before`"));
        assert!(
            error("[g]\nwhy = \"x\"\noff = [\"A\"]\nbefore = \"7.0\"")
                .contains("which only lists of demands")
        );
    }

    #[test]
    fn the_lists_of_this_crate_are_read() {
        let lists = Lists::read(&dir()).unwrap();
        assert_eq!(lists.dropped_by.len(), Arch::ALL.len());
        let symbols = |list: &List| list.groups.values().map(|group| group.symbols.len()).sum::<usize>();
        assert!(lists.required.iter().all(|list| symbols(list) > 20));
    }
}
