//! `cargo xtask verify-image`: whether artefacts are what their manifest says, and, on demand, whether building them again
//! gives the same.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use rootfs_builder::agent::Profile;
use rootfs_builder::{Format, verify};

use crate::build_image::{self, Choice};
use crate::check_reproducible;
use crate::scratch::Scratch;
use crate::stage::Stages;

#[derive(Args)]
pub(crate) struct Options {
    /// Directory of the artefacts
    dir: PathBuf,
    /// Build them again, and compare
    #[arg(long)]
    rebuild: bool,
    /// The recipe's file, if the recipe is not one of this repository
    #[arg(long, requires = "rebuild")]
    recipe: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let (manifest, mut findings) = verify::verify(&options.dir)?;
    let digests = manifest.artefacts().len();
    let trees =
        manifest.images.iter().filter(|image| image.verity.is_some()).count() + manifest.extensions.len();
    println!("{digests} digests, {trees} hash trees, {} command lines", manifest.images.len());
    if options.rebuild {
        let formats = manifest.images.iter().map(|image| image.format.parse::<Format>());
        let choice = Choice {
            archs: vec![manifest.arch.parse()?],
            recipe: options.recipe.clone().unwrap_or_else(|| manifest.recipe.clone()),
            formats: formats.collect::<Result<_, _>>()?,
            ..Choice::minimal()
        };
        findings.extend(rebuilt(&choice, &options.dir)?);
    }
    findings.iter().for_each(|finding| println!("{finding}"));
    match findings.len() {
        0 => Ok(()),
        n => bail!("{}: {n} things are not what they should be", options.dir.display()),
    }
}

fn rebuilt(choice: &Choice, dir: &Path) -> Result<Vec<String>> {
    let out = Scratch::new()?;
    let image =
        build_image::build(choice, choice.archs[0], Profile::Guest, &out.path(), &mut Stages::default())?;
    check_reproducible::compare(dir, &image.dir)
}
