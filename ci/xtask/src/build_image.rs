//! `cargo xtask build-image`: everything that a VM boots, by recipe and architecture.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use guest_arch::Arch;
use guest_inputs::{Cache, Progress};
use guest_manifest::Extension;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use rootfs_builder::agent::{self, Profile};
use rootfs_builder::expected::{Differences, Expected};
use rootfs_builder::{Format, Image, Ingredients, Recipe, Sources, Toolchain, packages, recipe};

use crate::{deps, lock, stage::Stages, workspace};

/// What decides which artefacts come out.
#[derive(Args, Clone)]
pub(crate) struct Choice {
    /// Architecture of the guest; may be said several times
    #[arg(long = "arch", value_name = "ARCH", default_values_t = [Arch::host()])]
    pub(crate) archs: Vec<Arch>,
    /// Name of a recipe in rootfs-builder/recipes, or path of a recipe's file (./mine.toml)
    #[arg(long, default_value = recipe::DEFAULT)]
    pub(crate) recipe: String,
    /// Format of the image, instead of those that the recipe names; may be said several times
    #[arg(long = "format", value_name = "FORMAT")]
    pub(crate) formats: Vec<Format>,
    /// Download nothing: an input that is not in the cache is an error that names it
    #[arg(long)]
    pub(crate) offline: bool,
    /// Take the lock as it is: one that does not fit is an error that says what has changed
    #[arg(long)]
    pub(crate) locked: bool,
    /// Use no more processors than this
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
}

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    choice: Choice,
    /// Directory for the artefacts, which are in <ARCH>/<RECIPE>/ below it
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the digests down as those that every other build is to have
    #[arg(long)]
    expect: bool,
    /// Install the Debian packages that are missing
    #[arg(long)]
    install_deps: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    options.choice.ensure_deps(options.install_deps)?;
    let out = options.out.clone().unwrap_or_else(workspace::out);
    let stale = lock::of_pins(false)?;
    if !stale.is_empty() {
        stale.iter().for_each(|change| eprintln!("lock: {change}"));
        if options.choice.locked {
            bail!("the lock is stale: `cargo xtask lock` brings it up to date");
        }
        eprintln!("lock: stale; `cargo xtask lock` brings it up to date");
    }
    for arch in &options.choice.archs {
        let mut stages = Stages::default();
        let image = build(&options.choice, *arch, Profile::Guest, &out, &mut stages)
            .with_context(|| format!("{} for {arch}", options.choice.recipe))?;
        for artefact in image.manifest.artefacts() {
            println!("{:<24} {:>11} bytes  {}", artefact.file, artefact.size, artefact.sha256);
        }
        // What Kata's configuration has to say for a root of theirs, or an extension, to be verified.
        for kata in &image.manifest.images {
            if let Some(verity) = kata.verity.as_ref().filter(|verity| !verity.superblock) {
                println!("{:<24} kernel_verity_params = \"{}\"", kata.artefact.file, verity.kata_params());
            }
        }
        for extension in &image.manifest.extensions {
            let Extension { artefact, verity, .. } = extension;
            println!("{:<24} verity_params = \"{}\"", artefact.file, verity.kata_params());
        }
        println!("{}", image.dir.display());
        eprint!("{}", stages.table());
        let _said = compare_with_expected(&image, options.expect)?;
    }
    Ok(())
}

/// A developer's build may differ from the one that is written down: that is said, and is an error for tests alone.
pub(crate) fn compare_with_expected(image: &Image, expect: bool) -> Result<Differences> {
    let mut expected = Expected::load(&Expected::path())?;
    let differences = expected.differences(&image.manifest, &image.build);
    differences.lines.iter().for_each(|line| eprintln!("expected: {line}"));
    if expect {
        expected.set(&image.manifest, image.build.clone());
        expected.write(&Expected::path())?;
    }
    Ok(differences)
}

