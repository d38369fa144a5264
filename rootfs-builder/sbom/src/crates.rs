//! The Rust crates of the agent and of the standard library, as cargo resolves them for one target.
//!
//! `cargo metadata` knows licences and where a crate comes from, but it unites the features of the whole
//! workspace: it would list crates that only the host's program pulls in. `cargo tree` resolves for one
//! package and says what is linked. So the one says which crates ship, the other everything about them.
//!
//! Procedural macros and the crates of build scripts run on the machine that builds. Their code is not in the
//! agent, but the code they write is: they are listed, as [`Role::Builds`]. These come from `cargo metadata`
//! alone, resolved as if the target built itself, since `cargo tree` would resolve them for this machine, and
//! the list must not depend on it. The price is that a feature another package of the workspace turns on may
//! add one to them; none is missed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId, TargetKind};
use serde::Deserialize;

use crate::{Component, Digest, Error, Id, Kind, Licence, Purl, Role, sources};

/// The package whose crates are listed.
const AGENT: &str = "husk-agent";
/// The standard library's own.
const STD: &str = "std";
/// What our crates are called in package URLs.
const NAMESPACE: &str = "husk";

/// The crates of the agent of the workspace at `workspace`, built for `target` (Rust's triple) with
/// `features`. Cargo.lock is followed and never changed; with `offline`, cargo makes do with what it
/// downloaded before.
pub fn crates_of_agent(
    workspace: &Path,
    target: &str,
    features: &[&str],
    offline: bool,
) -> Result<Vec<Component>, Error> {
    let cargo = Cargo { workspace, package: AGENT, target, features, offline };
    let linked = linked(&cargo.tree()?)?;
    let metadata = cargo.metadata()?;
    let locked = locked(&workspace.join("Cargo.lock"))?;
    components(&metadata, &linked, &locked)
}

/// The crates of crates.io that the standard library is linked with (hashbrown, libc ...), from its source at
/// `library`, the directory with the standard library's own workspace. What is Rust's own is not listed: that
/// is one component, the [`Kind::StandardLibrary`], which the caller knows by its package.
pub fn crates_of_std(
    library: &Path,
    target: &str,
    features: &[&str],
    offline: bool,
) -> Result<Vec<Component>, Error> {
    let cargo = Cargo { workspace: library, package: STD, target, features, offline };
    let linked = linked(&cargo.tree()?)?;
    let locked = locked(&library.join("Cargo.lock"))?;
    let foreign = linked.iter().filter_map(|(name, crate_)| Some((name, crate_, locked.get(name)?)));
    let component = |(name, crate_, digest): (&Name, &Linked, &String)| {
        let mut component = registered(name, digest)?;
        component.licence = Licence::declared(&crate_.licence);
        component.depends_on = crate_.needs.iter().filter(|on| locked.contains_key(on)).map(id).collect();
        Ok(component)
    };
    foreign.map(component).collect()
}

/// A crate's name and version: among crates.io and one workspace, that is a crate.
type Name = (String, String);
/// What each crate needs.
type Graph = BTreeMap<Name, BTreeSet<Name>>;

/// A crate that is linked.
#[derive(Debug, Default)]
struct Linked {
    /// As its manifest declares it.
    licence: String,
    needs: BTreeSet<Name>,
}

/// Reads `cargo tree --prefix depth --format " {l}|{p}"`: a line is a depth, a licence, and a package as
/// "name vVERSION" with remarks behind. A package that was shown before has a star, and its dependencies are
/// not repeated.
fn linked(tree: &str) -> Result<BTreeMap<Name, Linked>, Error> {
    let odd = |line: &str| Error::Output { command: "tree", what: format!("odd line {line:?}") };
    let mut crates = BTreeMap::<Name, Linked>::new();
    let mut above: Vec<Name> = Vec::new();
    for line in tree.lines() {
        let (depth, licence, name) = tree_line(line).ok_or_else(|| odd(line))?;
        if depth > above.len() {
            return Err(odd(line));
        }
        above.truncate(depth);
        if let Some(parent) = above.last() {
            crates.entry(parent.clone()).or_default().needs.insert(name.clone());
        }
        crates.entry(name.clone()).or_default().licence = licence;
        above.push(name);
    }
    Ok(crates)
}

