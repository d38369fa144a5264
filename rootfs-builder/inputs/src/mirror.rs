//! The machine's own Debian mirror: its address is read from the apt sources, in both forms they come in.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Archive, Error};

/// One line or stanza of the apt sources: an address and a suite it is used for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    suite: String,
}

/// The base address of an archive, without a slash at its end.
pub(crate) fn base(archive: Archive) -> Result<String, Error> {
    let codename = fs::read_to_string("/etc/os-release").ok().and_then(|text| codename(&text));
    choose(&installed_sources(Path::new("/etc/apt")), archive, codename.as_deref())
        .ok_or(Error::NoMirror { archive })
}

/// The source of `archive`: the one whose suite is the release's, else one whose address ends in the archive's name.
fn choose(sources: &[Source], archive: Archive, codename: Option<&str>) -> Option<String> {
    let suite = codename.map(|name| match archive {
        Archive::Debian => name.to_owned(),
        Archive::DebianSecurity => format!("{name}-security"),
    });
    let named = |s: &&Source| s.uri.ends_with(&format!("/{archive}"));
    let by_suite = sources.iter().find(|s| Some(&s.suite) == suite.as_ref());
    let found = by_suite.or_else(|| sources.iter().find(named)).map(|s| s.uri.clone());
    match archive {
        Archive::Debian => found,
        // A mirror of one archive usually has the other beside it.
        Archive::DebianSecurity => found.or_else(|| {
            let debian = choose(sources, Archive::Debian, codename)?;
            Some(format!("{}/debian-security", debian.strip_suffix("/debian")?))
        }),
    }
}

fn installed_sources(apt: &Path) -> Vec<Source> {
    let mut files = vec![apt.join("sources.list")];
    let parts = fs::read_dir(apt.join("sources.list.d")).into_iter().flatten().flatten();
    let mut parts: Vec<PathBuf> = parts.map(|e| e.path()).collect();
    parts.sort();
    files.append(&mut parts);
    let mut sources = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|e| e.to_str()) {
            Some("list") => sources.append(&mut one_line(&text)),
            Some("sources") => sources.append(&mut deb822(&text)),
            _ => {} // apt ignores other names too
        }
    }
    sources.into_iter().filter_map(resolve).collect()
}

/// `mirror+file:` names a file with one address per line, as cloud images have it: its first line is taken.
fn resolve(source: Source) -> Option<Source> {
    let uri = match source.uri.strip_prefix("mirror+file:") {
        Some(list) => {
            let text = fs::read_to_string(Path::new("/").join(list.trim_start_matches('/'))).ok()?;
            text.split_whitespace().find(|word| !word.starts_with('#'))?.to_owned()
        }
        None => source.uri,
    };
    let web = uri.starts_with("http://") || uri.starts_with("https://");
    web.then(|| Source { uri: uri.trim_end_matches('/').to_owned(), suite: source.suite })
}

/// `deb [options] address suite component...`
fn one_line(text: &str) -> Vec<Source> {
    let parse = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let rest = line.strip_prefix("deb")?;
        let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        Some(Source { uri: words.next()?.to_owned(), suite: words.next()?.to_owned() })
    };
    text.lines().filter_map(parse).collect()
}

/// Stanzas of `Field: value`, continued on lines that begin with a blank, parted by empty lines.
fn deb822(text: &str) -> Vec<Source> {
    let mut all = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue; // a comment, also in the middle of a stanza
        }
        if line.trim().is_empty() {
            all.append(&mut stanza(&fields));
            fields.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    all
}

fn stanza(fields: &[(String, String)]) -> Vec<Source> {
    let words = |name: &str| {
        let value = fields.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.as_str());
        value.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let disabled = words("enabled").iter().any(|w| w.eq_ignore_ascii_case("no"));
    if disabled || !words("types").iter().any(|w| w == "deb") {
        return Vec::new();
    }
    let mut sources = Vec::new();
    for uri in words("uris") {
        for suite in words("suites") {
            sources.push(Source { uri: uri.clone(), suite });
        }
    }
    sources
}

