//! What fuzz targets call: bytes from a stranger go in, and a broken promise comes out as a panic.
//!
//! Each function of [`TARGETS`] reads one kind of file with the code that a build reads it with, and then checks what the
//! rest of a build relies on. `rootfs-builder/fuzz` has a program for each; its `seeds/` are also run by the test here.

use std::path::{Component, Path};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use guest_inputs::Archive;

use crate::index::Index;
use crate::keyring::{Keyring, Signed};
use crate::package::Provenance;
use crate::release::{Age, Release, is_sha256};
use crate::stanza::Stanzas;
use crate::unpacked;
use crate::version::Version;

/// A target: what `rootfs-builder/fuzz` calls its program and its seeds, and what that runs.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] =
    &[("deb", deb), ("in_release", in_release), ("packages", packages), ("release", release)];

/// A list of packages. What it names is below the archive's base, has a digest, and is later than nothing it equals.
pub fn packages(bytes: &[u8]) {
    let Ok(text) = String::from_utf8(bytes.to_vec()) else { return };
    let names: Vec<String> = Stanzas::of(&text)
        .flatten()
        .filter_map(|stanza| Some(stanza.get("Package")?.to_owned()))
        .take(100) // one name again and again would be looked up as often
        .collect();
    let from = Provenance { suite: "sid".to_owned(), archive: Archive::Debian, signed_by: String::new() };
    let Ok(index) = Index::read(from, false, text) else { return };
    for name in names {
        for entry in index.named(&name).into_iter().flatten() {
            assert_eq!(entry.package.name, name);
            assert!(is_sha256(&entry.package.sha256));
            assert!(entry.package.path.split('/').all(|part| !["", ".", ".."].contains(&part)));
            let again = Version::parse(&entry.package.version).expect("it was one before");
            assert!(again.cmp(&entry.version).is_eq());
            entry.provides.iter().for_each(|provided| _ = entry.meets(provided));
        }
    }
}

/// A Release file whose signature was good. Each file that it lists has a digest.
pub fn release(bytes: &[u8]) {
    let Ok(text) = String::from_utf8(bytes.to_vec()) else { return };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 31);
    for age in [Age::Fresh, Age::Any] {
        let signed = Signed { text: text.clone(), by: String::new() };
        let Ok(release) = Release::read("sid", &signed, now, age) else { continue };
        for line in text.lines() {
            let Some(path) = line.split_ascii_whitespace().nth(2) else { continue };
            assert!(
                release.file(path).is_ok_and(|file| is_sha256(&file.sha256)) || release.file(path).is_err()
            );
        }
    }
}

/// An InRelease file. No text is believed but the one that the signer has signed.
pub fn in_release(bytes: &[u8]) {
    static SIGNER: LazyLock<Keyring> = LazyLock::new(|| {
        // Its secret key was never written anywhere.
        Keyring::of_all(include_bytes!("../../fuzz/signer.pgp")).expect("a certificate")
    });
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 31);
    if let Ok(signed) = SIGNER.verify("sid", bytes, now) {
        assert_eq!(signed.text, "Suite: sid\n- dash\n\nDate: x\n");
    }
}

/// A package. Whatever is in it, its files are below a root, and nothing is written but what the list names.
pub fn deb(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a directory for temporary files");
    let (deb, into) = (dir.path().join("p.deb"), dir.path().join("apart"));
    std::fs::write(&deb, bytes).and_then(|()| std::fs::create_dir(&into)).expect("room for a package");
    if let Ok(apart) = unpacked::apart_for_fuzzing(&deb, &into) {
        for entry in &apart.entries {
            let plain = |part| matches!(part, Component::Normal(_));
            assert!(Path::new(&entry.path).components().all(plain), "{:?}", entry.path);
            assert!(!entry.path.contains('\0'));
            if let unpacked::Kind::File(number) = entry.kind {
                assert!(apart.content(number).is_file());
            }
        }
        let _names_its_line = crate::status::stanza(&apart.control);
    }
    let count = |path: &Path| std::fs::read_dir(path).expect("it was made above").count();
    assert_eq!(count(dir.path()), 2, "something is beside the package's directory");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signed_seed_is_believed() {
        let seed = include_bytes!("../../fuzz/seeds/in_release/signed");
        let signer = Keyring::of_all(include_bytes!("../../fuzz/signer.pgp")).unwrap();
        assert!(signer.verify("sid", seed, SystemTime::now()).is_ok());
    }

    #[test]
    fn the_seeds_break_no_promise() {
        for (name, target) in TARGETS {
            let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(name);
            let mut seeds = std::fs::read_dir(seeds).unwrap().peekable();
            assert!(seeds.peek().is_some(), "{name} has no seeds");
            seeds.for_each(|seed| target(&std::fs::read(seed.unwrap().path()).unwrap()));
        }
    }
}
