//! `cargo xtask lock`: writes down every input of every artefact, and says what has changed.

use anyhow::{Result, bail};
use clap::Args;
use guest_arch::Arch;
use guest_inputs::{Cache, Progress};
use rootfs_builder::lock::{Change, Lock, pinned};
use rootfs_builder::{Recipe, packages};

use crate::workspace;

#[derive(Args)]
pub(crate) struct Options {
    /// Look for the packages' newest versions, also where the recipe has not changed
    #[arg(long)]
    update: bool,
    /// Only for this architecture; may be said several times
    #[arg(long = "arch", value_name = "ARCH")]
    archs: Vec<Arch>,
    /// Only this recipe, by name or by the path of its file, whose lock is beside it
    #[arg(long)]
    recipe: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let archs = if options.archs.is_empty() { &Arch::ALL[..] } else { &options.archs };
    let names = options.recipe.clone().map_or_else(Recipe::names, |name| vec![name]);
    let (mut changes, mut failed) = (Vec::new(), Vec::new());
    for name in names {
        let recipe = Recipe::load(&name)?;
        for arch in archs {
            // A mirror that has no good list for one architecture may have one for the next.
            match of_recipe(&recipe, *arch, options.update) {
                Ok(of_recipe) => changes.extend(of_recipe),
                Err(error) => failed.push(format!("{name} for {arch}: {error:#}")),
            }
        }
    }
    if options.recipe.is_none() {
        changes.extend(of_pins(true)?);
    }
    changes.iter().for_each(|change| println!("{change}"));
    if changes.is_empty() && failed.is_empty() {
        println!("no input has changed");
    }
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("what is locked stays as it was for\n{}", failed.join("\n"))
    }
}

fn of_recipe(recipe: &Recipe, arch: Arch, update: bool) -> Result<Vec<Change>> {
    let (cache, progress) = (Cache::open()?, Progress::new());
    if !update || recipe.packages.install.is_empty() {
        return Ok(packages::locked(recipe, arch, false, &cache, &progress)?.1);
    }
    let found = packages::resolve(recipe, arch, &cache, &progress)?;
    let path = Lock::path_for(recipe);
    let mut lock = Lock::load(&path)?;
    let before = lock.clone();
    lock.set_packages(recipe, arch, found);
    lock.write(&path)?;
    Ok(before.changes(&lock))
}

/// What has changed in the pin files and among the machine's programs since the lock was written.
pub(crate) fn of_pins(write: bool) -> Result<Vec<Change>> {
    let path = Lock::ours();
    let mut lock = Lock::load(&path)?;
    let before = lock.clone();
    lock.set_inputs(pinned(&workspace::root())?);
    if write && lock != before {
        lock.write(&path)?;
    }
    Ok(before.changes(&lock))
}
