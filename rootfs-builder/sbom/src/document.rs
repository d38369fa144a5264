//! The list of everything in an image, checked and sorted once, so that what writes it has nothing to refuse
//! and nothing to order.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Component, Error, Id, Role, Sha256, component::Origin};

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    name: String,
    image: Sha256,
    /// By id, which is the order in which they are written.
    components: BTreeMap<Id, Listed>,
}

/// A component, and what documents call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) component: Component,
    /// Letters, digits, dots and dashes; no other component's.
    pub(crate) reference: String,
}

impl Document {
    /// The document called `name` ("x86_64/debian") about the image with this digest. Components may come in
    /// any order, and from several lists: one that is in two of them ships if it does in either, and needs
    /// what both say.
    pub fn new(
        name: &str,
        image: Sha256,
        components: impl IntoIterator<Item = Component>,
    ) -> Result<Self, Error> {
        if name.is_empty() {
            return Err(Error::NoName("a document".to_owned()));
        }
        let mut sorted = BTreeMap::<Id, Component>::new();
        for component in components {
            check(&component)?;
            let merged = match sorted.remove(&component.id) {
                Some(other) => merge(other, component)?,
                None => component,
            };
            sorted.insert(merged.id.clone(), merged);
        }
        for component in sorted.values() {
            if let Some(on) = component.depends_on.iter().find(|on| !sorted.contains_key(on)) {
                return Err(Error::Dangling { from: component.id.clone(), on: on.clone() });
            }
        }
        let mut taken = BTreeSet::from([IMAGE.to_owned(), "DOCUMENT".to_owned()]);
        let listed = |(id, component)| {
            let reference = reference(&id, &mut taken);
            (id, Listed { component, reference })
        };
        let components = sorted.into_iter().map(listed).collect();
        Ok(Document { name: name.to_owned(), image, components })
    }

    /// Every component, in the order of the documents.
    pub fn components(&self) -> impl Iterator<Item = &Component> {
        self.listed().map(|listed| &listed.component)
    }

    pub(crate) fn listed(&self) -> impl Iterator<Item = &Listed> {
        self.components.values()
    }

    /// What `listed` depends on. [`Document::new`] saw that it is there.
    pub(crate) fn needs<'a>(&'a self, listed: &'a Listed) -> impl Iterator<Item = &'a Listed> {
        listed.component.depends_on.iter().filter_map(|id| self.components.get(id))
    }

    /// What is in the image, as opposed to what made it.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = &Listed> {
        self.listed().filter(|listed| listed.component.role == Role::Ships)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn image(&self) -> &Sha256 {
        &self.image
    }
}

/// What documents call the image itself.
pub(crate) const IMAGE: &str = "Image";

/// How the program that writes the documents calls itself.
pub(crate) const TOOL: (&str, &str) = ("husk", env!("CARGO_PKG_VERSION"));

fn check(component: &Component) -> Result<(), Error> {
    if component.id.name.is_empty() {
        return Err(Error::NoName(component.id.to_string()));
    }
    let Some(Origin { archive, path }) = &component.origin else { return Ok(()) };
    let refuse = |text: &str, expected| {
        Err(Error::Origin { id: component.id.clone(), text: text.to_owned(), expected })
    };
    if archive.is_empty() || archive.contains(['/', ':']) {
        return refuse(archive, "the name of an archive");
    }
    if path.contains("://") || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return refuse(path, "a path below an archive");
    }
    Ok(())
}

/// Two accounts of one component. What it is must be the same in both.
fn merge(one: Component, two: Component) -> Result<Component, Error> {
    let role = one.role.min(two.role);
    let depends_on: BTreeSet<Id> = one.depends_on.union(&two.depends_on).cloned().collect();
    let merged = Component { role, depends_on, ..one };
    let same = Component { role, depends_on: merged.depends_on.clone(), ..two } == merged;
    if same { Ok(merged) } else { Err(Error::Twice(merged.id)) }
}

