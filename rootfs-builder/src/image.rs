//! The set of artefacts of one recipe for one architecture: everything that was made or found before is joined here, and
//! put in the place of what an earlier build left.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use guest_arch::Arch;
use guest_debian::{Laid, Package};
use guest_manifest::{Artefact, Manifest};
use guest_sbom::Component;
use guest_tree::{Content, Tree};
use kernel_config::Kernel;
use rayon::prelude::*;

use crate::contents::{self, Contents};
use crate::documents::{self, Sources};
use crate::error::{Error, at};
use crate::expected::Build;
use crate::format::Format;
use crate::recipe::Recipe;
use crate::{compose, swap, write};

const AGENT: &str = "husk-agent";
const KERNEL_CONFIG: &str = "kernel.config";
pub(crate) const SUMS: &str = "SHA256SUMS";

/// What a set is made of.
#[derive(Debug)]
pub struct Ingredients<'a> {
    /// What somebody wants.
    pub recipe: &'a Recipe,
    /// For which machines.
    pub arch: Arch,
    /// The formats to write.
    pub formats: &'a [Format],
    /// The kernel of the recipe's variant.
    pub kernel: &'a Kernel,
    /// The agent's binary.
    pub agent: Content,
    /// The recipe's packages, and the same taken apart.
    pub packages: Option<(Vec<Package>, Laid)>,
    /// The layout of busybox, if the recipe has it.
    pub busybox: Option<PathBuf>,
    /// What a unified kernel image begins with, if one is to be written.
    pub efi_stub: Option<PathBuf>,
    /// What kernel and agent were made of.
    pub sources: Sources,
}

/// A finished set of artefacts.
#[derive(Debug)]
pub struct Image {
    /// Where it is.
    pub dir: PathBuf,
    /// What it holds.
    pub manifest: Manifest,
    /// Its digests, and those of what it was made of.
    pub build: Build,
}

/// Writes the set to `<out>/<arch>/<recipe>`, replacing what is there, or leaving it as it is if anything fails.
pub fn build_image(ingredients: Ingredients<'_>, out: &Path) -> Result<Image, Error> {
    let Ingredients { recipe, arch, agent, packages, .. } = &ingredients;
    let sources = ingredients.sources.clone();
    let (pins, packages) = match packages {
        Some((packages, laid)) => (packages.clone(), documents::packages(packages, &laid.copyrights)?),
        None => Default::default(),
    };
    let (recipe, arch, agent) = (*recipe, *arch, agent.clone());
    let set = Set {
        recipe,
        arch,
        formats: ingredients.formats,
        kernel: ingredients.kernel,
        efi_stub: ingredients.efi_stub,
        sources: sources.clone(),
        packages,
        extensions: recipe.extensions.iter().map(compose::extension).collect::<Result<_, _>>()?,
        tree: {
            let laid = ingredients.packages.map(|(_, laid)| laid);
            compose::compose(recipe, arch, agent.clone(), laid, ingredients.busybox.as_deref())?
        },
        agent,
    };
    let (dir, manifest) = swap::replace(&out.join(arch.name()).join(&recipe.name), |into| set.fill(into))?;
    let build = Build::of(&manifest, &sources, &pins);
    Ok(Image { dir, manifest, build })
}

/// All of a set but its files.
struct Set<'a> {
    recipe: &'a Recipe,
    arch: Arch,
    formats: &'a [Format],
    kernel: &'a Kernel,
    agent: Content,
    tree: Tree,
    extensions: Vec<(String, Tree)>,
    efi_stub: Option<PathBuf>,
    sources: Sources,
    packages: Vec<Component>,
}

impl Set<'_> {
    /// Writes the files of the set, those that say something of others last.
    fn fill(self, into: &Path) -> Result<Manifest, Error> {
        let Set { recipe, kernel, .. } = self;
        let copy = |from: &Path, name: &str| -> Result<Artefact, Error> {
            let to = into.join(name);
            fs::copy(from, &to).map_err(at("copy", from))?;
            Ok(Artefact::measure(into, name)?)
        };
        let put = |name: &str, bytes: &[u8]| -> Result<Artefact, Error> {
            let path = into.join(name);
            fs::write(&path, bytes).map_err(at("write", &path))?;
            Ok(Artefact::measure(into, name)?)
        };
        let root = write::Root {
            tree: &self.tree,
            arch: self.arch,
            cmdline: &recipe.cmdline,
            name: &recipe.name,
            kernel,
            efi_stub: self.efi_stub.as_deref(),
            ramdisk: Mutex::default(),
        };
        // What compresses takes a processor for half a minute, where there is a distribution in the tree.
        let images = self.formats.par_iter().map(|format| write::image(*format, &root, into));
        let extensions = (0..).zip(&self.extensions);
        let extensions = extensions.map(|(index, (name, tree))| write::extension(name, index, tree, into));
        let contents = Contents::of(&self.tree, &self.extensions)?;
        let mut manifest = Manifest {
            version: guest_manifest::VERSION,
            arch: self.arch.name().to_owned(),
            recipe: recipe.name.clone(),
            variant: recipe.variant.to_string(),
            features: recipe.agent.features.clone(),
            kernel_version: kernel.version.clone(),
            kernel: copy(&kernel.image, &base_name(&kernel.image))?,
            kernel_compressed: copy(&kernel.compressed, &base_name(&kernel.compressed))?,
            kernel_config: copy(&kernel.config, KERNEL_CONFIG)?,
            agent: put(AGENT, &self.agent.bytes().map_err(at("read", AGENT))?)?,
            cmdline: recipe.cmdline.join(" "),
            images: images.collect::<Result<_, _>>()?,
            extensions: extensions.collect::<Result<_, _>>()?,
            documents: vec![put(contents::FILE, contents.to_json().as_bytes())?],
        };
        for (name, bytes) in documents::about(&manifest, &contents, &self.sources, self.packages)? {
            manifest.documents.push(put(name, &bytes)?);
        }
        manifest.write(into)?;
        let itself = Artefact::measure(into, guest_manifest::FILE)?;
        put(SUMS, sums(&manifest, &itself).as_bytes())?;
        Ok(manifest)
    }
}

