//! `cargo xtask bench`: size, memory and speed of what this repository builds, each with its spread and count of runs.
//!
//! What needs a VM is measured by `ci/e2e/benches/`, which prints a line of JSON a figure. A figure that has a budget is
//! shown beside it.

use std::{collections::BTreeSet, fs, path::Path, process::Stdio};

use ::kernel_config::Variant;
use anyhow::{Context, Result, bail};
use guest_arch::Arch;
use guest_inputs::{Cache, Progress};
use rootfs_builder::agent::Profile;
use serde_json::json;

use crate::{build_image, deps, husk, stage::Stages, workspace};

/// One row: a figure, how it spreads, and how often it was taken.
#[derive(serde::Deserialize)]
struct Row {
    name: String,
    unit: String,
    /// The most it may be.
    budget: Option<f64>,
    runs: Vec<f64>,
}

pub(crate) fn run(to: Option<&Path>, install_deps: bool) -> Result<()> {
    let kernel = deps::kernel(&[Arch::host()], &[Variant::Lean]);
    deps::ensure(&[&kernel, deps::AGENT, &deps::vm(&[Arch::host()])], install_deps)?;
    let image = build_image::minimal(Arch::host(), Profile::Guest, &mut Stages::default())?;
    let once = |name: &str, unit: &str, budget, figure| Row {
        name: name.into(),
        unit: unit.into(),
        budget: Some(budget),
        runs: vec![figure],
    };
    let size = |bytes: u64| bytes as f64 / 1e6;
    let manifest = &image.manifest;
    let mut rows = vec![
        once("agent", "MB", 5.0, size(manifest.agent.size)),
        once("crates in the agent's tree", "", 200.0, crates_in_agent()? as f64),
        once("initrd", "MB", 3.0, size(manifest.initrd(&image.dir)?.artefact.size)),
        once("kernel", "MB", 20.0, size(manifest.kernel.size)),
        once("kernel, compressed", "MB", 6.0, size(manifest.kernel_compressed.size)),
    ];
    rows.extend(of_vms(&image.dir)?);
    for row in &rows {
        println!("{}", row.line());
    }
    if let Some(path) = to {
        let figures: Vec<_> = rows.iter().map(Row::json).collect();
        let text = serde_json::to_string_pretty(&figures)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The rows that need a running VM.
fn of_vms(artefacts: &Path) -> Result<Vec<Row>> {
    let layout = rootfs_builder::demo_image(&Cache::open()?, Arch::host(), &Progress::new())?;
    let husk = husk::build()?;
    let mut cargo = workspace::cargo();
    cargo
        .args(["bench", "--quiet", "--locked", "--package", "e2e", "--bench", "vm", "--bench", "agent"])
        .stdin(Stdio::null());
    cargo.env("HUSK_ARTEFACTS", artefacts).env("HUSK_TEST_IMAGE", layout).env("HUSK_BIN", husk);
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo bench")?;
    if !output.status.success() {
        bail!("the benchmark of VMs failed ({})", output.status);
    }
    let lines = String::from_utf8(output.stdout).context("the benchmark's output")?;
    lines
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not a figure: {line}")))
        .collect()
}

impl Row {
    fn line(&self) -> String {
        let (low, high) = self.range();
        let (name, unit, median, n) = (&self.name, &self.unit, self.median(), self.runs.len());
        let budget = match self.budget {
            None => String::new(),
            Some(most) if median <= most => format!("within {most}"),
            Some(most) => format!("OVER {most}"),
        };
        let line =
            format!("{name:<32} {median:>10.2} {unit:<6} {low:>10.2} .. {high:<10.2} n={n:<5} {budget}");
        line.trim_end().to_owned()
    }

    fn json(&self) -> serde_json::Value {
        let (low, high) = self.range();
        json!({
            "name": self.name, "unit": self.unit, "budget": self.budget, "median": self.median(), "min": low,
            "max": high, "runs": self.runs.len(),
        })
    }

    fn median(&self) -> f64 {
        let mut sorted = self.runs.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
    }

    fn range(&self) -> (f64, f64) {
        let fold = |pick: fn(f64, f64) -> f64| self.runs.iter().copied().reduce(pick).unwrap_or(f64::NAN);
        (fold(f64::min), fold(f64::max))
    }
}

/// Crates that are compiled into the agent, the agent among them; each version counts.
fn crates_in_agent() -> Result<usize> {
    let mut cargo = workspace::cargo();
    cargo.args(["tree", "--locked", "--package", "husk-agent", "--edges", "normal", "--prefix", "none"]);
    cargo.args(["--target", Arch::host().row().rust_triple, "--format", "{p}"]);
    let output = cargo.output().context("cannot run cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(distinct(&String::from_utf8_lossy(&output.stdout)))
}

/// A line is "name version", with "(*)" behind it where the tree shows a crate once more.
fn distinct(tree: &str) -> usize {
    let name = |line: &str| line.split(" (").next().unwrap_or(line).trim().to_owned();
    tree.lines().map(name).filter(|name| !name.is_empty()).collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_counts_once() {
        assert_eq!(
            distinct("husk-agent v0.1.0 (/x)\nlibc v0.2.1\nnix v0.31.0\nlibc v0.2.1 (*)\nlibc v0.1.0\n\n"),
            4
        );
    }

    #[test]
    fn median_and_range() {
        let row =
            |runs: &[f64]| Row { name: "x".into(), unit: "s".into(), budget: None, runs: runs.to_vec() };
        assert!((row(&[3.0, 1.0, 2.0]).median() - 2.0).abs() < 1e-9);
        assert!((row(&[4.0, 1.0, 2.0, 3.0]).median() - 2.5).abs() < 1e-9);
        assert_eq!(row(&[3.0, 1.0, 2.0]).range(), (1.0, 3.0));
        let judged = |budget| Row { budget: Some(budget), ..row(&[3.0, 1.0, 2.0]) }.line();
        assert!(judged(2.0).ends_with("within 2") && judged(1.5).ends_with("OVER 1.5"));
        assert!(row(&[1.0]).line().ends_with("n=1"));
    }
}