fn tree_line(line: &str) -> Option<(usize, String, Name)> {
    let (depth, line) = line.split_once(' ')?;
    let (licence, package) = line.split_once('|')?;
    let mut words = package.split(' ');
    let name = words.next().filter(|name| !name.is_empty())?;
    let version = words.next()?.strip_prefix('v')?;
    Some((depth.parse().ok()?, licence.to_owned(), (name.to_owned(), version.to_owned())))
}

/// Joins what ships with what builds, and both with what is known of them.
fn components(
    metadata: &Metadata,
    linked: &BTreeMap<Name, Linked>,
    locked: &BTreeMap<Name, String>,
) -> Result<Vec<Component>, Error> {
    let by_id: HashMap<&PackageId, &Package> = metadata.packages.iter().map(|p| (&p.id, p)).collect();
    let by_name: BTreeMap<Name, &Package> = metadata.packages.iter().map(|p| (name(p), p)).collect();
    let needs = |(name, crate_): (&Name, &Linked)| (name.clone(), crate_.needs.clone());
    let mut graph: Graph = linked.iter().map(needs).collect();
    for (builder, needs) in builders(metadata, &by_id, linked)? {
        graph.entry(builder).or_default().extend(needs);
    }
    let describe = |(name, needs): (&Name, &BTreeSet<Name>)| {
        let package = by_name.get(name).ok_or_else(|| Error::Output {
            command: "metadata",
            what: format!("it does not know {} {}, which cargo tree lists", name.0, name.1),
        })?;
        let role = if linked.contains_key(name) { Role::Ships } else { Role::Builds };
        let mut component = describe(package, locked)?;
        component.role = role;
        component.depends_on = needs.iter().map(id).collect();
        Ok(component)
    };
    graph.iter().map(describe).collect()
}

/// What runs at build time: it begins at the build dependencies and procedural macros of what is linked, and
/// takes in all that those need. The edges from linked crates to it are in the result too.
fn builders(
    metadata: &Metadata,
    by_id: &HashMap<&PackageId, &Package>,
    linked: &BTreeMap<Name, Linked>,
) -> Result<Graph, Error> {
    let missing = |what: &str| Error::Output { command: "metadata", what: format!("it has no {what}") };
    let resolve = metadata.resolve.as_ref().ok_or_else(|| missing("resolved graph"))?;
    let package = |id: &PackageId| by_id.get(id).copied().ok_or_else(|| missing(&format!("package {id}")));
    let mut needs = BTreeMap::<Name, Vec<(Name, bool)>>::new();
    for node in &resolve.nodes {
        let edges = needs.entry(name(package(&node.id)?)).or_default();
        for dep in &node.deps {
            let on = package(&dep.pkg)?;
            let has = |kind| dep.dep_kinds.iter().any(|k| k.kind == kind);
            let (normal, build) = (has(DependencyKind::Normal), has(DependencyKind::Build));
            if normal || build {
                edges.push((name(on), build || is_macro(on)));
            }
        }
    }
    let of = |name: &Name| needs.get(name).into_iter().flatten();
    let mut graph = Graph::new();
    let mut open = Vec::new();
    for crate_name in linked.keys() {
        for (on, _) in of(crate_name).filter(|(_, at_build_time)| *at_build_time) {
            graph.entry(crate_name.clone()).or_default().insert(on.clone());
            open.push(on.clone());
        }
    }
    let mut seen = BTreeSet::new();
    while let Some(crate_name) = open.pop() {
        if seen.insert(crate_name.clone()) {
            let all: BTreeSet<Name> = of(&crate_name).map(|(on, _)| on.clone()).collect();
            open.extend(all.iter().cloned());
            graph.entry(crate_name).or_default().extend(all);
        }
    }
    Ok(graph)
}

