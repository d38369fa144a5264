//! The set of artefacts of one recipe for one architecture: everything that was made or found before is joined here, and
//! put in the place of what an earlier build left.

use std::fs;
use std::path::{Path, PathBuf};

use guest_arch::Arch;
use guest_manifest::{Artefact, Manifest};
use guest_tree::Tree;
use kernel_config::Kernel;

use crate::compose::{self, Parts};
use crate::contents::{self, Contents};
use crate::error::{Error, at};
use crate::format::Format;
use crate::recipe::Recipe;
use crate::{swap, write};

const AGENT: &str = "husk-agent";
const KERNEL_CONFIG: &str = "kernel.config";
const SUMS: &str = "SHA256SUMS";

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
    /// What does not stand in the recipe.
    pub parts: Parts,
}

/// A finished set of artefacts.
#[derive(Debug)]
pub struct Image {
    /// Where it is.
    pub dir: PathBuf,
    /// What it holds.
    pub manifest: Manifest,
}

/// Writes the set to `<out>/<arch>/<recipe>`, replacing what is there, or leaving it as it is if anything fails.
pub fn build_image(ingredients: &Ingredients<'_>, out: &Path) -> Result<Image, Error> {
    let Ingredients { recipe, arch, .. } = ingredients;
    let tree = compose::compose(recipe, *arch, &ingredients.parts)?;
    let extension =
        |of: &crate::recipe::Extension| Ok((of.name.clone(), compose::extension(&of.from, &of.said.value)?));
    let extensions = recipe.extensions.iter().map(extension).collect::<Result<Vec<_>, Error>>()?;
    let (dir, manifest) = swap::replace(&out.join(arch.name()).join(&recipe.name), |into| {
        fill(into, ingredients, &tree, &extensions)
    })?;
    Ok(Image { dir, manifest })
}

fn fill(
    into: &Path,
    ingredients: &Ingredients<'_>,
    tree: &Tree,
    extensions: &[(String, Tree)],
) -> Result<Manifest, Error> {
    let Ingredients { recipe, kernel, parts, .. } = ingredients;
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
    let agent = parts.agent.bytes().map_err(at("read", "the agent"))?;
    let images = ingredients.formats.iter().map(|format| write::image(*format, tree, &recipe.cmdline, into));
    let manifest = Manifest {
        version: guest_manifest::VERSION,
        arch: ingredients.arch.name().to_owned(),
        recipe: recipe.name.clone(),
        variant: recipe.variant.clone(),
        features: recipe.agent.features.clone(),
        kernel_version: kernel.version.clone(),
        kernel: copy(&kernel.image, &base_name(&kernel.image))?,
        kernel_compressed: copy(&kernel.compressed, &base_name(&kernel.compressed))?,
        kernel_config: copy(&kernel.config, KERNEL_CONFIG)?,
        agent: put(AGENT, &agent)?,
        images: images.collect::<Result<_, _>>()?,
        extensions: Vec::new(),
        documents: vec![put(contents::FILE, Contents::of(tree, extensions)?.to_json().as_bytes())?],
    };
    manifest.write(into)?;
    let itself = Artefact::measure(into, guest_manifest::FILE)?;
    let path = into.join(SUMS);
    fs::write(&path, sums(&manifest, &itself)).map_err(at("write", &path))?;
    Ok(manifest)
}

fn base_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What `sha256sum --check` reads; a file that is there under two titles once.
fn sums(manifest: &Manifest, itself: &Artefact) -> String {
    let all = manifest.artefacts().into_iter().chain([itself]);
    let mut lines: Vec<_> = all.map(|a| format!("{}  {}\n", a.sha256, a.file)).collect();
    lines.sort_by(|a, b| a[64..].cmp(&b[64..]));
    lines.dedup();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(dir: &Path) -> Image {
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
        let recipe = Recipe::load("minimal").unwrap();
        let ingredients = Ingredients {
            recipe: &recipe,
            arch: Arch::X86_64,
            formats: &recipe.formats,
            kernel: &kernel,
            parts: Parts { agent: "agent".into() },
        };
        build_image(&ingredients, &dir.join("out")).unwrap()
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