impl Choice {
    /// Makes sure of what it takes to build this.
    pub(crate) fn ensure_deps(&self, install: bool) -> Result<()> {
        let kernel = deps::kernel(&self.archs, &[Recipe::load(&self.recipe)?.variant]);
        deps::ensure(&[&kernel, deps::AGENT], install)
    }

    /// The default recipe for this machine.
    pub(crate) fn minimal() -> Choice {
        Choice {
            archs: vec![Arch::host()],
            recipe: recipe::DEFAULT.to_owned(),
            formats: Vec::new(),
            offline: false,
            locked: false,
            jobs: None,
        }
    }
}

/// The default recipe, for commands that need something to boot. What is not meant to ship stays out of `out/`.
pub(crate) fn minimal(arch: Arch, profile: Profile, stages: &mut Stages) -> Result<Image> {
    let choice = Choice { archs: vec![arch], ..Choice::minimal() };
    let out = match profile {
        Profile::Guest => workspace::out(),
        Profile::Quick => workspace::target().join("quick"),
    };
    build(&choice, arch, profile, &out, stages)
}

/// The stages that other commands have in common with this one.
pub(crate) fn build(
    choice: &Choice,
    arch: Arch,
    profile: Profile,
    out: &Path,
    stages: &mut Stages,
) -> Result<Image> {
    if let Some(jobs) = choice.jobs {
        limit_processors(jobs.get())?;
    }
    let recipe = Recipe::load(&choice.recipe)?;
    let (cache, progress) = (Cache::open()?.offline(choice.offline), Progress::new());
    let toolchain = stages.run("toolchain", || Ok(Toolchain::prepare(&cache, arch, &progress)?))?;
    let (workspace, target) = (workspace::root(), workspace::target());
    let request = agent::Request {
        workspace: &workspace,
        target: &target,
        profile,
        features: &recipe.agent.features,
        offline: choice.offline,
    };
    let agent = stages.run("agent", || Ok(agent::build(&request, &toolchain, &progress)?))?;
    let packages = stages.run("packages", || {
        let frozen = choice.locked || choice.offline;
        let (packages, changes) = packages::locked(&recipe, arch, frozen, &cache, &progress)?;
        changes.iter().for_each(|change| eprintln!("lock: {change}"));
        if packages.is_empty() {
            return Ok(None);
        }
        let laid = packages::lay(&packages, arch, &cache, &progress)?;
        Ok(Some((packages, laid)))
    })?;
    let kernel =
        stages.run("kernel", || Ok(::kernel_config::build(&cache, arch, recipe.variant, &progress)?))?;
    let formats = if choice.formats.is_empty() { &recipe.formats } else { &choice.formats };
    stages.run("image", || {
        let sources = Sources::collect(&workspace, &recipe, &toolchain, &kernel.version, choice.offline)?;
        let wants_efi = formats.contains(&Format::Uki);
        let efi_stub = wants_efi.then(|| rootfs_builder::efi_stub(&cache, arch, &progress)).transpose()?;
        let busybox =
            recipe.busybox.then(|| rootfs_builder::demo_image(&cache, arch, &progress)).transpose()?;
        let ingredients = Ingredients {
            recipe: &recipe,
            arch,
            formats,
            kernel: &kernel,
            agent,
            packages,
            busybox,
            efi_stub,
            sources,
        };
        Ok(rootfs_builder::build_image(ingredients, out)?)
    })
}

/// Whatever we start asks the kernel how many processors there are for it: so none has to be told.
fn limit_processors(jobs: usize) -> Result<()> {
    let ours = Pid::from_raw(0);
    let all = sched_getaffinity(ours).context("cannot ask for our processors")?;
    let mut few = CpuSet::new();
    let usable = (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap_or(false));
    usable.take(jobs).try_for_each(|cpu| few.set(cpu)).context("cannot name a processor")?;
    sched_setaffinity(ours, &few).context("cannot limit our processors")
}
