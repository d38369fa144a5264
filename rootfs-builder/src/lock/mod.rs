//! The lock: every input that bytes of an artefact come from, by name, version, digest and place.
//!
//! Two kinds of lines are in it. What a pin file of this repository names (kernel, standard library, compiler, crates) is
//! repeated here, and so are the programs of the machine that shape bytes, so that one file says it all and a difference
//! between two builds has one place to look. What nobody pins by hand, the Debian packages of a recipe with all that they
//! depend on, is resolved once and then only here.
//!
//! `locks/inputs.lock` is for the recipes of this repository. Somebody else's recipe, `mine.toml`, has its packages in
//! `mine.lock` beside it.

mod change;
mod pinned;

use std::fs;
use std::path::{Path, PathBuf};

use guest_arch::Arch;
use guest_debian::Package;
use guest_inputs::Key;
use serde::{Deserialize, Serialize};

pub use change::Change;
pub use pinned::pinned;

use crate::error::{Error, at};
use crate::recipe::{Packages, Recipe};

/// The lock of this repository.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/locks/inputs.lock");
/// The version of its format.
const VERSION: u32 = 1;

const HEAD: &str = "\
# Every input of every artefact. Written by `cargo xtask lock`; `cargo xtask lock --update` looks for newer packages.
# Do not edit: pins are edited in the files that are named in `from`, packages in recipes.
";

/// A lock file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// What pin files name, by kind, name and version.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "input")]
    pub inputs: Vec<Input>,
    /// The packages of each recipe for each architecture.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "recipe")]
    pub recipes: Vec<Resolved>,
}

/// One input.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Input {
    /// "source", "crates", "program", "package".
    pub kind: String,
    /// What a person calls it.
    pub name: String,
    /// Which of it.
    pub version: String,
    /// Where it comes from: an archive and a path in it, a file of this repository, this machine.
    pub from: String,
    /// In bytes, of what is fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// In hexadecimal, of what has bytes that can be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The fingerprint of the key that signed for it, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
}

/// What a recipe's packages were resolved to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Resolved {
    /// The recipe.
    pub name: String,
    /// The guest's architecture.
    pub arch: String,
    /// A digest of what the recipe asked for: another one makes this stale.
    pub request: String,
    /// In the order of their names.
    #[serde(rename = "package")]
    pub packages: Vec<Package>,
}

impl Lock {
    /// The lock that a recipe's packages are in.
    #[must_use]
    pub fn path_for(recipe: &Recipe) -> PathBuf {
        if recipe.is_ours() { PathBuf::from(FILE) } else { recipe.path.with_extension("lock") }
    }

    /// The lock of this repository.
    #[must_use]
    pub fn ours() -> PathBuf {
        PathBuf::from(FILE)
    }

    /// Reads a lock; one that is not there yet has nothing in it.
    pub fn load(path: &Path) -> Result<Lock, Error> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Lock::new()),
            read => read.map_err(at("read", path))?,
        };
        let wrong = |what: String| Error::Lock { path: path.to_owned(), what };
        let lock: Lock = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        if lock.version != VERSION {
            return Err(wrong(format!("is of version {}, this builder reads {VERSION}", lock.version)));
        }
        Ok(lock)
    }

    /// A lock with nothing in it.
    #[must_use]
    pub fn new() -> Lock {
        Lock { version: VERSION, inputs: Vec::new(), recipes: Vec::new() }
    }

    /// Writes it, in one step: a reader sees the old one or the new one.
    pub fn write(&mut self, path: &Path) -> Result<(), Error> {
        self.inputs.sort();
        self.recipes.sort_by(|a, b| (&a.name, &a.arch).cmp(&(&b.name, &b.arch)));
        let text = toml::to_string(self).expect("tables of strings and numbers are TOML");
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory).map_err(at("create", directory))?;
        let file = tempfile::NamedTempFile::new_in(directory).map_err(at("create a file in", directory))?;
        fs::write(file.path(), format!("{HEAD}{text}")).map_err(at("write", file.path()))?;
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(file.path(), open).map_err(at("open", file.path()))?;
        file.persist(path).map_err(|e| at("replace", path)(e.error))?;
        Ok(())
    }

    /// The packages of a recipe, if they are those that it asks for now.
    #[must_use]
    pub fn packages(&self, recipe: &Recipe, arch: Arch) -> Option<&[Package]> {
        let request = request_of(&recipe.packages, arch);
        let found = self.recipes.iter().find(|resolved| resolved.is_for(&recipe.name, arch))?;
        (found.request == request).then_some(&found.packages[..])
    }

    /// Puts in what a recipe's packages are now.
    pub fn set_packages(&mut self, recipe: &Recipe, arch: Arch, packages: Vec<Package>) {
        self.recipes.retain(|resolved| !resolved.is_for(&recipe.name, arch));
        self.recipes.push(Resolved {
            name: recipe.name.clone(),
            arch: arch.name().to_owned(),
            request: request_of(&recipe.packages, arch),
            packages,
        });
    }

    /// Puts in what is pinned now. A program that this machine does not have keeps the line that it has.
    pub fn set_inputs(&mut self, now: Vec<Input>) {
        let absent = |there: &Input| {
            there.kind == pinned::PROGRAM && !now.iter().any(|input| input.name == there.name)
        };
        self.inputs.retain(absent);
        self.inputs.extend(now);
        self.inputs.sort();
    }

    /// What differs in `now` from this lock, of the inputs that both could know of.
    #[must_use]
    pub fn changes(&self, now: &Lock) -> Vec<Change> {
        change::between(self, now)
    }
}

impl Resolved {
    fn is_for(&self, recipe: &str, arch: Arch) -> bool {
        self.name == recipe && self.arch == arch.name()
    }
}

fn request_of(packages: &Packages, arch: Arch) -> String {
    let list = |said: &[crate::recipe::Said<String>]| {
        said.iter().map(|said| said.value.as_str()).collect::<Vec<_>>().join("\n")
    };
    Key::new("packages/v1")
        .field("suites", list(packages.suites_for(arch)))
        .field("install", list(&packages.install))
        .field("exclude", list(&packages.exclude))
        .hex()
}

#[cfg(test)]
mod tests;
