//! The licence of a Debian package, from its `copyright` file.
//!
//! Most are in the machine-readable form (Debian's copyright-format 1.0), whose short names are mapped to
//! SPDX's. A file in free text is its own licence: it is quoted whole. Nothing is guessed from prose.

use std::collections::BTreeMap;

use crate::Licence;

/// Debian's short names that SPDX spells otherwise, in small letters. The GNU licences are a rule: [`gnu`].
const NAMES: &[(&str, &str)] = &[
    ("0bsd", "0BSD"),
    ("apache-2", "Apache-2.0"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("bsd-4-clause", "BSD-4-Clause"),
    ("cc0", "CC0-1.0"),
    ("expat", "MIT"),
    ("mpl-2", "MPL-2.0"),
    ("psf-2", "PSF-2.0"),
    ("zlib", "Zlib"),
];

/// What stands between "with" and "exception", in small letters, where SPDX has one exception of that name.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("bison", "Bison-exception-2.2"),
    ("classpath", "Classpath-exception-2.0"),
    ("font", "Font-exception-2.0"),
    ("libtool", "Libtool-exception"),
    ("linux-syscall-note", "Linux-syscall-note"),
    ("llvm", "LLVM-exception"),
    ("texinfo", "Texinfo-exception"),
];

/// The licences of all files of a package, by the `copyright` file it ships. Only an empty file has none.
#[must_use]
pub fn debian_licence(copyright: &str) -> Option<Licence> {
    let paragraphs = paragraphs(copyright);
    if !paragraphs.first().is_some_and(|head| head.contains_key("format")) {
        let text = copyright.trim();
        return (!text.is_empty()).then(|| Licence::text("", text));
    }
    let licence = |paragraph: &BTreeMap<String, String>| {
        let (name, text) =
            paragraph.get("license").map(|field| field.split_once('\n').unwrap_or((field, "")))?;
        Some((name.trim().to_owned(), text.trim_end().to_owned()))
    };
    // A paragraph without files is the text of a short name.
    let alone = paragraphs.iter().filter(|p| !p.contains_key("files") && !p.contains_key("format"));
    let texts: BTreeMap<_, _> = alone.filter_map(licence).collect();
    let of_files = paragraphs.iter().filter(|p| p.contains_key("files")).filter_map(licence);
    let found = Licence::all(of_files.map(|(name, text)| short_names(&name, &text, &texts)));
    // A header alone, or one whose paragraphs lack what they must have.
    found.or_else(|| Some(Licence::text("", copyright.trim())))
}

/// "GPL-2+ or Artistic, and BSD-3-clause": a comma binds least, then "or", then "and".
fn short_names(names: &str, own_text: &str, texts: &BTreeMap<String, String>) -> Licence {
    let whole = || term(names, own_text, texts);
    let parts: Vec<&str> = names.split(',').map(str::trim).collect();
    let after = |operator: &str| {
        let rest = parts[1..].iter().map(|part| part.strip_prefix(operator)).collect::<Option<Vec<_>>>()?;
        let parts = [&parts[..1], &rest].concat();
        Some(parts.into_iter().map(|part| choices(part, own_text, texts)).collect::<Vec<_>>())
    };
    let joined = match (after("and "), after("or ")) {
        (Some(parts), _) => Licence::all(parts),
        (None, Some(parts)) => Licence::any(parts),
        (None, None) => None,
    };
    joined.unwrap_or_else(whole)
}

fn choices(names: &str, own_text: &str, texts: &BTreeMap<String, String>) -> Licence {
    let both =
        |names: &str| Licence::all(names.split(" and ").map(|name| term(name.trim(), own_text, texts)));
    Licence::any(names.split(" or ").filter_map(both)).unwrap_or_else(|| term(names, own_text, texts))
}

/// One short name, perhaps with an exception. What SPDX has not is a reference to its text.
fn term(name: &str, own_text: &str, texts: &BTreeMap<String, String>) -> Licence {
    let expression = expression(name).unwrap_or_else(|| name.to_owned());
    let listed = spdx::Expression::parse(&expression).ok().and_then(|_| Licence::expression_of(&expression));
    listed.filter(|licence| licence.texts().is_empty()).unwrap_or_else(|| {
        let text = texts.get(name).map_or(own_text, String::as_str);
        Licence::text(name, if text.is_empty() { name } else { text })
    })
}

/// SPDX's word for a short name that Debian spells otherwise: "GPL-3+ with Bison exception".
fn expression(name: &str) -> Option<String> {
    let small = name.to_ascii_lowercase();
    let (licence, exception) = match small.split_once(" with ") {
        Some((licence, exception)) => {
            (licence, Some(exception.strip_suffix("exception")?.trim_end_matches([' ', '-'])))
        }
        None => (small.as_str(), None),
    };
    let listed = |table: &[(&str, &str)], word: &str| {
        table.iter().find(|(debian, _)| *debian == word).map(|(_, spdx)| (*spdx).to_owned())
    };
    let known = listed(NAMES, licence).or_else(|| gnu(licence));
    match exception {
        None => known,
        Some(exception) => {
            // Other licences have the same name here and there, as Apache-2.0 has.
            let licence = known.unwrap_or_else(|| name[..licence.len()].to_owned());
            Some(format!("{licence} WITH {}", listed(EXCEPTIONS, exception)?))
        }
    }
}

