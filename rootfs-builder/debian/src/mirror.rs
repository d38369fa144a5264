//! The archive as the machine's mirror serves it now: suites with their signed Release files and lists of
//! packages.

use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use guest_arch::Arch;
use guest_inputs::{Archive, Cache, Pin, Progress};

use crate::error::{Error, at};
use crate::index::{Index, Packages};
use crate::keyring::Keyring;
use crate::package::{Package, Provenance};
use crate::release::{Age, Release};

/// The only component that is looked into: what Debian itself consists of.
const COMPONENT: &str = "main";
/// Longer than any Release file; sid's has 200 KB.
const RELEASE_LIMIT: u64 = 4 << 20;
/// Longer than any list of packages; sid's has 60 MB.
const PACKAGES_LIMIT: u64 = 256 << 20;
/// Where a package may be that has left its own suite: every suite that mirrors serve, the likeliest first.
const SUITES: [&str; 12] = [
    "trixie",
    "trixie-security",
    "trixie-updates",
    "trixie-proposed-updates",
    "trixie-backports",
    "bookworm",
    "bookworm-security",
    "bookworm-updates",
    "bookworm-proposed-updates",
    "bookworm-backports",
    "forky",
    "sid",
];

/// A mirror, and whom we believe what it says.
#[derive(Debug)]
pub struct Mirror<'a> {
    cache: &'a Cache,
    progress: &'a Progress,
    keyring: Keyring,
    now: SystemTime,
}

impl<'a> Mirror<'a> {
    /// The machine's own, with Debian's keyring. The time decides nothing but which signatures still count.
    pub fn open(cache: &'a Cache, progress: &'a Progress) -> Result<Self, Error> {
        let keyring = Keyring::fetch(cache, progress)?;
        Ok(Mirror { cache, progress, keyring, now: SystemTime::now() })
    }

    /// A suite's Release file as it is now, its signature verified.
    pub fn release(&self, suite: &str, age: Age) -> Result<Release, Error> {
        if !is_suite_name(suite) {
            return Err(Error::Release { suite: suite.to_owned(), what: "is no suite's name".to_owned() });
        }
        let path = format!("dists/{suite}/InRelease");
        let file = guest_inputs::fetch_current(archive_of(suite), &path, RELEASE_LIMIT, self.progress)?;
        let signed = self.keyring.verify(suite, &file, self.now)?;
        Release::read(suite, &signed, self.now, age)
    }

    /// What suites have for an architecture. The order of the suites decides between equal versions.
    pub fn packages(&self, suites: &[String], arch: Arch) -> Result<Packages, Error> {
        let architecture = arch.row().debian;
        let index = |suite: &String| self.index(&self.release(suite, Age::Fresh)?, architecture);
        let indexes = suites.iter().map(index).collect::<Result<_, _>>()?;
        Ok(Packages { architecture: architecture.to_owned(), indexes })
    }

    /// Where a locked package is now: the same bytes, in whichever suite. For one that is no more where it
    /// was.
    pub fn find(&self, gone: &Package, arch: Arch) -> Result<Package, Error> {
        let mut tried = Vec::new();
        let own = gone.suite.as_str();
        for suite in [own].into_iter().chain(SUITES.into_iter().filter(|suite| *suite != own)) {
            let release = self.release(suite, Age::Any);
            let index = release.and_then(|release| self.index(&release, arch.row().debian));
            let entries = index.and_then(|index| index.named(&gone.name));
            match entries {
                Ok(entries) => match entries.into_iter().find(|entry| entry.package.sha256 == gone.sha256) {
                    Some(there) => return Ok(Package { depends: gone.depends.clone(), ..there.package }),
                    None => tried.push(suite.to_owned()),
                },
                Err(Error::Inputs(guest_inputs::Error::Download { absent: true, .. })) => {
                    tried.push(format!("{suite} (not served)"));
                }
                // A mirror that does not answer for one suite does not for the next.
                Err(error @ Error::Inputs(guest_inputs::Error::Download { .. })) => return Err(error),
                Err(error) => tried.push(format!("{suite} ({error})")),
            }
        }
        let package = format!("{} {} (sha256 {})", gone.name, gone.version, gone.sha256);
        Err(Error::Gone { package, tried })
    }

    /// Reads the list of packages that a Release file lists.
    fn index(&self, release: &Release, architecture: &str) -> Result<Index, Error> {
        let directory = format!("{COMPONENT}/binary-{architecture}");
        let wrong = |what: String| Error::Packages { suite: release.suite.clone(), what };
        let listed = release.file(&format!("{directory}/Packages.xz"))?;
        let whole = release.file(&format!("{directory}/Packages"))?.size;
        if whole > PACKAGES_LIMIT {
            return Err(wrong(format!("has {whole} bytes, more than the limit of {PACKAGES_LIMIT}")));
        }
        let pin = |path: String| Pin {
            name: format!("list of packages of {}", release.suite),
            version: format!("of {}", release.date),
            archive: archive_of(&release.suite),
            path: format!("dists/{}/{directory}/{path}", release.suite),
            size: listed.size,
            sha256: listed.sha256.clone(),
        };
        let fetch = |path: String| guest_inputs::fetch(self.cache, &pin(path), self.progress);
        // By its digest it is the list that was signed, also while the mirror changes; but not every mirror
        // has all.
        let file = fetch(format!("by-hash/SHA256/{}", listed.sha256)).or_else(|error| match error {
            guest_inputs::Error::Download { absent: true, .. } => fetch("Packages.xz".to_owned()),
            other => Err(other),
        })?;
        let text = read_whole(&file, whole)?;
        let text = String::from_utf8(text).map_err(|_| wrong("is not text".to_owned()))?;
        let from = Provenance {
            suite: release.suite.clone(),
            archive: archive_of(&release.suite),
            signed_by: release.signed_by.clone(),
        };
        Index::read(from, release.not_automatic, text)
    }
}

/// Unpacks a list; no more than the bytes it should have.
fn read_whole(file: &Path, size: u64) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let data = guest_inputs::open_compressed(file, ".xz")?;
    data.take(size + 1).read_to_end(&mut text).map_err(at("unpack", file))?;
    match text.len() as u64 == size {
        true => Ok(text),
        false => {
            Err(at("unpack", file)(std::io::Error::other(format!("has not the {size} bytes it should"))))
        }
    }
}

fn archive_of(suite: &str) -> Archive {
    if suite.ends_with("-security") { Archive::DebianSecurity } else { Archive::Debian }
}

fn is_suite_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_suites_lead_nowhere_else() {
        assert!(SUITES.iter().all(|suite| is_suite_name(suite)));
        for text in ["", "../x", "a/b", "a b", "Sid", "-a", "a?b"] {
            assert!(!is_suite_name(text), "{text:?}");
        }
    }

    #[test]
    fn security_has_an_archive_of_its_own() {
        assert_eq!(archive_of("trixie-security"), Archive::DebianSecurity);
        assert_eq!(archive_of("trixie-updates"), Archive::Debian);
    }
}
