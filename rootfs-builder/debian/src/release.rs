//! The Release file of a suite: what its lists of packages are, by digest, and until when it may be believed.

use std::time::SystemTime;

use crate::date;
use crate::error::Error;
use crate::keyring::Signed;
use crate::stanza::Stanza;

/// A suite's Release file, whose signature was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The name it was asked for by: "trixie", "bookworm-security".
    pub suite: String,
    /// When the archive made it, as it says.
    pub date: String,
    /// The fingerprint of the certificate whose key signed it.
    pub signed_by: String,
    /// apt takes nothing from it by itself: backports.
    pub not_automatic: bool,
    files: Vec<Listed>,
}

/// A file below the suite's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) sha256: String,
}

/// Whether a Release file may be older than it says it should get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// It is not believed after its `Valid-Until`: it decides what is newest.
    Fresh,
    /// It is only asked where a file is whose digest we know.
    Any,
}

impl Release {
    /// Reads one and makes sure it is the suite's that was asked for.
    pub(crate) fn read(suite: &str, signed: &Signed, now: SystemTime, age: Age) -> Result<Self, Error> {
        let wrong = |what: String| Error::Release { suite: suite.to_owned(), what };
        let stanza = Stanza::only(&signed.text).map_err(|error| wrong(error.to_string()))?;
        let field = |name: &str| stanza.get(name).ok_or_else(|| wrong(format!("has no {name}")));
        let names = [stanza.get("Codename"), stanza.get("Suite")];
        if !names.contains(&Some(suite)) {
            return Err(wrong(format!(
                "is that of {}",
                names.into_iter().flatten().next().unwrap_or("no suite")
            )));
        }
        let date = field("Date")?;
        date::parse(date).ok_or_else(|| wrong(format!("odd Date {date:?}")))?;
        if let (Some(until), Age::Fresh) = (stanza.get("Valid-Until"), age) {
            let end = date::parse(until).ok_or_else(|| wrong(format!("odd Valid-Until {until:?}")))?;
            if end < now {
                return Err(wrong(format!(
                    "expired at {until}: the mirror is stale, or this machine's clock wrong"
                )));
            }
        }
        let lines = field("SHA256")?.lines().filter(|line| !line.trim().is_empty());
        let files = lines.map(|line| listed(line).ok_or_else(|| wrong(format!("odd line {line:?}"))));
        Ok(Release {
            suite: suite.to_owned(),
            date: date.to_owned(),
            signed_by: signed.by.clone(),
            not_automatic: stanza.get("NotAutomatic") == Some("yes"),
            files: files.collect::<Result<_, _>>()?,
        })
    }

    /// What it says of a file below its directory.
    pub(crate) fn file(&self, path: &str) -> Result<&Listed, Error> {
        self.files.iter().find(|file| file.path == path).ok_or_else(|| Error::Release {
            suite: self.suite.clone(),
            what: format!("has no {path}: is the architecture in this suite?"),
        })
    }
}

/// `digest size path`
fn listed(line: &str) -> Option<Listed> {
    let mut words = line.split_ascii_whitespace();
    let sha256 = words.next().filter(|digest| is_sha256(digest))?;
    let size = words.next()?.parse().ok()?;
    let path = words.next()?;
    words.next().is_none().then(|| Listed { path: path.to_owned(), size, sha256: sha256.to_owned() })
}

/// Whether a text is a digest in the form that it is compared in.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn read(text: &str, age: Age) -> Result<Release, String> {
        let now = date::parse("Sat, 11 Jul 2026 00:00:00 UTC").unwrap();
        let signed = Signed { text: text.to_owned(), by: "f".to_owned() };
        Release::read("sid", &signed, now, age).map_err(|error| error.to_string())
    }

    fn text() -> String {
        format!(
            "Suite: unstable\nCodename: sid\nDate: Fri, 10 Jul 2026 00:00:00 UTC\n\
             Valid-Until: Sun, 12 Jul 2026 00:00:00 UTC\nMD5Sum:\n 00 1 x\nSHA256:\n {DIGEST} 3 main/x.xz\n"
        )
    }

    #[test]
    fn what_is_asked_of_it() {
        let release = read(&text(), Age::Fresh).unwrap();
        assert_eq!(release.file("main/x.xz").unwrap().size, 3);
        assert!(!release.not_automatic);
        let error = release.file("main/y").unwrap_err().to_string();
        assert!(error.starts_with("suite sid: Release: has no main/y"), "{error}");
        assert!(read(&(text() + "NotAutomatic: yes\n"), Age::Fresh).unwrap().not_automatic);
    }

    #[test]
    fn an_expired_one_is_refused_where_it_counts() {
        let old = text().replace("Sun, 12", "Fri, 10");
        let error = read(&old, Age::Fresh).unwrap_err();
        assert!(error.starts_with("suite sid: Release: expired at Fri, 10 Jul 2026"), "{error}");
        assert!(read(&old, Age::Any).is_ok());
        let without = text().replace("Valid-Until", "Other");
        assert!(read(&without, Age::Fresh).is_ok());
    }

    #[test]
    fn another_suite_s_or_a_broken_one_is_refused() {
        for (from, to, what) in [
            ("sid", "trixie", "is that of trixie"),
            ("Date: Fri, 10", "Date: Fri, 0", "odd Date"),
            ("Date", "Day", "has no Date"),
            ("SHA256", "SHA1", "has no SHA256"),
            ("ba78", "BA78", "odd line"),
            (" 3 ", " -3 ", "odd line"),
            ("Valid-Until: Sun, 12", "Valid-Until: Sun, x", "odd Valid-Until"),
            ("MD5Sum:\n", "MD5Sum\n", "line 5: has no colon"),
        ] {
            let error = read(&text().replace(from, to), Age::Fresh).unwrap_err();
            assert!(error.contains(what), "{error} / {what}");
        }
    }
}