fn is_macro(package: &Package) -> bool {
    package.targets.iter().any(|target| target.is_kind(TargetKind::ProcMacro))
}

fn name(package: &Package) -> Name {
    (package.name.to_string(), package.version.to_string())
}

fn id((name, version): &Name) -> Id {
    Id { kind: Kind::Crate, name: name.clone(), version: version.clone() }
}

/// A crate by itself: where it comes from, its digest, its licence.
fn describe(package: &Package, locked: &BTreeMap<Name, String>) -> Result<Component, Error> {
    let key = name(package);
    let mut component = match &package.source {
        Some(source) if source.is_crates_io() => {
            let none = || Error::NotLocked { name: key.0.clone(), version: key.1.clone() };
            registered(&key, locked.get(&key).ok_or_else(none)?)?
        }
        Some(source) => {
            return Err(Error::Source { name: key.0, version: key.1, from: source.repr.clone() });
        }
        None => {
            let dir = package.manifest_path.parent().map_or(Path::new("/"), |dir| dir.as_std_path());
            Component {
                digest: Some(Digest::Tree(sources::tree_digest(dir)?)),
                purl: Some(Purl::generic(NAMESPACE, &key.0, &key.1)?),
                ..Component::new(Kind::Crate, &key.0, &key.1)
            }
        }
    };
    component.licence = licence(package)?;
    Ok(component)
}

/// A crate of crates.io, with the digest of its archive.
fn registered((name, version): &Name, digest: &str) -> Result<Component, Error> {
    Ok(Component {
        digest: Some(Digest::File(digest.parse()?)),
        purl: Some(Purl::cargo(name, version)?),
        ..Component::new(Kind::Crate, name, version)
    })
}

/// An expression, or the file that the manifest names instead of one.
fn licence(package: &Package) -> Result<Option<Licence>, Error> {
    if let Some(text) = &package.license {
        return Ok(Licence::declared(text));
    }
    let Some(path) = package.license_file().map(PathBuf::from) else { return Ok(None) };
    let bytes = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    Ok(Some(Licence::text(&package.name, &String::from_utf8_lossy(&bytes))))
}

/// The digests in Cargo.lock.
fn locked(path: &Path) -> Result<BTreeMap<Name, String>, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let lock: Lock = toml::from_str(&text)
        .map_err(|source| Error::Lock { path: path.to_owned(), source: Box::new(source) })?;
    let digest = |p: Locked| Some(((p.name, p.version), p.checksum?));
    Ok(lock.package.into_iter().filter_map(digest).collect())
}

/// Cargo.lock, as far as it matters here.
#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// What is asked of cargo.
struct Cargo<'a> {
    workspace: &'a Path,
    package: &'a str,
    target: &'a str,
    features: &'a [&'a str],
    offline: bool,
}

impl Cargo<'_> {
    /// What is linked with the package.
    fn tree(&self) -> Result<String, Error> {
        let mut command = self.command("tree");
        command.args(["--package", self.package, "--edges", "normal,no-proc-macro", "--target", self.target]);
        command.args(["--prefix", "depth", "--format", " {l}|{p}"]);
        run(&mut command)
    }

    fn metadata(&self) -> Result<Metadata, Error> {
        let mut command = self.command("metadata");
        command.args(["--format-version", "1", "--filter-platform", self.target]);
        let output = run(&mut command)?;
        MetadataCommand::parse(output)
            .map_err(|error| Error::Output { command: "metadata", what: error.to_string() })
    }

    /// Cargo as the workspace's files set it up, not as the caller's environment would change it.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
            command.env_remove(name);
        }
        command.env("CARGO_TERM_COLOR", "never").current_dir(self.workspace);
        if self.package == STD {
            command.env("RUSTC_BOOTSTRAP", "1"); // its manifests use unstable features of their own cargo
        }
        command.args([name, "--locked"]);
        if self.offline {
            command.arg("--offline");
        }
        if !self.features.is_empty() {
            let of_package = |feature: &&str| format!("{}/{feature}", self.package);
            command.args(["--features", &self.features.iter().map(of_package).collect::<Vec<_>>().join(",")]);
        }
        command
    }
}

