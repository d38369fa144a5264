//! Recipes: what an image is made of, in files that a person edits.
//!
//! A recipe is a TOML file. It may extend another one: a single value replaces that of the recipe it extends, a list goes on
//! where the other's ends. [`Recipe::load`] reads the whole chain and gives one value with nothing left to look up: every
//! name checked, every path made absolute. Whatever is wrong is an error that names file, line and key.

mod entries;
mod error;
mod form;
mod place;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use guest_arch::Arch;
use guest_inputs::sha256;
use kernel_config::Variant;

pub use entries::{Base, Directory, Extension, FileEntry, What};
pub use error::Error;
pub use place::Place;

use crate::format::Format;
use form::Form;
use place::Source;

/// Where the recipes are that have a name.
const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes");

/// The recipe that is taken when nobody says which.
pub const DEFAULT: &str = "minimal";

/// What the agent can be built with: the features of its Cargo.toml.
const AGENT_FEATURES: [&str; 2] = ["policy", "tracing-spans"];

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The name of its file, without `.toml`: the directory of its artefacts is called so.
    pub name: String,
    /// Where that file is.
    pub path: PathBuf,
    /// What it is for, in a sentence.
    pub description: String,
    /// Which of our kernels.
    pub variant: Variant,
    /// Where the agent goes.
    pub agent: Agent,
    /// The formats that are written when nobody asks for others.
    pub formats: Vec<Format>,
    /// What any guest of this recipe has on its kernel command line.
    pub cmdline: Vec<String>,
    /// What the first files come from.
    pub base: Option<Base>,
    /// Whether Debian's static busybox is in it, with a link for each of its names.
    pub busybox: bool,
    /// Debian packages.
    pub packages: Packages,
    /// What is taken out of base and packages; `*` stands for any text, `?` for one character.
    pub prune: Vec<Said<String>>,
    /// What stays all the same.
    pub keep: Vec<Said<String>>,
    /// The system that packages make.
    pub system: System,
    /// Files of base and packages that stay set-id: all others of them are not.
    pub set_id: Vec<Said<String>>,
    /// Directories of this machine.
    pub directories: Vec<Directory>,
    /// Single files.
    pub files: Vec<FileEntry>,
    /// Images beside the root.
    pub extensions: Vec<Extension>,
    /// The files it was read from, the one that extends none first: name and digest.
    pub read_from: Vec<(String, String)>,
}

/// Debian packages; what they depend on comes with them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packages {
    /// Where to look for them, the suite that decides between equal versions first.
    pub suites: Vec<Said<String>>,
    /// Where to look instead, for architectures that not every suite has.
    pub suites_of: BTreeMap<Arch, Vec<Said<String>>>,
    /// By name, `name=version` or `name/suite`.
    pub install: Vec<Said<String>>,
    /// What stays out, whoever depends on it.
    pub exclude: Vec<Said<String>>,
}

impl Packages {
    /// Where to look for those of an architecture.
    #[must_use]
    pub fn suites_for(&self, arch: Arch) -> &[Said<String>] {
        self.suites_of.get(&arch).unwrap_or(&self.suites)
    }
}

/// A system that is made of packages: what their scripts would have asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct System {
    /// Its name until the host gives another.
    pub hostname: Option<String>,
    /// The unit that is booted into.
    pub default_target: Option<String>,
    /// Units that are enabled.
    pub enable: Vec<Said<String>>,
    /// Units that must not start.
    pub mask: Vec<Said<String>>,
    /// Accounts beside those of packages, as in sysusers.d(5).
    pub sysusers: Vec<Said<String>>,
    /// Lines of /etc/fstab.
    pub fstab: Vec<Said<String>>,
}

/// The agent in the image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Agent {
    /// The path of the binary.
    pub path: String,
    /// Other paths that lead to it.
    pub links: Vec<String>,
    /// What it is built with beyond its usual, sorted.
    pub features: Vec<String>,
}

/// A value and where it stands, for whoever finds out later that it is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said<T> {
    /// What was said.
    pub value: T,
    /// Where.
    pub place: Place,
}