fn base_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What `sha256sum --check` reads; a file that is there under two titles once.
pub(crate) fn sums(manifest: &Manifest, itself: &Artefact) -> String {
    let all = manifest.artefacts().into_iter().chain([itself]);
    let mut lines: Vec<_> = all.map(|a| format!("{}  {}\n", a.sha256, a.file)).collect();
    lines.sort_by(|a, b| a[64..].cmp(&b[64..]));
    lines.dedup();
    lines.concat()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn made(dir: &Path) -> Image {
        made_with(dir, &Recipe::load("minimal").unwrap().formats)
    }

    /// A minimal set, with a kernel and an agent that are none.
    pub(crate) fn made_with(dir: &Path, formats: &[Format]) -> Image {
        made_of(dir, &Recipe::load("minimal").unwrap(), formats)
    }

    /// The same of another recipe.
    pub(crate) fn made_of(dir: &Path, recipe: &Recipe, formats: &[Format]) -> Image {
        let file = |name: &str| {
            let path = dir.join(name);
            fs::write(&path, name).unwrap();
            path
        };
        let kernel = Kernel {
            image: file("vmlinux"),
            compressed: file("bzImage"),
            config: file("config"),
            version: "6.12.1".into(),
        };
        let ingredients = Ingredients {
            recipe,
            arch: Arch::X86_64,
            formats,
            kernel: &kernel,
            agent: "agent".into(),
            packages: None,
            busybox: None,
            efi_stub: None,
            sources: Sources::none(),
        };
        build_image(ingredients, &dir.join("out")).unwrap()
    }

    #[test]
    fn the_host_runtime_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let image = made(dir.path());
        assert_eq!(image.dir, dir.path().join("out/x86_64/minimal"));
        assert_eq!(Manifest::load(&image.dir).unwrap(), image.manifest);
        assert_eq!(image.manifest.kernel.file, "vmlinux");
        assert_eq!(image.manifest.agent.size, 5);
        assert_eq!(
            image.manifest.initrd(&image.dir).unwrap().cmdline.as_deref(),
            Some("quiet console=hvc0 panic=-1 agent.log_vport=1025")
        );
    }

    #[test]
    fn the_sums_are_sorted_and_complete() {
        let dir = tempfile::tempdir().unwrap();
        let image = made(dir.path());
        let text = fs::read_to_string(image.dir.join(SUMS)).unwrap();
        let named: Vec<_> = text.lines().map(|l| l.split_once("  ").unwrap().1.to_owned()).collect();
        let entries =
            fs::read_dir(&image.dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut there: Vec<_> = entries.filter(|name| name != SUMS).collect();
        there.sort();
        assert_eq!(named, there);
        assert!(text.lines().all(|l| l.find(' ') == Some(64)));
    }

    #[test]
    fn the_minimal_root_is_the_agent_and_where_it_mounts() {
        let dir = tempfile::tempdir().unwrap();
        let contents = Contents::load(&made(dir.path()).dir).unwrap();
        let lines: Vec<_> =
            contents.root.iter().map(|e| format!("{} {} {}", e.path, e.mode, e.origin)).collect();
        assert_eq!(
            lines,
            [
                "/ 0755 every image",
                "/dev 0755 the recipe minimal",
                "/dev/console 0600 the recipe minimal",
                "/dev/null 0666 the recipe minimal",
                "/init 0777 the agent",
                "/proc 0555 the recipe minimal",
                "/run 0755 the recipe minimal",
                "/sbin 0755 the agent",
                "/sbin/init 0755 the agent",
                "/sys 0555 the recipe minimal",
                "/tmp 1777 the recipe minimal",
            ]
        );
    }
}