/// A name that both formats accept. A character they do not know becomes a dash; whoever is no longer alone
/// with a name for that, or was not to begin with, gets a number. The order is that of the ids, so the
/// numbers are the same in every build.
fn reference(id: &Id, taken: &mut BTreeSet<String>) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let mut base: String = format!("{}-{}", id.kind.word(), id.name).chars().map(plain).collect();
    if !id.version.is_empty() {
        base.push('-');
        base.extend(id.version.chars().map(plain));
    }
    let numbered = (2_usize..).map(|n| format!("{base}-{n}"));
    let free = std::iter::once(base.clone()).chain(numbered).find(|name| !taken.contains(name));
    let free = free.expect("the numbers do not end before the components do");
    taken.insert(free.clone());
    free
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn component(name: &str) -> Component {
        Component::new(Kind::Crate, name, "1")
    }

    fn document(components: impl IntoIterator<Item = Component>) -> Result<Document, Error> {
        Document::new("x86_64/minimal", Sha256::of(b"image"), components)
    }

    fn refused(components: impl IntoIterator<Item = Component>) -> String {
        document(components).unwrap_err().to_string()
    }

    #[test]
    fn the_order_of_the_input_is_forgotten() {
        let one = document([component("a"), component("b"), component("a b"), component("a-b")]).unwrap();
        let two =
            document([component("a-b"), component("a b"), component("b"), component("a"), component("b")]);
        assert_eq!(one, two.unwrap());
    }

    #[test]
    fn a_component_of_two_lists_is_one() {
        let (mut builds, mut ships) = (component("a"), component("a"));
        builds.role = Role::Builds;
        builds.depends_on.insert(component("b").id);
        ships.depends_on.insert(component("c").id);
        let others = [component("b"), component("c")];
        let both = document([builds.clone(), ships.clone()].into_iter().chain(others.clone())).unwrap();
        assert_eq!(both, document([ships, builds].into_iter().chain(others)).unwrap());
        let a = both.components().next().unwrap();
        assert_eq!((a.role, a.depends_on.len()), (Role::Ships, 2));
    }

    #[test]
    fn references_are_plain_and_different() {
        let names = ["a b", "a-b", "a\u{1}b", "a\"b", "ä", "ö", "-", "a-b-1", "a"];
        let document = document(names.map(component)).unwrap();
        let references: BTreeSet<_> = document.listed().map(|l| l.reference.clone()).collect();
        assert_eq!(references.len(), names.len());
        for reference in references {
            assert!(
                reference.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)),
                "{reference}"
            );
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let mut other = component("a");
        other.digest = Some(crate::Digest::File(Sha256::of(b"other")));
        assert_eq!(
            refused([component("a"), other]),
            "sbom: crate a 1 is listed twice, with different contents"
        );
        let mut needy = component("a");
        needy.depends_on.insert(component("b").id);
        assert_eq!(refused([needy]), "sbom: crate a 1 depends on crate b 1, which is not listed");
        assert_eq!(refused([component("")]), "sbom: crate  1 has no name");
        assert!(Document::new("", Sha256::of(b""), []).is_err());
    }

    #[test]
    fn an_origin_names_no_host() {
        let from = |archive: &str, path: &str| {
            let mut component = component("a");
            component.origin = Some(Origin { archive: archive.into(), path: path.into() });
            component
        };
        assert!(document([from("debian", "pool/main/a/a_1.deb")]).is_ok());
        for path in ["http://m.invalid/pool/a", "/pool/a", "pool/../../a", "", "pool//a"] {
            assert_eq!(
                refused([from("debian", path)]),
                format!("sbom: crate a 1: {path:?} is not a path below an archive")
            );
        }
        for archive in ["http://m.invalid", "m.invalid/debian", ""] {
            let expected = format!("sbom: crate a 1: {archive:?} is not the name of an archive");
            assert_eq!(refused([from(archive, "pool/a")]), expected);
        }
    }
}