impl Recipe {
    /// Reads a recipe by its name (`minimal`) or by the path of its file (`./mine.toml`).
    pub fn load(which: &str) -> Result<Recipe, Error> {
        let path = path_of(which, Path::new("."));
        if !path.exists() {
            return Err(Error::Unknown { which: which.to_owned(), known: named(Path::new(DIRECTORY)) });
        }
        let mut chain = vec![read(&path)?];
        while let Some((source, form)) = chain.last()
            && let Some(parent) = form.extends(source)
        {
            let path = path_of(&parent.value, &source.directory);
            if !path.exists() {
                return Err(parent.place.wrong(format!("there is no recipe {:?}", parent.value)));
            }
            let parent_file = read(&path)?;
            if chain.iter().any(|(source, _)| source.path == parent_file.0.path) {
                return Err(parent.place.wrong(format!("{:?} extends this recipe in turn", parent.value)));
            }
            chain.push(parent_file);
        }
        resolve(chain)
    }

    /// Whether it is one of this repository's.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        let ours = Path::new(DIRECTORY).canonicalize();
        ours.is_ok_and(|ours| self.path.parent() == Some(&ours))
    }

    /// All recipes that have a name, sorted.
    #[must_use]
    pub fn names() -> Vec<String> {
        named(Path::new(DIRECTORY))
    }
}

/// A recipe that is in no file, and extends none.
#[cfg(any(test, fuzzing))]
pub(crate) fn of_text(name: &str, text: String) -> Result<Recipe, Error> {
    let source = Source::new(Path::new(name), text);
    let form = form::parse(&source)?;
    resolve(vec![(source, form)])
}

fn read(path: &Path) -> Result<(Source, Form), Error> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let source = Source::new(path, text);
    let form = form::parse(&source)?;
    Ok((source, form))
}

/// A word without a slash is a name; anything else is a path, relative to the file it stands in.
fn path_of(which: &str, from: &Path) -> PathBuf {
    if which.contains('/') || which.ends_with(".toml") {
        from.join(which)
    } else {
        Path::new(DIRECTORY).join(format!("{which}.toml"))
    }
}

fn named(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let recipes = entries.filter(|path| path.extension().is_some_and(|e| e == "toml"));
    let mut names: Vec<_> =
        recipes.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    names
}

/// From the chain of files, the one that was asked for first, to one value.
fn resolve(chain: Vec<(Source, Form)>) -> Result<Recipe, Error> {
    let mut recipe = Recipe {
        name: chain[0].0.name.clone(),
        path: chain[0].0.path.clone(),
        description: String::new(),
        variant: Variant::Lean,
        agent: Agent::default(),
        formats: Vec::new(),
        cmdline: Vec::new(),
        base: None,
        busybox: false,
        packages: Packages::default(),
        prune: Vec::new(),
        keep: Vec::new(),
        system: System::default(),
        set_id: Vec::new(),
        directories: Vec::new(),
        files: Vec::new(),
        extensions: Vec::new(),
        read_from: Vec::new(),
    };
    for (source, form) in chain.iter().rev() {
        recipe.extend(source, form)?;
        let file = source.path.file_name().unwrap_or_default().to_string_lossy();
        // Nobody's directories get into an artefact; a recipe may be called like one that it extends.
        let namesakes = recipe.read_from.iter().filter(|(name, _)| name.ends_with(&*file)).count();
        let name = format!("{}{file}", "extended ".repeat(namesakes));
        recipe.read_from.push((name, sha256(source.text.as_bytes())));
    }
    if recipe.agent.path.is_empty() {
        return Err(chain[0].0.whole("agent").wrong("no path is said for the agent"));
    }
    if let Some(package) = recipe.packages.install.first()
        && recipe.packages.suites.is_empty()
    {
        return Err(package
            .place
            .wrong("there are packages, but packages.suites does not say of which suites"));
    }
    if let (Some(base), false) = (&recipe.base, recipe.packages.install.is_empty()) {
        return Err(base
            .said
            .place
            .wrong("packages cannot be laid over a base: it has a package manager's own idea of itself"));
    }
    if recipe.formats.is_empty() {
        return Err(chain[0].0.whole("formats").wrong("no format is said to write"));
    }
    Ok(recipe)
}

