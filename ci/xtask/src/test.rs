//! `cargo xtask test`: formatting, lints, unit tests, end-to-end tests; the same here as in CI.

use std::{
    io::{BufRead, BufReader, Write, stdout},
    path::PathBuf,
    process::{Command, ExitCode, ExitStatus, Stdio},
};

use ::kernel_config::Variant;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use guest_arch::Arch;
use guest_inputs::{Cache, Progress};
use rootfs_builder::Format;
use rootfs_builder::agent::Profile;

use crate::build_image::Choice;
use crate::check_reproducible::{self, Shared};
use crate::{build_image, deps, husk, kernel_config, stage::Stages, vsock_device, workspace};

#[derive(Args)]
pub(crate) struct Options {
    /// Install the Debian packages that are missing
    #[arg(long)]
    install_deps: bool,
    /// Only this part
    #[arg(long)]
    only: Option<Part>,
    /// With an agent that is built in seconds, and larger than the one that ships
    #[arg(long)]
    quick: bool,
    /// Only what every architecture has to pass, on this one; may be given more than once
    #[arg(long)]
    arch: Vec<Arch>,
    /// Everything here, and for each other architecture what `--arch` is
    #[arg(long, conflicts_with = "arch")]
    all_arches: bool,
    /// Only tests with this in their names
    filter: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Fmt,
    Clippy,
    Unit,
    /// The kernels' configurations, for all architectures
    KernelConfig,
    E2e,
    /// Every recipe in every format, built twice
    Reproducible,
}

/// Where what every architecture has to pass is tested if nobody says otherwise, besides on the machine's own.
const USUAL: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];

/// The end-to-end tests that every architecture has to pass.
const SUBSET: &str = "arches::";

/// Those of the kernels' other variants, which an architecture that was asked for has to pass too.
const VARIANTS: &str = "variants::";

/// Artefacts that some end-to-end tests boot beside the default ones.
struct Besides {
    /// How the names of those tests begin.
    tests: &'static [&'static str],
    /// The environment variable that tells them where it is.
    variable: &'static str,
    /// A name, or a path in this repository.
    recipe: &'static str,
    /// Whether in every format, instead of those of the recipe.
    all_formats: bool,
}

const BESIDES: [Besides; 5] = [
    Besides::new(&["systemd_cgroup::"], "HUSK_SYSTEMD_ARTEFACTS", "ci/e2e/systemd.toml"),
    Besides::new(&[VARIANTS], "HUSK_DEBUG_ARTEFACTS", "debug"),
    Besides::new(&[VARIANTS], "HUSK_CONFIDENTIAL_ARTEFACTS", "ci/e2e/confidential.toml"),
    Besides { all_formats: true, ..Besides::new(&["roots::"], "HUSK_FORMATS_ARTEFACTS", "minimal") },
    Besides::new(&[SUBSET, "extensions::"], "HUSK_EXTENSION_ARTEFACTS", "ci/e2e/extension.toml"),
];