fn codename(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|l| l.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(uri: &str, suite: &str) -> Source {
        Source { uri: uri.to_owned(), suite: suite.to_owned() }
    }

    const DEB822: &str = "\
# a comment
Types: deb
# URIs: http://commented.invalid/debian
URIs: http://m.invalid/debian/
Suites: bookworm
 bookworm-updates
Components: main

Types: deb
URIs: http://s.invalid/debian-security
Suites: bookworm-security

Types: deb-src
URIs: http://src.invalid/debian
Suites: bookworm

Enabled: no
Types: deb
URIs: http://off.invalid/debian
Suites: bookworm
";

    #[test]
    fn deb822_stanzas() {
        assert_eq!(
            deb822(DEB822),
            [
                source("http://m.invalid/debian/", "bookworm"),
                source("http://m.invalid/debian/", "bookworm-updates"),
                source("http://s.invalid/debian-security", "bookworm-security"),
            ]
        );
    }

    #[test]
    fn one_line_entries() {
        let text = "# deb http://no.invalid/debian bookworm main\n\
            deb http://m.invalid/debian bookworm main contrib # why\n\
            deb-src http://src.invalid/debian bookworm main\n\
            deb [ arch=amd64 signed-by=/x ] https://s.invalid/security/ bookworm-security main\n\
            deb [broken http://b.invalid/debian bookworm main\n\
            debian http://b.invalid/debian bookworm main\n";
        assert_eq!(
            one_line(text),
            [
                source("http://m.invalid/debian", "bookworm"),
                source("https://s.invalid/security/", "bookworm-security"),
            ]
        );
    }

    #[test]
    fn the_release_suite_decides() {
        let all = [
            source("http://third.invalid/apt", "stable"),
            source("http://m.invalid/debian", "bookworm"),
            source("http://s.invalid/sec", "bookworm-security"),
        ];
        let pick = |archive| choose(&all, archive, Some("bookworm"));
        assert_eq!(pick(Archive::Debian).unwrap(), "http://m.invalid/debian");
        assert_eq!(pick(Archive::DebianSecurity).unwrap(), "http://s.invalid/sec");
    }

    #[test]
    fn without_a_security_entry_it_is_beside_the_other() {
        let one = [source("http://m.invalid/a/debian", "bookworm")];
        let found = choose(&one, Archive::DebianSecurity, Some("bookworm"));
        assert_eq!(found.unwrap(), "http://m.invalid/a/debian-security");
        let odd = [source("http://m.invalid/mirror", "bookworm")];
        assert_eq!(choose(&odd, Archive::DebianSecurity, Some("bookworm")), None);
    }

    #[test]
    fn another_release_falls_back_on_the_name() {
        let all = [source("http://third.invalid/apt", "x"), source("http://m.invalid/debian", "stable")];
        assert_eq!(choose(&all, Archive::Debian, Some("bookworm")).unwrap(), "http://m.invalid/debian");
        assert_eq!(choose(&all[..1], Archive::Debian, None), None);
    }

    #[test]
    fn files_of_both_forms_are_read_and_others_left() {
        let apt = tempfile::tempdir().unwrap();
        let parts = apt.path().join("sources.list.d");
        fs::create_dir(&parts).unwrap();
        fs::write(apt.path().join("sources.list"), "deb http://a.invalid/debian/ bookworm main\n").unwrap();
        fs::write(parts.join("b.sources"), "Types: deb\nURIs: http://b.invalid/x\nSuites: y\n").unwrap();
        fs::write(parts.join("c.list.disabled"), "deb http://c.invalid/debian bookworm main\n").unwrap();
        fs::write(parts.join("d.list"), "deb cdrom:[x]/ bookworm main\n").unwrap();
        let expected = [source("http://a.invalid/debian", "bookworm"), source("http://b.invalid/x", "y")];
        assert_eq!(installed_sources(apt.path()), expected);
    }

    #[test]
    fn codename_is_unquoted() {
        assert_eq!(codename("NAME=x\nVERSION_CODENAME=\"bookworm\"\n").as_deref(), Some("bookworm"));
        assert_eq!(codename("NAME=x\n"), None);
    }
}
