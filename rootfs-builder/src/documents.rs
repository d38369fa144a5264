//! What is said about an image beside the image: bills of material in two forms, and where all of it came from.
//!
//! The facts are collected here; how they are written is [`guest_sbom`]'s business.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use guest_arch::Arch;
use guest_debian::Package;
use guest_inputs::{Pin, file_sha256};
use guest_manifest::Manifest;
use guest_sbom::{
    Artefact, Build, Component, Digest, Document, Id, Input, Kind, Licence, Role, Sha256, debian_licence,
};

use crate::contents::{Contents, Entry};
use crate::error::Error;
use crate::recipe::Recipe;
use crate::toolchain::Rustc;
use crate::{Toolchain, compose, libseccomp, std_source, zig};

/// The documents' names.
pub(crate) const SPDX: &str = "sbom.spdx.json";
pub(crate) const CYCLONEDX: &str = "sbom.cdx.json";
pub(crate) const PROVENANCE: &str = "provenance.intoto.json";

/// What went into the agent and the kernel; the same for every recipe with the same kernel and the same features.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Crates, libraries, the kernel, and the programs that made them.
    components: Vec<Component>,
    /// What has a digest and is no component: the programs of this machine, the files that say what to build.
    inputs: Vec<Input>,
}

impl Sources {
    /// Collects them for the workspace at `workspace`.
    pub fn collect(
        workspace: &Path,
        recipe: &Recipe,
        toolchain: &Toolchain,
        kernel_version: &str,
        offline: bool,
    ) -> Result<Sources, Error> {
        let arch = toolchain.arch();
        let features: Vec<&str> = recipe.agent.features.iter().map(String::as_str).collect();
        let mut components =
            guest_sbom::crates_of_agent(workspace, arch.row().rust_triple, &features, offline)?;
        let rustc = Rustc::ask()?;
        components.push(source(Kind::Kernel, "linux", kernel_version, &kernel_config::source_pin()?)?);
        components.extend(libraries(toolchain, &rustc)?);
        Ok(Sources { components, inputs: inputs(workspace, recipe, arch, &rustc)? })
    }

    /// The digest of each that has one, by name.
    pub(crate) fn digests(&self) -> BTreeMap<String, String> {
        let of_components = self.components.iter().filter_map(Input::of);
        let all = of_components.chain(self.inputs.iter().cloned());
        all.map(|input| (input.name, input.digest.sha256().as_str().to_owned())).collect()
    }

    #[cfg(test)]
    pub(crate) fn none() -> Sources {
        Sources { components: Vec::new(), inputs: Vec::new() }
    }
}

/// Fetched as a source archive or a source package, under the licence it is known for.
fn source(kind: Kind, name: &str, version: &str, pin: &Pin) -> Result<Component, Error> {
    let licence = match kind {
        Kind::Kernel => "GPL-2.0-only WITH Linux-syscall-note",
        Kind::StandardLibrary => "MIT OR Apache-2.0",
        _ => "LGPL-2.1-only",
    };
    let component = Component::new(kind, name, version).fetched_as(pin, "source")?;
    Ok(Component { licence: Licence::declared(licence), ..component })
}

/// What is linked into the agent beside crates.
fn libraries(toolchain: &Toolchain, rustc: &Rustc) -> Result<Vec<Component>, Error> {
    let seccomp = libseccomp::pin()?;
    let mut libraries = vec![source(Kind::CLibrary, &seccomp.name, &seccomp.version, &seccomp)?];
    let mit = || Licence::declared("MIT");
    if toolchain.makes_std() {
        let pin = std_source::pin_for(&rustc.release, toolchain.arch().row().rust_triple)?;
        libraries.push(source(Kind::StandardLibrary, "std", &rustc.release, &pin)?);
        let of = zig::wheels().into_iter().find(|wheel| wheel.name == "ziglang");
        let version = of.map(|zig| format!("of zig {}", zig.version)).unwrap_or_default();
        libraries.push(Component { licence: mit(), ..Component::new(Kind::CLibrary, "musl", version) });
    } else {
        let version = rustc.release.as_str();
        let std = Component::new(Kind::StandardLibrary, "std", version);
        libraries.push(Component { licence: Licence::declared("MIT OR Apache-2.0"), ..std });
        let version = format!("of rust {version}");
        libraries.push(Component { licence: mit(), ..Component::new(Kind::CLibrary, "musl", version) });
    }
    let compiler = Component::new(Kind::Tool, "rustc", rustc.identity());
    libraries.push(Component { role: Role::Builds, ..compiler });
    let mut programs: Vec<_> = zig::wheels().into_iter().map(|wheel| (wheel.name, wheel.version)).collect();
    programs.dedup();
    for (name, version) in programs {
        libraries.push(Component { role: Role::Builds, ..Component::new(Kind::Tool, name, version) });
    }
    Ok(libraries)
}