/// What a part of the tests had to say.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Count {
    passed: u64,
    failed: u64,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let among = |part| options.only.is_none_or(|only| only == part);
    let wanted = |part| options.arch.is_empty() && among(part);
    let filter = options.filter.as_slice();
    let apart = apart(options)?;
    let mut stages = Stages::default();
    let mut all = Count::default();
    // First of all: an hour is too late to hear of a missing package. What compiles the agent for this machine needs one too.
    let arches: Vec<Arch> = [Arch::host()].into_iter().chain(apart.iter().copied()).collect();
    let emulators = deps::vm(&arches);
    let kernels = deps::kernel(&Arch::ALL, &Variant::ALL);
    let packages: &[&[&str]] = match options.only {
        None | Some(Part::E2e) => &[&kernels, deps::AGENT, deps::TESTS, deps::READERS, &emulators],
        Some(Part::Clippy | Part::Unit) => &[deps::TESTS, deps::READERS],
        Some(Part::KernelConfig | Part::Reproducible) => &[&kernels, deps::AGENT],
        Some(Part::Fmt) => &[],
    };
    if !packages.is_empty() {
        stages.run("packages", || deps::ensure(packages, options.install_deps))?;
    }
    if wanted(Part::Fmt) {
        stages.run("fmt", || succeed(workspace::cargo().args(["fmt", "--all", "--check"])))?;
    }
    if wanted(Part::Clippy) {
        let mut clippy = workspace::cargo();
        clippy.args([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]);
        stages.run("clippy", || succeed(&mut clippy))?;
    }
    if wanted(Part::Unit) {
        stages
            .run("unit", || count(cargo_test(&["--workspace", "--exclude", "e2e"], filter, &[]), &mut all))?;
        // Off by default, so that the tests above do without it.
        stages.run("unit, policy", || {
            let mut arguments = vec!["--package", "husk-agent", "--lib", "--features", "policy"];
            arguments.extend(options.filter.is_none().then_some("policy"));
            count(cargo_test(&arguments, filter, &[]), &mut all)
        })?;
    }
    let whole = options.filter.is_none() && !options.quick;
    if wanted(Part::KernelConfig) && whole {
        stages.run("kernel-config", kernel_config::check_all)?;
    }
    if wanted(Part::E2e) {
        end_to_end(Arch::host(), filter, options, &mut stages, &mut all)?;
    }
    if wanted(Part::Reproducible) && whole {
        stages.run("reproducible", || reproducible(Arch::host(), &mut all))?;
    }
    eprint!("\n{}", stages.table());
    for arch in apart {
        let mut stages = Stages::default();
        if among(Part::E2e) {
            let filter = filters(options);
            end_to_end(arch, &filter, options, &mut stages, &mut all).with_context(|| arch.to_string())?;
        }
        if is_asked_for(options) && among(Part::Reproducible) && whole {
            stages.run("reproducible", || reproducible(arch, &mut all))?;
        }
        eprint!("\n{arch}\n{}", stages.table());
    }
    println!("{} passed, {} failed", all.passed, all.failed);
    Ok(if all.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The architectures that are tested apart from the rest. A filter without one is about the machine's own.
fn apart(options: &Options) -> Result<Vec<Arch>> {
    if is_asked_for(options) && !matches!(options.only, None | Some(Part::E2e | Part::Reproducible)) {
        bail!(
            "--arch and --all-arches go with --only e2e and --only reproducible: the rest is the same on each"
        );
    }
    let arches = match (options.only, &options.filter) {
        _ if !options.arch.is_empty() => return Ok(options.arch.clone()),
        _ if options.all_arches => Arch::ALL.as_slice(),
        (None | Some(Part::E2e), None) => USUAL.as_slice(),
        _ => &[],
    };
    Ok(arches.iter().copied().filter(|arch| *arch != Arch::host()).collect())
}

/// What the end-to-end tests on such an architecture have in their names.
fn filters(options: &Options) -> Vec<String> {
    match &options.filter {
        Some(filter) => vec![filter.clone()],
        None if is_asked_for(options) => vec![SUBSET.into(), VARIANTS.into()],
        None => vec![SUBSET.into()],
    }
}

/// Whether somebody asked for other architectures, which get all that they have to pass then, and not the usual half.
fn is_asked_for(options: &Options) -> bool {
    options.all_arches || !options.arch.is_empty()
}

/// The tests that need the artefacts: they get them by environment variables.
fn end_to_end(
    arch: Arch,
    filter: &[String],
    options: &Options,
    stages: &mut Stages,
    all: &mut Count,
) -> Result<()> {
    let profile = if options.quick { Profile::Quick } else { Profile::Guest };
    let image = build_image::minimal(arch, profile, stages)?;
    let layout = stages.run("container image", || {
        Ok(rootfs_builder::demo_image(&Cache::open()?, arch, &Progress::new())?)
    })?;
    let husk = stages.run("husk", husk::build)?;
    let vsock = stages.run("vsock device", || vsock_device::build(&Cache::open()?, &Progress::new()))?;
    let path = std::env::join_paths(
        std::iter::once(vsock).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let mut env = vec![
        ("HUSK_ARTEFACTS", image.dir),
        ("HUSK_TEST_IMAGE", layout),
        ("HUSK_BIN", husk),
        ("PATH", path.into()),
    ];
    let listed = listed(filter)?;
    for set in BESIDES.iter().filter(|set| set.is_for(&listed)) {
        env.push((set.variable, set.build(arch, profile, stages)?));
    }
    stages.run("artefacts", || {
        let arguments = ["--package", "rootfs-builder", "--test", "artefacts"];
        let mut cargo = cargo_test(&arguments, options.filter.as_slice(), &env);
        cargo.arg("--ignored");
        count(cargo, all)
    })?;
    // An agent that is built in seconds is not the one that `build-image` makes.
    if !options.quick && arch == Arch::host() {
        stages.run("build-image", || {
            let arguments = ["--package", "xtask", "--test", "build_image"];
            let mut cargo = cargo_test(&arguments, options.filter.as_slice(), &env);
            cargo.arg("--ignored");
            count(cargo, all)
        })?;
    }
    stages.run("e2e", || count(cargo_test(&["--package", "e2e"], filter, &env), all))?;
    if options.filter.is_none() && (arch == Arch::host() || is_asked_for(options)) {
        // The same guest once more with systemd as PID 1, from a disk that is verified.
        let choice =
            Choice { recipe: "debian".to_owned(), formats: vec![Format::Erofs], ..Choice::minimal() };
        let out = workspace::target().join("debian");
        let debian = build_image::build(&choice, arch, profile, &out, stages)?.dir;
        env.extend([
            ("HUSK_ARTEFACTS", debian),
            ("HUSK_TEST_BOOT", Format::Erofs.name().into()),
            ("HUSK_TEST_MEMORY", "1024".into()),
        ]);
        stages
            .run("e2e, debian", || count(cargo_test(&["--package", "e2e"], &[SUBSET.into()], &env), all))?;
    }
    Ok(())
}

/// Every recipe in every format, twice: one test each.
fn reproducible(arch: Arch, all: &mut Count) -> Result<()> {
    let choices = check_reproducible::every(&Choice { archs: vec![arch], ..Choice::minimal() });
    let verdicts = check_reproducible::check(&choices, Shared { kernel: true, std: true }, None, false)?;
    let good = verdicts.iter().filter(|verdict| verdict.is_good()).count() as u64;
    all.add(Count { passed: good, failed: verdicts.len() as u64 - good });
    Ok(())
}

impl Besides {
    const fn new(tests: &'static [&'static str], variable: &'static str, recipe: &'static str) -> Self {
        Besides { tests, variable, recipe, all_formats: false }
    }

    /// Whether one of these tests, a line each, needs it.
    fn is_for(&self, listed: &str) -> bool {
        listed.lines().any(|test| self.tests.iter().any(|file| test.starts_with(file)))
    }

    /// The directory of the artefacts, which it builds.
    fn build(&self, arch: Arch, profile: Profile, stages: &mut Stages) -> Result<PathBuf> {
        let recipe = match self.recipe.contains('/') {
            true => workspace::root().join(self.recipe).display().to_string(),
            false => self.recipe.to_owned(),
        };
        let formats = if self.all_formats { Format::all_for(arch) } else { Vec::new() };
        let choice = Choice { recipe, formats, ..Choice::minimal() };
        let out = workspace::target().join("besides").join(if self.all_formats { "all" } else { "own" });
        Ok(build_image::build(&choice, arch, profile, &out, stages)?.dir)
    }
}

/// `cargo test`, ready for arguments of the test programs. Whom a shell starts in the background ignores SIGINT and
/// SIGQUIT, as would all that the tests start and mean to interrupt: both do again what they do by default.
fn cargo_test(arguments: &[&str], filter: &[String], env: &[(&str, PathBuf)]) -> Command {
    let plain = workspace::cargo();
    let mut cargo = Command::new("env");
    cargo.arg("--default-signal=INT,QUIT").arg(plain.get_program()).current_dir(workspace::root());
    cargo.args(["test", "--locked", "--no-fail-fast"]).args(arguments).arg("--").args(filter);
    cargo.envs(env.iter().cloned());
    cargo
}

/// The end-to-end tests whose names have one of `filter` in them, one per line.
fn listed(filter: &[String]) -> Result<String> {
    let mut cargo = cargo_test(&["--package", "e2e"], filter, &[]);
    let output = cargo.arg("--list").stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cannot list the end-to-end tests ({})", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().context("cannot run cargo")?;
    if status.success() { Ok(()) } else { bail!("failed ({status})") }
}

/// Passes the output on, and adds up what the test programs report. A test that fails is counted and does not end the
/// whole: the other parts may say why it did.
fn count(mut cargo: Command, all: &mut Count) -> Result<()> {
    let mut child = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let output = child.stdout.take().expect("it was piped above");
    let mut here = Count::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read cargo's output")?;
        let mut screen = stdout().lock();
        screen.write_all(&line).and_then(|()| screen.write_all(b"\n")).context("cannot write to stdout")?;
        if let Some(program) = summary(&String::from_utf8_lossy(&line)) {
            here.add(program);
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    all.add(here);
    verdict(status, here)
}

/// cargo fails when a test fails, which is counted; or for another reason, which ends the stage.
fn verdict(status: ExitStatus, count: Count) -> Result<()> {
    match (status.success(), count.failed) {
        (true, _) => Ok(()),
        (false, 0) => bail!("cargo test failed ({status}), but no test did"),
        (false, _) => Ok(()),
    }
}

impl Count {
    fn add(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// "test result: ok. 31 passed; 0 failed; 0 ignored; ..."
fn summary(line: &str) -> Option<Count> {
    let counts = line.strip_prefix("test result: ")?;
    let number = |what: &str| {
        let before = counts.split_once(what)?.0;
        before.rsplit([' ', ';']).find(|word| !word.is_empty())?.parse().ok()
    };
    Some(Count { passed: number(" passed")?, failed: number(" failed")? })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn summaries_are_read() {
        let ok =
            "test result: ok. 31 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.10s";
        assert_eq!(summary(ok), Some(Count { passed: 31, failed: 0 }));
        let failed = "test result: FAILED. 3 passed; 12 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(summary(failed), Some(Count { passed: 3, failed: 12 }));
        assert_eq!(summary("test result::tests::x ... ok"), None);
        assert_eq!(summary("running 3 tests"), None);
    }

    #[test]
    fn architectures_are_tested_apart_when_all_or_some_are_meant() {
        let plain = || Options {
            install_deps: false,
            only: None,
            quick: false,
            arch: Vec::new(),
            all_arches: false,
            filter: None,
        };
        let foreign = |arches: &[Arch]| -> Vec<Arch> {
            arches.iter().copied().filter(|arch| *arch != Arch::host()).collect()
        };
        assert_eq!(filters(&plain()), [SUBSET]);
        assert_eq!(filters(&Options { all_arches: true, ..plain() }), [SUBSET, VARIANTS]);
        let named = Options { arch: vec![Arch::S390x], filter: Some("exec::".into()), ..plain() };
        assert_eq!(filters(&named), ["exec::"]);
        let lints = Options { only: Some(Part::Clippy), arch: vec![Arch::S390x], ..plain() };
        assert!(apart(&lints).is_err());
        let apart = |options: Options| apart(&options).unwrap();
        assert_eq!(apart(plain()), foreign(&USUAL));
        assert_eq!(apart(Options { all_arches: true, ..plain() }), foreign(&Arch::ALL));
        assert_eq!(apart(Options { arch: vec![Arch::host()], ..plain() }), [Arch::host()]);
        assert_eq!(apart(Options { filter: Some("exec::".into()), ..plain() }), []);
        assert_eq!(apart(Options { only: Some(Part::Unit), ..plain() }), []);
        assert_eq!(apart(Options { only: Some(Part::Reproducible), ..plain() }), []);
        let twice = Options { only: Some(Part::Reproducible), all_arches: true, ..plain() };
        assert_eq!(apart(twice), foreign(&Arch::ALL));
    }

    #[test]
    fn a_crash_is_no_success() {
        let failed = ExitStatus::from_raw(101 << 8);
        assert!(verdict(failed, Count { passed: 3, failed: 0 }).is_err());
        assert!(verdict(failed, Count { passed: 3, failed: 1 }).is_ok());
        assert!(verdict(ExitStatus::from_raw(0), Count::default()).is_ok());
    }
}