impl Recipe {
    /// What a recipe says that extends this one.
    fn extend(&mut self, source: &Source, form: &Form) -> Result<(), Error> {
        form.description.iter().for_each(|text| self.description.clone_from(text));
        if let Some(variant) = &form.kernel {
            let place = source.place("kernel", variant.span());
            self.variant = variant.get_ref().parse().map_err(|e| place.wrong(format!("{e}")))?;
        }
        if let Some(agent) = &form.agent {
            if let Some(path) = &agent.path {
                let place = source.place("agent.path", path.span());
                self.agent.path = entries::plain_path(path.get_ref(), &place)?;
                self.agent.links.clear(); // those of the other path
            }
            for link in &agent.links {
                let place = source.place("agent.links", link.span());
                self.agent.links.push(entries::plain_path(link.get_ref(), &place)?);
            }
            for feature in &agent.features {
                let place = source.place("agent.features", feature.span());
                let feature = one_of(&AGENT_FEATURES, feature.get_ref(), "feature of the agent", &place)?;
                self.agent.features.push(feature);
            }
            self.agent.features.sort();
            self.agent.features.dedup();
        }
        if let Some(formats) = &form.formats {
            self.formats.clear();
            for format in formats {
                let place = source.place("formats", format.span());
                let format = format.get_ref().parse().map_err(|e| place.wrong(format!("{e}")))?;
                if self.formats.contains(&format) {
                    return Err(place.wrong(format!("{format} is there twice")));
                }
                self.formats.push(format);
            }
        }
        for word in &form.cmdline_without {
            let place = source.place("cmdline-without", word.span());
            let before = self.cmdline.len();
            self.cmdline.retain(|there| there != word.get_ref());
            if self.cmdline.len() == before {
                return Err(
                    place.wrong(format!("{:?} is not on the command line it extends", word.get_ref()))
                );
            }
        }
        for word in &form.cmdline {
            let place = source.place("cmdline", word.span());
            self.cmdline.push(entries::kernel_word(word.get_ref(), &place)?);
        }
        if let Some(base) = &form.base {
            self.base = Some(Base::new(source, base)?);
        }
        self.busybox = form.busybox.unwrap_or(self.busybox);
        if let Some(packages) = &form.packages {
            if let Some(suites) = &packages.suites {
                self.packages.suites = source.all("packages.suites", suites);
                self.packages.suites_of.clear(); // those of the other suites
            }
            for (name, suites) in &packages.suites_of {
                let place = source.place("packages.suites-of", name.span());
                let arch = name.get_ref().parse().map_err(|e| place.wrong(format!("{e}")))?;
                self.packages.suites_of.insert(arch, source.all("packages.suites-of", suites));
            }
            self.packages.install.extend(source.all("packages.install", &packages.install));
            self.packages.exclude.extend(source.all("packages.exclude", &packages.exclude));
        }
        self.prune.extend(source.all("prune", &form.prune));
        self.keep.extend(source.all("keep", &form.keep));
        self.set_id.extend(source.all("set-id", &form.set_id));
        for said in self.prune.iter().chain(&self.keep).chain(&self.set_id) {
            entries::plain_path(&said.value, &said.place)?;
        }
        if let Some(system) = &form.system {
            self.system.extend(source, system);
        }
        for table in &form.directory {
            self.directories.push(Directory::new(source, table)?);
        }
        for table in &form.file {
            self.files.push(FileEntry::new(source, table)?);
        }
        for table in &form.extension {
            let extension = Extension::new(source, table)?;
            if self.extensions.iter().any(|there| there.name == extension.name) {
                let place = source.place("extension.name", table.name.span());
                return Err(place.wrong(format!("there is an extension {:?} already", extension.name)));
            }
            self.extensions.push(extension);
        }
        Ok(())
    }
}

impl System {
    fn extend(&mut self, source: &Source, form: &form::SystemForm) {
        form.hostname.iter().for_each(|name| self.hostname = Some(name.clone()));
        form.default_target.iter().for_each(|target| self.default_target = Some(target.clone()));
        self.enable.extend(source.all("system.enable", &form.enable));
        self.mask.extend(source.all("system.mask", &form.mask));
        self.sysusers.extend(source.all("system.sysusers", &form.sysusers));
        self.fstab.extend(source.all("system.fstab", &form.fstab));
    }
}

fn one_of(known: &[&str], said: &str, what: &str, place: &Place) -> Result<String, Error> {
    if known.contains(&said) {
        return Ok(said.to_owned());
    }
    Err(place.wrong(format!("there is no {what} {said:?}; known are {}", known.join(" "))))
}