/// How the name of an input begins that is a program of the machine.
pub(crate) const PROGRAM: &str = "program ";

fn inputs(workspace: &Path, recipe: &Recipe, arch: Arch, rustc: &Rustc) -> Result<Vec<Input>, Error> {
    let input =
        |name: String, digest: Sha256| Input { name, digest: Digest::File(digest), uri: None, origin: None };
    let mut inputs = Vec::new();
    for (name, digest) in &recipe.read_from {
        inputs.push(input(format!("recipe {name}"), digest.parse()?));
    }
    for name in ["Cargo.lock", "Cargo.toml", "kernel-config/kernels.toml", "rootfs-builder/requirements.txt"]
    {
        inputs.push(input(name.to_owned(), file_sha256(&workspace.join(name))?.parse()?));
    }
    for fragment in kernel_config::fragments(arch, recipe.variant)? {
        let name = format!("kernel-config/fragments/{}", fragment.name);
        inputs.push(input(name, Sha256::of(fragment.text.as_bytes())));
    }
    // A program of the machine has no bytes that two machines share: what counts is what it calls itself.
    let tools = kernel_config::tools(arch, recipe.variant)?;
    for text in tools.lines().chain([rustc.identity().as_str()]) {
        inputs.push(input(format!("{PROGRAM}{text}"), Sha256::of(text.as_bytes())));
    }
    Ok(inputs)
}

/// A recipe's packages, with the licences that their copyright files give.
pub(crate) fn packages(
    packages: &[Package],
    copyrights: &BTreeMap<String, String>,
) -> Result<Vec<Component>, Error> {
    let id = |package: &Package| Id {
        kind: Kind::DebianPackage,
        name: package.name.clone(),
        version: package.version.clone(),
    };
    let ids: BTreeMap<&str, Id> =
        packages.iter().map(|package| (package.name.as_str(), id(package))).collect();
    let mut components = Vec::new();
    for package in packages {
        let component = Component::new(Kind::DebianPackage, &package.name, &package.version);
        let component = component.fetched_as(&package.pin(), &package.architecture)?;
        let depends_on: BTreeSet<Id> =
            package.depends.iter().filter_map(|name| ids.get(name.as_str()).cloned()).collect();
        components.push(Component {
            licence: copyrights.get(&package.name).and_then(|text| debian_licence(text)),
            depends_on,
            ..component
        });
    }
    Ok(components)
}

/// Files that are no package's and not ours: what a recipe or a directory or a base has put there.
fn files(contents: &Contents) -> Result<Vec<Component>, Error> {
    let foreign = |entry: &&Entry| {
        entry.kind == "file" && entry.origin != compose::AGENT && !entry.origin.starts_with("package ")
    };
    let of_extensions = contents.extensions.iter().flat_map(|(name, entries)| {
        entries.iter().filter(foreign).map(move |entry| (format!("{name}:{}", entry.path), entry))
    });
    let of_root = contents.root.iter().filter(foreign).map(|entry| (entry.path.clone(), entry));
    let mut files = Vec::new();
    for (name, entry) in of_root.chain(of_extensions) {
        let digest = entry.sha256.as_deref().map(str::parse::<Sha256>).transpose()?;
        files.push(Component {
            digest: digest.map(Digest::File),
            ..Component::new(Kind::File, name, String::new())
        });
    }
    Ok(files)
}

/// The documents about a finished set, by name: bills of material and provenance.
pub(crate) fn about(
    manifest: &Manifest,
    contents: &Contents,
    sources: &Sources,
    packages: Vec<Component>,
) -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
    let mut components = sources.components.clone();
    components.extend(packages);
    components.extend(files(contents)?);
    let mut inputs: Vec<_> = components.iter().filter_map(Input::of).collect();
    inputs.extend(sources.inputs.iter().cloned());
    let digest_of = |artefact: &guest_manifest::Artefact| artefact.sha256.parse::<Sha256>();
    let first = manifest.images.first().map_or(&manifest.agent, |image| &image.artefact);
    let name = format!("{}/{}", manifest.arch, manifest.recipe);
    let document = Document::new(&name, digest_of(first)?, components)?;
    let mut artefacts = Vec::new();
    let mut seen = BTreeSet::new();
    for artefact in manifest.artefacts() {
        if seen.insert(&artefact.file) {
            artefacts.push(Artefact { name: artefact.file.clone(), sha256: digest_of(artefact)? });
        }
    }
    let build = Build {
        recipe: manifest.recipe.clone(),
        arch: manifest.arch.clone(),
        formats: manifest.images.iter().map(|image| image.format.clone()).collect(),
        variant: manifest.variant.clone(),
        artefacts,
        inputs,
    };
    Ok(vec![
        (CYCLONEDX, guest_sbom::cyclonedx(&document)),
        (PROVENANCE, guest_sbom::provenance(&build)?),
        (SPDX, guest_sbom::spdx(&document)),
    ])
}