fn run(command: &mut Command) -> Result<String, Error> {
    let program = PathBuf::from(command.get_program());
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    Err(Error::Cargo {
        command: format!("cargo {}", words.join(" ")),
        status: output.status,
        output: String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_a_graph() {
        let tree = "0 MIT|a v1.0.0 (/x|y)\n1 ISC OR MIT|b v2.0.0+x\n2 |c v1.0.0\n1 |c v1.0.0 (*)\n";
        let crates = linked(tree).unwrap();
        let of = |name: &str, version: &str| {
            let linked = &crates[&(name.to_owned(), version.to_owned())];
            (linked.licence.as_str(), linked.needs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
        };
        assert_eq!(crates.len(), 3);
        assert_eq!(of("a", "1.0.0"), ("MIT", vec!["b", "c"]));
        assert_eq!(of("b", "2.0.0+x"), ("ISC OR MIT", vec!["c"]));
        assert_eq!(of("c", "1.0.0"), ("", vec![]));
    }

    #[test]
    fn a_line_that_is_no_crate_is_an_error() {
        for line in
            ["", "x", "0 a v1", "0 MIT|a", "0 MIT|a 1.0", "1 MIT|a v1", "0 MIT| v1", "[build-dependencies]"]
        {
            let error = linked(&format!("{line}\n")).unwrap_err().to_string();
            assert_eq!(error, format!("crates: cargo tree: odd line {line:?}"));
        }
    }

    /// What cargo says of a package that comes from `source`.
    fn package(source: &str) -> Package {
        let text = format!(
            r#"{{"name": "a", "version": "1.0.0", "id": "a", "license": "MIT/ISC", "source": {source:?},
                "dependencies": [], "targets": [], "features": {{}}, "manifest_path": "/a/Cargo.toml"}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_crate_from_elsewhere_has_no_digest_and_is_refused() {
        for from in
            ["git+https://a.invalid/a#1", "registry+https://a.invalid/index", "sparse+https://a.invalid/"]
        {
            let error = describe(&package(from), &BTreeMap::new()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("crates: a 1.0.0 comes from {from:?}")), "{error}");
        }
    }

    #[test]
    fn a_crate_is_what_the_lock_file_says() {
        let ours = include_str!("../../../Cargo.lock");
        let source = ours.lines().find_map(|line| line.strip_prefix("source = ")).unwrap();
        let package = package(source.trim_matches('"'));
        let locked =
            |digest: &str| BTreeMap::from([(("a".to_owned(), "1.0.0".to_owned()), digest.to_owned())]);
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let component = describe(&package, &locked(digest)).unwrap();
        assert_eq!(component.digest.unwrap().sha256().as_str(), digest);
        assert_eq!(component.licence.unwrap().expression(), "MIT OR ISC");
        let error = |locked| describe(&package, &locked).unwrap_err().to_string();
        assert_eq!(error(BTreeMap::new()), "crates: Cargo.lock has no digest of a 1.0.0");
        assert_eq!(error(locked("ba")), "sbom: \"ba\" is not a sha256 digest: 64 digits of 0-9 and a-f");
    }

    #[test]
    fn a_lock_file_that_is_none_is_told_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Cargo.lock");
        fs::write(&path, "[[package]]\nname = 3\n").unwrap();
        let error = locked(&path).unwrap_err().to_string();
        assert!(error.contains("Cargo.lock: TOML parse error at line 2"), "{error}");
    }
}
