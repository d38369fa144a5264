//! Chores of this repository: `cargo xtask <command>`. One file per command, each a thin layer over the library crates.

mod bench;
mod bench_boot;
mod bench_hardening;
mod build_image;
mod check_reproducible;
mod demo;
mod deps;
mod fuzz;
mod husk;
mod image;
mod kernel;
mod kernel_config;
mod lock;
mod scratch;
mod stage;
mod test;
mod verify_image;
mod vsock_device;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use guest_arch::Arch;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of this repository", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build everything for this machine and run a container in its own VM
    Demo {
        /// Install the Debian packages that are missing
        #[arg(long)]
        install_deps: bool,
    },
    /// Check formatting, lints, unit tests and end-to-end tests
    Test(test::Options),
    /// Build what a VM boots, by recipe and architecture, into out/<arch>/<recipe>
    BuildImage(build_image::Options),
    /// Build twice, as different users in different places, and compare every byte
    CheckReproducible(check_reproducible::Options),
    /// Look into finished artefacts
    #[command(subcommand)]
    Image(image::Command),
    /// Write down every input of every artefact, and say what has changed
    Lock(lock::Options),
    /// Check that artefacts are what their manifest says
    VerifyImage(verify_image::Options),
    /// Build the guest's kernel into the cache
    Kernel {
        /// Architecture of the guest
        #[arg(long, default_value_t = Arch::host())]
        arch: Arch,
        /// What kind of kernel: lean, debug or hardened
        #[arg(long, default_value_t)]
        variant: ::kernel_config::Variant,
        /// Install the Debian packages that are missing
        #[arg(long)]
        install_deps: bool,
    },
    /// Judge the kernels' configurations without compiling a kernel
    KernelConfig {
        #[command(subcommand)]
        command: kernel_config::Command,
    },
    /// Measure what this repository builds
    Bench {
        /// Where the time of a boot goes instead, by counting instructions
        #[arg(long, conflicts_with = "json")]
        boot: bool,
        /// What the kernel's defences cost instead, by counting instructions
        #[arg(long, conflicts_with_all = ["json", "boot"])]
        hardening: bool,
        /// With --hardening, another kernel to measure; may be given more than once
        #[arg(long, value_name = "FILE", requires = "hardening")]
        kernel: Vec<std::path::PathBuf>,
        /// With --boot, the architecture of the guest; may be given more than once
        #[arg(long, requires = "boot", default_values_t = [Arch::host()])]
        arch: Vec<Arch>,
        /// Write the figures to this file too
        #[arg(long)]
        json: Option<std::path::PathBuf>,
        /// Install the Debian packages that are missing
        #[arg(long)]
        install_deps: bool,
    },
    /// Feed what agent and builder read from strangers with what strangers might write; needs nightly Rust
    Fuzz {
        /// One of the programs of agent/fuzz and rootfs-builder/fuzz; all of them, one after the other, if none is named
        target: Option<String>,
        /// How long each of them runs
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}"); // causes in one line; a backtrace, which `?` in main would add, names only us
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode> {
    let done = match command {
        Command::Demo { install_deps } => demo::run(install_deps),
        Command::Test(options) => return test::run(&options),
        Command::BuildImage(options) => build_image::run(&options),
        Command::CheckReproducible(options) => check_reproducible::run(&options),
        Command::Image(command) => image::run(&command),
        Command::Lock(options) => lock::run(&options),
        Command::VerifyImage(options) => verify_image::run(&options),
        Command::Kernel { arch, variant, install_deps } => kernel::run(arch, variant, install_deps),
        Command::KernelConfig { command } => kernel_config::run(&command),
        Command::Bench { boot: true, arch, install_deps, .. } => bench_boot::run(&arch, install_deps),
        Command::Bench { hardening: true, kernel, install_deps, .. } => {
            bench_hardening::run(&kernel, install_deps)
        }
        Command::Bench { json, install_deps, .. } => bench::run(json.as_deref(), install_deps),
        Command::Fuzz { target, seconds } => fuzz::run(target.as_deref(), seconds),
    };
    done.map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_option_that_another_one_names_is_there() {
        Cli::command().debug_assert();
    }
}
