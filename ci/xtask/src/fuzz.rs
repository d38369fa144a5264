//! `cargo xtask fuzz`: feeds what the agent and the builder read from strangers with what strangers might write.
//!
//! The targets are programs of the crates in [`CRATES`], workspaces of their own that want nightly Rust for its coverage
//! counters.
//! They are built here with the flags that cargo-fuzz would pass, so that nothing needs to be installed, and without a
//! sanitizer: the code is safe Rust, where what goes wrong panics. What a run has learnt is kept in the target
//! directory for the next.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use guest_arch::Arch;

use crate::workspace;

/// Where targets are.
const CRATES: [&str; 2] = ["agent/fuzz", "rootfs-builder/fuzz"];

/// What makes rustc count edges and compare operands for libFuzzer.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Where files are in memory.
const MEMORY: &str = "/dev/shm";

/// One input may take this long, in seconds: far more than any does, even on a machine with other things to do.
const HANG: &str = "-timeout=30";

pub(crate) fn run(target: Option<&str>, seconds: u64) -> Result<()> {
    let mut known = Vec::new();
    for dir in CRATES.map(|name| workspace::root().join(name)) {
        let names = names(&dir.join("fuzz_targets"))?;
        known.push((dir, names));
    }
    if let Some(target) = target {
        let all: Vec<_> = known.iter().flat_map(|(_, names)| names.clone()).collect();
        if !all.iter().any(|name| name == target) {
            bail!("no target {target:?}: there are {}", all.join(", "));
        }
        known.iter_mut().for_each(|(_, names)| names.retain(|name| name == target));
    }
    known.iter().filter(|(_, names)| !names.is_empty()).try_for_each(|(dir, names)| fuzz(dir, names, seconds))
}

/// Runs targets of one crate.
fn fuzz(crate_dir: &Path, targets: &[String], seconds: u64) -> Result<()> {
    let dir = workspace::target().join("fuzz");
    let programs = build(crate_dir, &dir, targets)?;
    for target in targets {
        let (learnt, broken) = (dir.join("corpus").join(target), dir.join("broken").join(target));
        for dir in [&learnt, &broken] {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let mut fuzzer = Command::new(programs.join(target));
        fuzzer.args([HANG, "-rss_limit_mb=2048", "-print_final_stats=1"]);
        fuzzer.arg(format!("-max_total_time={seconds}"));
        fuzzer.arg(format!("-artifact_prefix={}/", broken.display()));
        // What it learns goes into the first directory.
        fuzzer.arg(&learnt).arg(crate_dir.join("seeds").join(target));
        // Some write a few files for each input: on a disk that is all they would do.
        if Path::new(MEMORY).is_dir() {
            fuzzer.env("TMPDIR", MEMORY);
        }
        println!("{target}: {seconds} s");
        let status = fuzzer.status().with_context(|| format!("cannot run {target}"))?;
        if !status.success() {
            bail!("{target} failed ({status}): the input is in {}", broken.display());
        }
    }
    Ok(())
}

/// A target is a file of its name.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        if let Some(stem) = entry?.path().file_stem().and_then(|stem| stem.to_str()) {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Builds the programs; returns where they are.
fn build(crate_dir: &Path, dir: &Path, targets: &[String]) -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", Arch::host());
    let mut cargo = Command::new("rustup");
    cargo.args(["run", "nightly", "cargo", "build", "--quiet", "--release"]);
    // With a target named, build scripts and macros are built as ever.
    cargo.args(["--target", &triple]).current_dir(crate_dir);
    cargo.env("CARGO_TARGET_DIR", dir).env("RUSTFLAGS", RUSTFLAGS).env_remove("RUSTC");
    for target in targets {
        cargo.args(["--bin", target]);
    }
    let status = cargo.status().context("cannot run rustup, which finds nightly Rust")?;
    if !status.success() {
        bail!("the fuzz targets were not built ({status}); they need: rustup toolchain install nightly");
    }
    Ok(dir.join(triple).join("release"))
}
