//! What one package says of others (Debian policy, chapter 7): `a (>= 1.2) | b:any, c`.

use std::fmt;

use crate::version::Version;

/// One of the alternatives of a dependency: a package's or a virtual package's name, and which versions of it
/// will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) name: String,
    /// What stands behind a colon: `any`, or the name of an architecture.
    pub(crate) architecture: Option<String>,
    pub(crate) versions: Option<(Comparison, Version)>,
}

/// Alternatives, the preferred one first.
pub(crate) type Group = Vec<Relation>;

/// How a version has to compare with the one that is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Earlier,
    EarlierOrEqual,
    Equal,
    LaterOrEqual,
    Later,
}

impl Relation {
    /// Whether a package of that version will do.
    pub(crate) fn admits(&self, version: &Version) -> bool {
        self.versions.as_ref().is_none_or(|(comparison, bound)| {
            let order = version.cmp(bound);
            match comparison {
                Comparison::Earlier => order.is_lt(),
                Comparison::EarlierOrEqual => order.is_le(),
                Comparison::Equal => order.is_eq(),
                Comparison::LaterOrEqual => order.is_ge(),
                Comparison::Later => order.is_gt(),
            }
        })
    }

    /// Whether a virtual package will do, of the version that its provider gives it, if any (policy 7.5).
    pub(crate) fn admits_provided(&self, version: Option<&Version>) -> bool {
        self.versions.is_none() || version.is_some_and(|version| self.admits(version))
    }

    /// Whether a package of the guest's own architecture can be meant.
    pub(crate) fn is_for(&self, architecture: &str) -> bool {
        self.architecture.as_deref().is_none_or(|named| ["any", "native", architecture].contains(&named))
    }
}

/// Reads a field of dependencies: all groups have to be met, each by one of its alternatives.
pub(crate) fn groups(field: &str) -> Result<Vec<Group>, String> {
    let named = field.split(',').map(str::trim).filter(|group| !group.is_empty());
    named.map(|group| group.split('|').map(relation).collect()).collect()
}

/// Reads a field without alternatives: Conflicts, Breaks, Provides.
pub(crate) fn relations(field: &str) -> Result<Vec<Relation>, String> {
    field.split(',').map(str::trim).filter(|one| !one.is_empty()).map(relation).collect()
}

/// Whether something is a package's name (policy 5.6.7; one letter is allowed by us, as by dpkg).
pub(crate) fn is_package_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
}

/// `name[:architecture] [(comparison version)]`. Restrictions to architectures or build profiles have no
/// place in a binary package.
fn relation(text: &str) -> Result<Relation, String> {
    let text = text.trim();
    let wrong = |what: &str| format!("{text:?} is no dependency: {what}");
    let (named, versions) = match text.split_once('(') {
        None => (text, None),
        Some((named, rest)) => {
            let inside = rest.strip_suffix(')').ok_or_else(|| wrong("no closing bracket at its end"))?;
            (named.trim_end(), Some(bound(inside.trim()).ok_or_else(|| wrong("odd version"))?))
        }
    };
    let (name, architecture) = match named.split_once(':') {
        None => (named, None),
        Some((name, architecture)) => (name, Some(architecture)),
    };
    if !is_package_name(name) || architecture.is_some_and(|named| !is_package_name(named)) {
        return Err(wrong("odd name"));
    }
    Ok(Relation { name: name.to_owned(), architecture: architecture.map(str::to_owned), versions })
}

fn bound(text: &str) -> Option<(Comparison, Version)> {
    const SIGNS: [(&str, Comparison); 5] = [
        ("<<", Comparison::Earlier),
        ("<=", Comparison::EarlierOrEqual),
        (">=", Comparison::LaterOrEqual),
        (">>", Comparison::Later),
        ("=", Comparison::Equal),
    ];
    let (sign, comparison) = SIGNS.into_iter().find(|(sign, _)| text.starts_with(sign))?;
    Some((comparison, Version::parse(text[sign.len()..].trim_start())?))
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(architecture) = &self.architecture {
            write!(f, ":{architecture}")?;
        }
        let Some((comparison, version)) = &self.versions else { return Ok(()) };
        let sign = match comparison {
            Comparison::Earlier => "<<",
            Comparison::EarlierOrEqual => "<=",
            Comparison::Equal => "=",
            Comparison::LaterOrEqual => ">=",
            Comparison::Later => ">>",
        };
        write!(f, " ({sign} {version})")
    }
}

/// A group as its package spells it.
pub(crate) fn spelt(group: &[Relation]) -> String {
    group.iter().map(Relation::to_string).collect::<Vec<_>>().join(" | ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_field_is_read_and_spelt_again() {
        let field = "libc6 (>= 2.34), debconf (>= 0.5) | debconf-2.0, python3:any, x (<< 1), y (>> 2), z (= 1:3-4), \
                     v (<= 5)";
        let all = groups(field).unwrap();
        assert_eq!(all.iter().map(|group| spelt(group)).collect::<Vec<_>>().join(", "), field);
        assert_eq!(groups("a(>=1),,b|c,").unwrap().len(), 2);
        assert!(groups("").unwrap().is_empty());
    }

    #[test]
    fn versions_decide() {
        let admits = |text: &str, version| relation(text).unwrap().admits(&Version::parse(version).unwrap());
        assert!(
            admits("a (>= 1.2)", "1.2") && !admits("a (>> 1.2)", "1.2-0") && admits("a (>> 1.2)", "1.2-1")
        );
        assert!(admits("a (<< 1.2)", "1.2~rc1") && !admits("a (= 1.2)", "1.2-1") && admits("a", "0"));
        let provided = |text: &str, version: Option<&str>| {
            relation(text)
                .unwrap()
                .admits_provided(version.map(|text| Version::parse(text).unwrap()).as_ref())
        };
        assert!(provided("a", None) && !provided("a (>= 1)", None) && provided("a (>= 1)", Some("1")));
    }

    #[test]
    fn odd_ones_are_refused() {
        for text in [
            "A",
            "a b",
            "a (1)",
            "a (>= 1",
            "a (>= )",
            "a (> 1)",
            "a [amd64]",
            "a <!x>",
            "|",
            "a | ",
            "a:",
            "é",
        ] {
            assert!(groups(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn other_architectures_are_not_meant() {
        let is_for = |text: &str| relation(text).unwrap().is_for("arm64");
        assert!(is_for("a") && is_for("a:any") && is_for("a:arm64") && !is_for("a:i386"));
    }

    proptest! {
        #[test]
        fn what_is_read_is_spelt_so_that_it_is_read_again(text in "[a-c:|, ()<>=0-9.~\u{e4}-]{0,24}") {
            let Ok(all) = groups(&text) else { return Ok(()) };
            let spelt: Vec<_> = all.iter().map(|group| spelt(group)).collect();
            prop_assert_eq!(groups(&spelt.join(", ")), Ok(all));
        }
    }
}
