//! Licences: an SPDX expression for what the list of licences has, a `LicenseRef-` with the text itself for
//! what it has not.

use std::collections::{BTreeMap, BTreeSet};

use spdx::{Expression, LicenseItem};

use crate::Sha256;

/// What a `LicenseRef-` is given as its text when a declaration names one and no more.
const NO_TEXT: &str = "The declaration names this licence and does not give its text.";

/// A licence as it is declared: a valid SPDX expression, with the text of whatever is not on SPDX's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Licence {
    expression: String,
    /// Text by `LicenseRef-` identifier.
    texts: BTreeMap<String, String>,
}

impl Licence {
    /// From what somebody declared. An expression is brought to SPDX's form ("MIT/Apache-2.0" is an old way
    /// to say "or"); anything else becomes a reference to itself. Nothing declared is no licence.
    #[must_use]
    pub fn declared(text: &str) -> Option<Self> {
        let text = text.trim();
        match text {
            "" | "NONE" | "NOASSERTION" => None,
            _ => Some(Self::expression_of(text).unwrap_or_else(|| Self::text("", text))),
        }
    }

    /// A licence that is on no list, by its text. `name` is what people call it, if they do.
    #[must_use]
    pub fn text(name: &str, text: &str) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let name: String = name.chars().map(plain).take(40).collect();
        let name = name.trim_matches('-');
        // The digest keeps two texts apart that go by one name: every package has its own "public-domain".
        let digest = Sha256::of(text.as_bytes());
        let digest = &digest.as_str()[..16];
        let id = match name {
            "" => format!("LicenseRef-{digest}"),
            _ => format!("LicenseRef-{name}-{digest}"),
        };
        Licence { expression: id.clone(), texts: BTreeMap::from([(id, text.to_owned())]) }
    }

    /// What one must comply with to use things under each of these. Without any, nothing.
    #[must_use]
    pub fn all(parts: impl IntoIterator<Item = Licence>) -> Option<Self> {
        Self::join(parts, AND)
    }

    /// A choice between these.
    #[must_use]
    pub fn any(parts: impl IntoIterator<Item = Licence>) -> Option<Self> {
        Self::join(parts, OR)
    }

    /// The SPDX expression.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The texts of what is not on SPDX's list, by identifier.
    pub(crate) fn texts(&self) -> &BTreeMap<String, String> {
        &self.texts
    }

    /// A valid expression of SPDX 2.3, from one that is nearly so.
    pub(crate) fn expression_of(text: &str) -> Option<Self> {
        let expression = Expression::canonicalize(text).ok()?.unwrap_or_else(|| text.to_owned());
        let parsed = Expression::parse(&expression).ok()?;
        let mut texts = BTreeMap::new();
        for requirement in parsed.requirements() {
            if let Some(addition) = &requirement.req.addition {
                addition.id()?; // AdditionRef- is of SPDX 3
            }
            if let LicenseItem::Other(reference) = &requirement.req.license {
                // Without a name, or of a document that we do not have.
                if reference.lic_ref.is_empty() || reference.doc_ref.is_some() {
                    return None;
                }
                texts.insert(reference.to_string(), NO_TEXT.to_owned());
            }
        }
        Some(Licence { expression, texts })
    }

    /// In one order, each once. Terms that hold the other operator get parentheses: right under any
    /// precedence.
    fn join(parts: impl IntoIterator<Item = Licence>, operator: &str) -> Option<Self> {
        let mut texts = BTreeMap::new();
        let mut terms = BTreeSet::new();
        for part in parts {
            texts.extend(part.texts);
            let flat = !part.expression.contains('(') && !part.expression.contains(other(operator));
            match flat {
                true => terms.extend(part.expression.split(operator).map(str::to_owned)),
                false => _ = terms.insert(part.expression),
            }
        }
        let many = terms.len() > 1;
        let wrap = |term: String| match many && (term.contains('(') || term.contains(other(operator))) {
            true => format!("({term})"),
            false => term,
        };
        let expression = terms.into_iter().map(wrap).collect::<Vec<_>>().join(operator);
        (!expression.is_empty()).then_some(Licence { expression, texts })
    }
}

const AND: &str = " AND ";
const OR: &str = " OR ";

fn other(operator: &str) -> &'static str {
    if operator == AND { OR } else { AND }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(text: &str) -> String {
        Licence::declared(text).unwrap().expression().to_owned()
    }

    #[test]
    fn expressions_get_their_present_form() {
        assert_eq!(declared("MIT"), "MIT");
        assert_eq!(declared("MIT/Apache-2.0"), "MIT OR Apache-2.0");
        assert_eq!(declared("Apache-2.0 / MIT"), "Apache-2.0 OR MIT");
        assert_eq!(declared("(MIT OR Apache-2.0) AND Unicode-3.0"), "(MIT OR Apache-2.0) AND Unicode-3.0");
        assert_eq!(declared("GPL-2.0+"), "GPL-2.0-or-later");
        assert_eq!(declared("GPL-2.0 WITH Linux-syscall-note"), "GPL-2.0-only WITH Linux-syscall-note");
    }

    #[test]
    fn what_is_no_expression_is_a_reference_to_itself() {
        let odd = [
            "Do as you please",
            "MIT AND",
            "((MIT)",
            "MIT\u{0}",
            "\"\\\n\"",
            "né",
            "DocumentRef-x:LicenseRef-y",
            "MIT WITH AdditionRef-x",
            "+",
            "/",
            "MIT WITH",
            "LicenseRef-",
            "AND",
        ];
        for text in odd {
            let licence = Licence::declared(text).unwrap();
            let id = licence.expression();
            assert!(id.starts_with("LicenseRef-"), "{text:?} became {id}");
            assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.'), "{id}");
            assert_eq!(licence.texts()[id], text);
            assert!(Expression::parse(id).is_ok(), "{id}");
        }
    }

    #[test]
    fn nothing_declared_is_no_licence() {
        for text in ["", " \n", "NOASSERTION", "NONE"] {
            assert_eq!(Licence::declared(text), None);
        }
        assert_eq!(Licence::all([]), None);
    }

    #[test]
    fn a_reference_without_text_says_so() {
        let licence = Licence::declared("MIT OR LicenseRef-acme").unwrap();
        assert_eq!(licence.texts().get("LicenseRef-acme").map(String::as_str), Some(NO_TEXT));
    }

    #[test]
    fn parts_join_in_one_order_once() {
        let parts = ["MIT OR Zlib", "ISC", "MIT OR Zlib"].map(|text| Licence::declared(text).unwrap());
        assert_eq!(Licence::all(parts).unwrap().expression(), "ISC AND (MIT OR Zlib)");
        let one = [Licence::declared("MIT OR Zlib").unwrap()];
        assert_eq!(Licence::all(one).unwrap().expression(), "MIT OR Zlib");
        let flat = ["MIT AND ISC", "ISC AND Zlib"].map(|text| Licence::declared(text).unwrap());
        assert_eq!(Licence::all(flat.clone()).unwrap().expression(), "ISC AND MIT AND Zlib");
        assert_eq!(Licence::any(flat).unwrap().expression(), "(ISC AND Zlib) OR (MIT AND ISC)");
        let two = [Licence::text("a b", "1"), Licence::text("a b", "2")];
        assert_eq!(Licence::all(two).unwrap().texts().len(), 2);
    }
}
