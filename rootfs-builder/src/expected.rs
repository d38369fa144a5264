//! `locks/expected.toml`: the digests of one whole build, and of what went into it. A build on any other machine proves
//! itself equal to that one by comparing; where it is not equal, the inputs that moved say why.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use guest_manifest::Manifest;
use serde::{Deserialize, Serialize};

use crate::documents::{PROGRAM, Sources};
use crate::error::{Error, at};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/locks/expected.toml");

const HEAD: &str = "\
# What a build gives, and what of: by architecture and recipe. Written by `cargo xtask build-image --expect`.
";

/// Every build that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected(BTreeMap<String, BTreeMap<String, Build>>);

/// One build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Digests by file; what depends on which formats were asked for is left out.
    pub artefacts: BTreeMap<String, String>,
    /// Digests by input.
    pub inputs: BTreeMap<String, String>,
}

/// How a build is not as expected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// Each file that differs, and each input that moved.
    pub lines: Vec<String>,
    /// Whether all that moved are programs of this machine, such as its compiler, which no lock holds in place.
    pub excused: bool,
}

impl Build {
    /// What a finished set is, and what it was made of.
    #[must_use]
    pub fn of(manifest: &Manifest, sources: &Sources, packages: &[guest_debian::Package]) -> Build {
        let documents: Vec<_> = manifest.documents.iter().map(|document| &document.file).collect();
        let said = |artefact: &&guest_manifest::Artefact| {
            !documents.contains(&&artefact.file) || artefact.file == crate::contents::FILE
        };
        let artefacts = manifest.artefacts().into_iter().filter(said);
        let mut inputs = sources.digests();
        for package in packages {
            inputs.insert(format!("package {} {}", package.name, package.version), package.sha256.clone());
        }
        Build { artefacts: artefacts.map(|a| (a.file.clone(), a.sha256.clone())).collect(), inputs }
    }
}

impl Expected {
    /// The builds that are checked in.
    #[must_use]
    pub fn path() -> PathBuf {
        PathBuf::from(FILE)
    }

    /// Reads them; none if there is no file.
    pub fn load(path: &Path) -> Result<Expected, Error> {
        match fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Expected::default()),
            read => toml::from_str(&read.map_err(at("read", path))?)
                .map_err(|e| Error::Lock { path: path.to_owned(), what: e.to_string() }),
        }
    }

    /// Puts a build in the place of an earlier one. Formats that were not written this time keep their digests.
    pub fn set(&mut self, manifest: &Manifest, mut build: Build) {
        let recipes = self.0.entry(manifest.arch.clone()).or_default();
        if let Some(before) = recipes.remove(&manifest.recipe)
            && before.inputs == build.inputs
        {
            for (file, digest) in before.artefacts {
                build.artefacts.entry(file).or_insert(digest);
            }
        }
        recipes.insert(manifest.recipe.clone(), build);
    }

    /// Writes them.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = toml::to_string(self).expect("tables of strings are TOML");
        fs::write(path, format!("{HEAD}{text}")).map_err(at("write", path))
    }

    /// What of a build is not as expected, and which inputs moved. Nothing if all is, or if nothing is known of it.
    #[must_use]
    pub fn differences(&self, manifest: &Manifest, build: &Build) -> Differences {
        let known = self.0.get(&manifest.arch).and_then(|recipes| recipes.get(&manifest.recipe));
        let Some(known) = known else { return Differences::default() };
        let mut lines = Vec::new();
        for (file, digest) in &build.artefacts {
            if let Some(expected) = known.artefacts.get(file).filter(|expected| *expected != digest) {
                lines.push(format!("{file}: sha256 {digest} instead of {expected}"));
            }
        }
        if lines.is_empty() {
            return Differences::default();
        }
        let mut moved = Vec::new();
        for (input, digest) in &build.inputs {
            match known.inputs.get(input) {
                Some(expected) if expected == digest => {}
                Some(_) => moved.push((input, "")),
                None => moved.push((input, " is new")),
            }
        }
        let gone = known.inputs.keys().filter(|input| !build.inputs.contains_key(*input));
        moved.extend(gone.map(|input| (input, " is gone")));
        lines.extend(moved.iter().map(|(input, how)| format!("moved: {input}{how}")));
        if moved.is_empty() {
            lines.push(
                "no input moved: what builds has changed, or something of this machine got in".to_owned(),
            );
        }
        let is_program = |(input, _): &(&String, &str)| input.starts_with(PROGRAM);
        Differences { lines, excused: !moved.is_empty() && moved.iter().all(is_program) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;
    use crate::image::tests::made_with;

    fn build(manifest: &Manifest) -> Build {
        let mut build = Build::of(manifest, &Sources::none(), &[]);
        build.inputs.insert("source linux".to_owned(), "1".to_owned());
        build
    }

    #[test]
    fn a_difference_names_the_input_that_moved() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = made_with(dir.path(), &[Format::Erofs]).manifest;
        let mut expected = Expected::default();
        let usual = build(&manifest);
        assert_eq!(expected.differences(&manifest, &usual), Differences::default(), "nothing is known");
        expected.set(&manifest, usual.clone());
        let path = dir.path().join("expected.toml");
        expected.write(&path).unwrap();
        let expected = Expected::load(&path).unwrap();
        assert_eq!(expected.differences(&manifest, &usual), Differences::default());

        let mut odd = usual.clone();
        odd.artefacts.insert("vmlinux".to_owned(), "0".to_owned());
        let said = expected.differences(&manifest, &odd);
        assert!(said.lines[0].starts_with("vmlinux: sha256 0 instead of "), "{said:?}");
        assert_eq!(
            said.lines[1..],
            ["no input moved: what builds has changed, or something of this machine got in"]
        );
        assert!(!said.excused);

        odd.inputs = BTreeMap::from([("source linux".to_owned(), "2".to_owned())]);
        assert_eq!(expected.differences(&manifest, &odd).lines[1..], ["moved: source linux"]);
        odd.inputs = BTreeMap::from([("crate new 1".to_owned(), "2".to_owned())]);
        assert_eq!(
            expected.differences(&manifest, &odd).lines[1..],
            ["moved: crate new 1 is new", "moved: source linux is gone"]
        );
    }

    #[test]
    fn a_compiler_of_this_machine_excuses_a_difference_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = made_with(dir.path(), &[Format::Erofs]).manifest;
        let mut expected = Expected::default();
        expected.set(&manifest, build(&manifest));
        let mut odd = build(&manifest);
        odd.artefacts.insert("vmlinux".to_owned(), "0".to_owned());
        odd.inputs.insert("program gcc 13".to_owned(), "2".to_owned());
        assert!(expected.differences(&manifest, &odd).excused);
        odd.inputs.insert("crate new 1".to_owned(), "2".to_owned());
        assert!(!expected.differences(&manifest, &odd).excused);
    }

    #[test]
    fn other_formats_of_the_same_inputs_stay_known() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = made_with(dir.path(), &[Format::Erofs]).manifest;
        let mut expected = Expected::default();
        expected.set(&manifest, build(&manifest));
        let fewer = Build { artefacts: BTreeMap::new(), ..build(&manifest) };
        expected.set(&manifest, fewer.clone());
        let known = |expected: &Expected| expected.0["x86_64"]["minimal"].artefacts.len();
        assert!(known(&expected) > 3);
        expected.set(&manifest, Build { inputs: BTreeMap::new(), ..fewer });
        assert_eq!(known(&expected), 0, "of other inputs nothing is known");
    }
}
