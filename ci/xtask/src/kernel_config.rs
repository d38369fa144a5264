//! `cargo xtask kernel-config check`: what the kernels' fragments, lists and golden configurations promise, for every
//! architecture and variant, without compiling a kernel.

use ::kernel_config::{Checked, Variant};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use guest_arch::Arch;
use guest_inputs::{Cache, Progress};

use crate::deps;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Resolve configurations and judge them: requests, lost defaults, lists, golden files
    Check(Options),
}

#[derive(Args)]
pub(crate) struct Options {
    /// Only this architecture; may be given more than once
    #[arg(long)]
    arch: Vec<Arch>,
    /// Only this variant; may be given more than once
    #[arg(long)]
    variant: Vec<Variant>,
    /// Rewrite the golden configurations and show what changed
    #[arg(long)]
    update: bool,
    /// Install the Debian packages that are missing
    #[arg(long)]
    install_deps: bool,
}

pub(crate) fn run(command: &Command) -> Result<()> {
    let Command::Check(options) = command;
    check(options)
}

/// Every configuration, as it is checked in.
pub(crate) fn check_all() -> Result<()> {
    check(&Options { arch: Vec::new(), variant: Vec::new(), update: false, install_deps: false })
}

fn check(options: &Options) -> Result<()> {
    let arches = or_all(&options.arch, &Arch::ALL);
    let variants = or_all(&options.variant, &Variant::ALL);
    deps::ensure(&[&deps::kernel(&arches, &variants)], options.install_deps)?;
    let outcome =
        ::kernel_config::check(&Cache::open()?, &arches, &variants, options.update, &Progress::new())?;
    for config in &outcome.configs {
        println!("{}", title(config, options.update));
        for finding in &config.findings {
            println!("    {finding}");
        }
        for line in &config.difference {
            println!("    {line}");
        }
    }
    for entry in &outcome.stale {
        println!("{entry}");
    }
    if !outcome.is_good(options.update) {
        bail!(
            "the kernels' configurations are not as they should be; `--update` accepts what differs from golden"
        );
    }
    Ok(())
}

fn title(config: &Checked, update: bool) -> String {
    let Checked { arch, variant, on, findings, difference } = config;
    let verdict = match (findings.len(), difference.len()) {
        (0, 0) => "good".to_owned(),
        (0, changed) if update => format!("{changed} lines of the golden configuration changed"),
        (found, changed) => format!("{found} findings, {changed} lines differ from the golden configuration"),
    };
    format!("{arch:<12} {variant:<9} {on:>5} on   {verdict}")
}

fn or_all<T: Copy>(asked: &[T], all: &[T]) -> Vec<T> {
    if asked.is_empty() { all.to_vec() } else { asked.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_for_is_everything() {
        assert_eq!(or_all(&[], &Arch::ALL), Arch::ALL);
        assert_eq!(or_all(&[Arch::S390x], &Arch::ALL), [Arch::S390x]);
    }

    #[test]
    fn an_accepted_difference_is_told_as_such() {
        let difference = vec!["+CONFIG_A=y".to_owned()];
        let config =
            Checked { arch: Arch::S390x, variant: Variant::Lean, on: 780, findings: vec![], difference };
        assert!(title(&config, true).ends_with("780 on   1 lines of the golden configuration changed"));
        assert!(title(&config, false).ends_with("0 findings, 1 lines differ from the golden configuration"));
    }
}
