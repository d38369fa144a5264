//! dpkg's database (`/var/lib/dpkg/status`): nothing here reads it, but who scans an image for known holes
//! does.

use std::collections::BTreeMap;

use guest_tree::{Node, Origin, Tree};

use crate::error::Error;
use crate::stanza::Stanza;

const STATUS: &str = "var/lib/dpkg/status";

/// A package's stanza: its control file, with a word on its state (deb-control(5), dpkg-query(1)). Conffiles
/// are not listed: their digests serve upgrades, and there are none.
pub(crate) fn stanza(control: &str) -> Result<String, String> {
    let control = Stanza::only(control).map_err(|error| format!("its control file: {error}"))?;
    let mut lines = control.text.lines();
    let first = lines.next().filter(|line| line.starts_with("Package:"));
    let first = first.ok_or("its control file does not begin with Package")?;
    let rest: String = lines.map(|line| format!("{line}\n")).collect();
    Ok(format!("{first}\nStatus: install ok installed\n{rest}"))
}

/// Writes the database.
pub(crate) fn write(
    tree: &mut Tree,
    stanzas: &BTreeMap<String, String>,
    origin: &Origin,
) -> Result<(), Error> {
    let whole: String = stanzas.values().map(|stanza| format!("{stanza}\n")).collect();
    tree.put(STATUS, Node::file(0o644, whole.as_str(), origin))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stanza_says_that_the_package_is_installed() {
        let text = "Package: p\nVersion: 1\nDepends: a,\n b\nDescription: x\n .\n y\n";
        let expected = text.replacen('\n', "\nStatus: install ok installed\n", 1);
        assert_eq!(stanza(text).unwrap(), expected);
        assert_eq!(stanza(&format!("\n{text}\n")).unwrap(), expected);
    }

    #[test]
    fn an_odd_control_file_is_refused() {
        for (text, what) in [
            ("", "its control file: line 1: there is nothing"),
            ("Package: p\n\nPackage: q\n", "its control file: line 1: there is more than one stanza"),
            ("Version: 1\nPackage: p\n", "its control file does not begin with Package"),
            ("x\n", "its control file: line 1: has no colon"),
        ] {
            assert_eq!(stanza(text).unwrap_err(), what, "{text:?}");
        }
    }

    #[test]
    fn stanzas_are_parted_and_in_order() {
        let mut tree = Tree::new();
        let stanzas = BTreeMap::from([
            ("b".to_owned(), "Package: b\n".to_owned()),
            ("a".to_owned(), "Package: a\n".to_owned()),
        ]);
        write(&mut tree, &stanzas, &Origin::from("test")).unwrap();
        let guest_tree::Kind::File(content) = &tree.get(STATUS).unwrap().kind else { panic!() };
        assert_eq!(&content.bytes().unwrap()[..], b"Package: a\n\nPackage: b\n\n");
    }
}