/// "gpl-2+" is GPL-2.0-or-later, "lgpl-2.1" is LGPL-2.1-only; "gfdl-niv" is the one without invariant
/// sections.
fn gnu(small: &str) -> Option<String> {
    let (family, version) = small.rsplit_once('-')?;
    let (version, suffix) = match version.strip_suffix('+') {
        Some(version) => (version, "or-later"),
        None => (version, "only"),
    };
    if !version.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let (family, variant) = match family {
        "gpl" | "lgpl" | "agpl" | "gfdl" => (family.to_ascii_uppercase(), ""),
        "gfdl-niv" => ("GFDL".to_owned(), "no-invariants-"),
        _ => return None,
    };
    let minor = if version.contains('.') { "" } else { ".0" };
    Some(format!("{family}-{version}{minor}-{variant}{suffix}"))
}

/// The fields of each paragraph, names in small letters. A line that begins with a blank continues the field
/// above.
fn paragraphs(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut all = vec![BTreeMap::<String, String>::new()];
    let mut field = String::new();
    for line in text.lines() {
        let fields = all.last_mut().expect("there is one from the start");
        if line.trim().is_empty() {
            field.clear();
            if !fields.is_empty() {
                all.push(BTreeMap::new());
            }
        } else if line.starts_with([' ', '\t']) {
            if let Some(value) = fields.get_mut(&field) {
                let line = line.trim();
                value.push('\n');
                value.push_str(if line == "." { "" } else { line });
            }
        } else if let Some((name, value)) = line.split_once(':') {
            field = name.trim().to_ascii_lowercase();
            fields.insert(field.clone(), value.trim().to_owned());
        }
    }
    all.retain(|fields| !fields.is_empty());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dep5(licences: &[&str]) -> String {
        let mut text = "Format: copyright-format/1.0\nSource: somewhere\n".to_owned();
        for licence in licences {
            text += &format!("\nFiles: *\nCopyright: 2020 Somebody\nLicense: {licence}\n");
        }
        text
    }

    fn joined(licences: &[&str]) -> String {
        debian_licence(&dep5(licences)).unwrap().expression().to_owned()
    }

    #[test]
    fn short_names_are_mapped() {
        assert_eq!(joined(&["Expat"]), "MIT");
        assert_eq!(joined(&["GPL-2+"]), "GPL-2.0-or-later");
        assert_eq!(joined(&["LGPL-2.1"]), "LGPL-2.1-only");
        assert_eq!(
            joined(&["GPL-3+", "LGPL-2.1+", "Expat", "Expat"]),
            "GPL-3.0-or-later AND LGPL-2.1-or-later AND MIT"
        );
        assert_eq!(joined(&["GPL-2 or BSD-3-clause and Expat"]), "(BSD-3-Clause AND MIT) OR GPL-2.0-only");
        assert_eq!(joined(&["GPL-2 or BSD-3-clause, and Expat"]), "(BSD-3-Clause OR GPL-2.0-only) AND MIT");
        assert_eq!(
            joined(&["GPL-3.0-or-later WITH GCC-exception-3.1"]),
            "GPL-3.0-or-later WITH GCC-exception-3.1"
        );
    }

    #[test]
    fn what_spdx_has_not_keeps_its_text() {
        let text = dep5(&["public-domain or Expat", "BSD-odd\n No warranty.\n .\n None."])
            + "\nLicense: public-domain\n Nobody claims a right.\n";
        let licence = debian_licence(&text).unwrap();
        let texts: Vec<_> = licence.texts().iter().map(|(id, text)| (&id[..18], text.as_str())).collect();
        assert_eq!(
            texts,
            [
                ("LicenseRef-BSD-odd", "No warranty.\n\nNone."),
                ("LicenseRef-public-", "Nobody claims a right.")
            ]
        );
        let odd = joined(&["GPL-2+ with OpenSSL exception"]);
        assert!(odd.starts_with("LicenseRef-GPL-2--with-OpenSSL-exception-"), "{odd}");
    }

    /// Whatever Debian's maintainers wrote on this machine, the expression is one.
    #[test]
    fn what_is_installed_here_has_valid_expressions() {
        for entry in std::fs::read_dir("/usr/share/doc").into_iter().flatten() {
            let Ok(text) = std::fs::read(entry.unwrap().path().join("copyright")) else { continue };
            if let Some(licence) = debian_licence(&String::from_utf8_lossy(&text)) {
                assert!(spdx::Expression::parse(licence.expression()).is_ok(), "{}", licence.expression());
            }
        }
    }

    #[test]
    fn free_text_is_its_own_licence_and_nothing_is_none() {
        let licence =
            debian_licence("This is the Debian package of x.\n\nLicense: GPL, see there.\n").unwrap();
        assert!(licence.expression().starts_with("LicenseRef-"));
        assert_eq!(licence.texts().len(), 1);
        assert_eq!(debian_licence(" \n\n"), None);
        let header = "Format: x\n\nFiles: *\n";
        assert_eq!(debian_licence(header).unwrap().texts().values().next().unwrap(), header.trim());
        for hostile in [
            "Format: 1\n\nFiles: *\nLicense: ,\n",
            "Format: 1\n\nFiles: *\nLicense:  or \n",
            "Format: 1\n\nFiles:\nLicense: and or, and\n",
        ] {
            assert!(
                spdx::Expression::parse(debian_licence(hostile).unwrap().expression()).is_ok(),
                "{hostile:?}"
            );
        }
    }
}
