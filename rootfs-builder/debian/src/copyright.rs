//! A package's licence, as its copyright file has it in Debian's machine-readable form (DEP 5).
//!
//! That form gives a licence to each group of files of the source; a bill of materials has room for one a
//! package. It is that of `Files: *`, the one for whatever has no other. Free text is not guessed at: most
//! other packages have that.

use guest_tree::{Kind, Tree};

use crate::stanza::Stanzas;

/// What SPDX calls not knowing.
const UNKNOWN: &str = "NOASSERTION";
/// Longer than any copyright file.
const LIMIT: u64 = 4 << 20;
/// Debian's short names that SPDX spells otherwise. A `+` behind a version is "or any later version".
const SPDX: &[(&str, &str)] = &[
    ("Apache-2", "Apache-2.0"),
    ("BSD-2-clause", "BSD-2-Clause"),
    ("BSD-3-clause", "BSD-3-Clause"),
    ("BSD-4-clause", "BSD-4-Clause"),
    ("Expat", "MIT"),
    ("GPL-1", "GPL-1.0-only"),
    ("GPL-1+", "GPL-1.0-or-later"),
    ("GPL-2", "GPL-2.0-only"),
    ("GPL-2+", "GPL-2.0-or-later"),
    ("GPL-3", "GPL-3.0-only"),
    ("GPL-3+", "GPL-3.0-or-later"),
    ("ISC", "ISC"),
    ("LGPL-2", "LGPL-2.0-only"),
    ("LGPL-2+", "LGPL-2.0-or-later"),
    ("LGPL-2.1", "LGPL-2.1-only"),
    ("LGPL-2.1+", "LGPL-2.1-or-later"),
    ("LGPL-3", "LGPL-3.0-only"),
    ("LGPL-3+", "LGPL-3.0-or-later"),
    ("MIT", "MIT"),
    ("MPL-2.0", "MPL-2.0"),
    ("Zlib", "Zlib"),
    ("zlib", "Zlib"),
];

/// The copyright file of a package whose files are in a tree; none if it has none that is text.
pub(crate) fn text(tree: &Tree, package: &str) -> Option<String> {
    let path = tree.resolve(format!("usr/share/doc/{package}/copyright"))?;
    let Kind::File(content) = &tree.get(path)?.kind else { return None };
    if content.len() > LIMIT {
        return None;
    }
    String::from_utf8(content.bytes().ok()?.to_vec()).ok()
}

/// The licence that a copyright file gives: an SPDX expression, or "NOASSERTION".
pub(crate) fn licence(text: &str) -> String {
    of_text(text).unwrap_or_else(|| UNKNOWN.to_owned())
}

/// The licence of `Files: *` in a machine-readable copyright file.
fn of_text(text: &str) -> Option<String> {
    let mut stanzas = Stanzas::of(text);
    let format = stanzas.next()?.ok()?;
    format.get("Format").filter(|format| format.contains("copyright-format/1.0"))?;
    // A stanza that cannot be read may have been the one.
    let all = stanzas.map(Result::ok).collect::<Option<Vec<_>>>()?;
    let rest = all.iter().find(|stanza| stanza.get("Files").is_some_and(|files| files.trim() == "*"))?;
    expression(rest.get("License")?.lines().next()?.trim())
}

/// `A or B`, `A and B` with names of Debian's; none where one of them has no name in SPDX.
fn expression(text: &str) -> Option<String> {
    let mut words = Vec::new();
    for word in text.split_ascii_whitespace() {
        words.push(match word {
            "or" => "OR",
            "and" => "AND",
            name => SPDX.iter().find(|(debian, _)| *debian == name || spelt_out(debian, name))?.1,
        });
    }
    let alternate = words.iter().enumerate().all(|(at, word)| matches!(*word, "OR" | "AND") == (at % 2 == 1));
    // Which of two different operators binds stronger, only a person can say.
    let one_operator = !(words.contains(&"OR") && words.contains(&"AND"));
    (alternate && one_operator && words.len() % 2 == 1).then(|| words.join(" "))
}

/// `GPL-2.0+` is `GPL-2+`.
fn spelt_out(debian: &str, name: &str) -> bool {
    let (base, plus) = name.strip_suffix('+').map_or((name, ""), |base| (base, "+"));
    base.strip_suffix(".0").is_some_and(|base| format!("{base}{plus}") == debian)
}

#[cfg(test)]
mod tests {
    use guest_tree::{Node, Origin};

    use super::*;

    const HEAD: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n";

    fn of(rest: &str) -> Option<String> {
        of_text(&format!("{HEAD}{rest}"))
    }

    #[test]
    fn the_licence_of_all_files_is_taken() {
        let rest = "Files: debian/*\nLicense: MIT\n\nFiles: *\nCopyright: x\nLicense: LGPL-2.1+ and GPL-2.0\n text\n";
        assert_eq!(of(rest).as_deref(), Some("LGPL-2.1-or-later AND GPL-2.0-only"));
        assert_eq!(of("Files: *\nLicense: Expat\n").as_deref(), Some("MIT"));
        assert_eq!(of("Files: *\nLicense: GPL-3.0+ or MIT\n").as_deref(), Some("GPL-3.0-or-later OR MIT"));
    }

    #[test]
    fn what_is_not_said_clearly_is_not_guessed() {
        for rest in [
            "Files: src/*\nLicense: MIT\n",
            "Files: *\nLicense: public-domain\n",
            "Files: *\nLicense: MIT or\n",
            "Files: *\nLicense: MIT ISC\n",
            "Files: *\nLicense: MIT or ISC and Zlib\n",
            "Files: *\nLicense: GPL-2 with exception\n",
            "Files: *\nCopyright: x\n",
            "no field\n\nFiles: *\nLicense: MIT\n",
        ] {
            assert_eq!(of(rest), None, "{rest}");
        }
        assert_eq!(of_text("This package was made by...\n"), None);
        assert_eq!(of_text(""), None);
    }

    #[test]
    fn it_is_found_through_links_between_packages() {
        let origin = Origin::from("test");
        let mut tree = Tree::new();
        let text = format!("{HEAD}Files: *\nLicense: Expat\n");
        tree.put("usr/share/doc/one/copyright", Node::file(0o644, text.as_str(), &origin)).unwrap();
        tree.put("usr/share/doc/two", Node::symlink("one", &origin)).unwrap();
        assert_eq!(super::text(&tree, "two").map(|text| licence(&text)).as_deref(), Some("MIT"));
        assert_eq!(super::text(&tree, "three"), None);
        assert_eq!(licence("free text"), "NOASSERTION");
    }
}
