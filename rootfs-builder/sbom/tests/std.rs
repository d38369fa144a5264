//! The crates of Rust's standard library, read from the source that the builder compiles.

use std::{
    fs,
    path::{Path, PathBuf},
};

use guest_inputs::{Cache, Key, Pin, Progress};
use guest_sbom::{Document, Role, Sha256, crates_of_agent, crates_of_std};
use serde::Deserialize;

const TARGET: &str = "x86_64-unknown-linux-musl";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The source of the standard library that is pinned for the agent, unpacked into the cache.
fn library() -> PathBuf {
    #[derive(Deserialize)]
    struct Pins {
        #[serde(rename = "std-source")]
        sources: Vec<Source>,
    }
    #[derive(Deserialize)]
    struct Source {
        rust: String,
        #[serde(flatten)]
        pin: Pin,
    }
    let text = fs::read_to_string(workspace().join("rootfs-builder/toolchain.toml")).unwrap();
    let pins: Pins = toml::from_str(&text).unwrap();
    let Source { rust, pin } = &pins.sources[0];
    let cache = Cache::open().unwrap();
    let key = Key::new("sbom-test-std/v2").field("source", &pin.sha256);
    let entry = cache.build("sbom-test-std", &key, |into| {
        let package = guest_inputs::fetch(&cache, pin, &Progress::silent())?;
        let all = into.join("all");
        guest_inputs::unpack_deb(&package, &all)?;
        fs::rename(all.join(format!("usr/src/rustc-{rust}/library")), into.join("library")).unwrap();
        fs::remove_dir_all(all).unwrap(); // the compiler's source is most of the package
        Ok::<_, guest_inputs::Error>(())
    });
    entry.unwrap().join("library")
}

#[test]
fn the_standard_library_brings_crates_of_its_own() {
    let all = crates_of_std(&library(), TARGET, &["panic-unwind", "optimize_for_size"], false).unwrap();
    let names: Vec<_> = all.iter().map(|c| c.id.name.as_str()).collect();
    assert_eq!(names, ["cfg-if", "hashbrown", "libc", "rustc-demangle"]);
    for component in &all {
        assert_eq!(component.role, Role::Ships);
        assert!(component.digest.is_some() && component.licence.is_some() && component.purl.is_some());
    }
    // With backtraces it has a DWARF reader.
    let more = crates_of_std(&library(), TARGET, &["panic-unwind", "backtrace"], false).unwrap();
    assert!(more.iter().any(|c| c.id.name == "gimli"), "{more:?}");
    // The agent has some of them as well, of the same version or another.
    let agent = crates_of_agent(&workspace(), TARGET, &[], false).unwrap();
    let document = Document::new("agent", Sha256::of(b""), agent.into_iter().chain(all.clone())).unwrap();
    assert!(all.iter().all(|c| document.components().any(|listed| listed.id == c.id)));
}
