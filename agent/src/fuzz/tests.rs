//! The seeds of the fuzz targets, run without a fuzzer; and where the binary ones come from.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{TARGETS, frames};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_target_has_a_program_and_seeds_and_nothing_else_does() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_string()).collect();
    let programs = names(&directory().join("fuzz_targets"));
    assert_eq!(programs, targets.iter().map(|name| format!("{name}.rs")).collect());
    assert_eq!(names(&directory().join("seeds")), targets);
    let manifest = fs::read_to_string(directory().join("Cargo.toml")).unwrap();
    for target in &targets {
        assert!(manifest.contains(&format!("name = \"{target}\"\n")), "{target} is in no [[bin]]");
        assert!(!names(&directory().join("seeds").join(target)).is_empty(), "{target} has no seed");
    }
}

#[test]
fn no_seed_breaks_a_promise() {
    for (name, target) in TARGETS {
        let seeds = directory().join("seeds").join(name);
        for seed in names(&seeds) {
            let bytes = fs::read(seeds.join(&seed)).unwrap();
            println!("{name}/{seed}");
            target(&bytes);
            // What is cut short is what a decoder must expect first.
            for cut in (0..bytes.len()).step_by(bytes.len().div_ceil(16).max(1)) {
                target(&bytes[..cut]);
            }
        }
    }
}

/// A fuzzer that starts outside would look for the way in first.
#[test]
fn the_seeds_of_the_decoders_reach_what_is_behind_them() {
    let seed = |path: &str| fs::read(directory().join("seeds").join(path)).unwrap();
    let says = |answers: &[u8], text: &str| answers.windows(text.len()).any(|part| part == text.as_bytes());
    let answers = frames::answers(&seed("messages/all"));
    for method in ["Check", "CreateSandbox", "CreateContainer", "CopyFile"] {
        assert!(says(&answers, &format!("{method} is not supported")), "{method}");
    }
    let answers = frames::answers_in_session(&seed("frames/session"));
    for text in ["OK 1024\n", "CreateContainer is not supported", "stream id must be odd"] {
        assert!(says(&answers, text), "{text:?} is not in {:?}", String::from_utf8_lossy(&answers));
    }
}
