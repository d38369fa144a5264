//! `cargo xtask check-reproducible`: builds twice, the second time as somebody else, somewhere else, and compares every
//! byte.
//!
//! | differs | how |
//! |---|---|
//! | the checkout's path, and with it cargo's target directory | the files that git knows are copied |
//! | `HOME`, the cache's directory, `TMPDIR`, the whole environment | `env -i` |
//! | user, groups; nothing gets privileges back | `setpriv`, as root |
//! | hostname, no network, no tool for containers, images and packages | `unshare`, as root |
//! | umask, time zone, locale, `SOURCE_DATE_EPOCH` | set to something odd |
//! | processors at once | `--jobs 1` |
//! | order of files in directories | what is copied is made in the reverse order |
//! | time | the second build comes later: nothing is built twice in the same second |
//!
//! Downloads are shared, since their digests are pinned; so is the kernel without `--with-kernel` and the standard library
//! without `--with-std`, which take minutes. What was shared is said.

mod elsewhere;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use guest_arch::Arch;
use rootfs_builder::agent::Profile;
use rootfs_builder::expected::Differences;
use rootfs_builder::{Format, Recipe, compare};

use crate::build_image::{self, Choice};
use crate::scratch::Scratch;
use crate::stage::Stages;
use elsewhere::Elsewhere;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    choice: Choice,
    /// Every recipe of this repository, in every format that its architecture has
    #[arg(long, conflicts_with_all = ["recipe", "formats"])]
    all: bool,
    /// Build the kernel a second time too
    #[arg(long)]
    with_kernel: bool,
    /// Build Rust's standard library a second time too
    #[arg(long)]
    with_std: bool,
    /// Keep both builds, in this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Write the digests down as those that every other build is to have
    #[arg(long)]
    expect: bool,
    /// Install the Debian packages that are missing
    #[arg(long)]
    install_deps: bool,
}

/// What of the cache both builds have in common, besides downloads.
#[derive(Clone, Copy)]
pub(crate) struct Shared {
    pub(crate) kernel: bool,
    pub(crate) std: bool,
}

/// What came of building one recipe twice.
pub(crate) struct Verdict {
    arch: Arch,
    recipe: String,
    files: usize,
    differences: Vec<String>,
    /// Against `expected.toml`.
    unexpected: Differences,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let choices = match options.all {
        true => every(&options.choice),
        false => vec![options.choice.clone()],
    };
    choices.iter().try_for_each(|choice| choice.ensure_deps(options.install_deps))?;
    let shared = Shared { kernel: !options.with_kernel, std: !options.with_std };
    let verdicts = check(&choices, shared, options.keep.as_deref(), options.expect)?;
    if verdicts.iter().any(|verdict| !verdict.differences.is_empty()) {
        bail!("the two builds are not the same");
    }
    Ok(())
}

/// One choice for each recipe that has a name, with every format that the architecture has.
pub(crate) fn every(choice: &Choice) -> Vec<Choice> {
    let of_arch = |arch: &Arch| {
        let (archs, formats) = (vec![*arch], Format::all_for(*arch));
        let with =
            |recipe| Choice { archs: archs.clone(), recipe, formats: formats.clone(), ..choice.clone() };
        Recipe::names().into_iter().map(with).collect::<Vec<_>>()
    };
    choice.archs.iter().flat_map(of_arch).collect()
}

/// Builds each choice here and elsewhere; says what it finds, and returns it.
pub(crate) fn check(
    choices: &[Choice],
    shared: Shared,
    keep: Option<&Path>,
    expect: bool,
) -> Result<Vec<Verdict>> {
    let temporary = Scratch::new()?;
    let first = keep.unwrap_or(&temporary.path()).join("first");
    // A kernel's makefile refuses a space.
    let place = if shared.kernel { "a b" } else { "a-b" };
    let elsewhere = Elsewhere::prepare(&temporary.path().join(place), shared)?;
    println!("varied: {}", elsewhere.varied.join(", "));
    println!("shared: {}", elsewhere.shared.join(", "));
    let mut verdicts = Vec::new();
    for choice in choices {
        for arch in &choice.archs {
            let mut stages = Stages::default();
            let image = build_image::build(choice, *arch, Profile::Guest, &first, &mut stages)?;
            let recipe = image.manifest.recipe.clone();
            let second = stages.run("second build", || elsewhere.build(choice, arch.name(), &recipe))?;
            if let Some(keep) = keep {
                let kept = keep.join("second").join(arch.name()).join(&recipe);
                if kept.exists() {
                    remove(&kept)?;
                }
                elsewhere::share(&second, &kept, None)?;
            }
            let differences = compare(&image.dir, &second)?;
            let unexpected = build_image::compare_with_expected(&image, expect && differences.is_empty())?;
            let files = image.manifest.artefacts().len() + 2;
            let verdict = Verdict { arch: *arch, recipe, files, differences, unexpected };
            print!("{verdict}");
            eprint!("{}", stages.table());
            verdicts.push(verdict);
            // Both are a gigabyte for some recipes, and the next may want the room.
            if keep.is_none() {
                remove(&image.dir)?;
                remove(&second)?;
            }
        }
    }
    Ok(verdicts)
}

impl Verdict {
    /// Whether both builds are the same, and what they are expected to be.
    pub(crate) fn is_good(&self) -> bool {
        self.differences.is_empty() && (self.unexpected.lines.is_empty() || self.unexpected.excused)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { arch, recipe, files, differences, .. } = self;
        writeln!(f, "{arch} {recipe}: {files} files, {} differ", differences.len())?;
        differences.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

/// Compares two sets; where there is a difference, diffoscope has its say too, if it is installed.
pub(crate) fn compare(one: &Path, other: &Path) -> Result<Vec<String>> {
    let differences = compare::sets(one, other)?;
    if !differences.is_empty() {
        let mut diffoscope = Command::new("diffoscope");
        diffoscope.args(["--max-report-size", "20000"]).arg(one).arg(other).stdin(Stdio::null());
        let _where_it_is_installed = diffoscope.status();
    }
    Ok(differences)
}

fn remove(set: &Path) -> Result<()> {
    fs::remove_dir_all(set).with_context(|| format!("cannot remove {}", set.display()))
}
