//! `cargo xtask demo`: from this repository to the output of a program in a container, in a VM, on our kernel.

use std::process::Command;

use ::kernel_config::Variant;
use anyhow::{Context, Result, bail};
use guest_arch::Arch;
use guest_inputs::{Cache, Progress};
use rootfs_builder::agent::Profile;

use crate::{build_image, deps, husk, stage::Stages};

/// What the container runs: its kernel, what PID 1 is to it, its memory and its user.
const SCRIPT: &str = "uname -a; echo \"pid 1: $(cat /proc/1/comm)\"; grep MemTotal /proc/meminfo; id";

pub(crate) fn run(install_deps: bool) -> Result<()> {
    let mut stages = Stages::default();
    stages.run("packages", || {
        let kernel = deps::kernel(&[Arch::host()], &[Variant::Lean]);
        deps::ensure(&[&kernel, deps::AGENT, &deps::vm(&[Arch::host()])], install_deps)
    })?;
    let arch = Arch::host();
    let image = build_image::minimal(arch, Profile::Guest, &mut stages)?;
    let layout = stages.run("container image", || {
        Ok(rootfs_builder::demo_image(&Cache::open()?, arch, &Progress::new())?)
    })?;
    let husk = stages.run("husk", husk::build)?;
    stages.run("container", || {
        let mut command = Command::new(&husk);
        command.env("HUSK_ARTEFACTS", &image.dir);
        command.args(["run", "--rm", "--image", &format!("oci:{}:latest", layout.display())]);
        command.args([&format!("demo-{}", std::process::id()), "--", "sh", "-c", SCRIPT]);
        let status = command.status().with_context(|| format!("cannot run {}", husk.display()))?;
        if !status.success() {
            bail!("husk run failed ({status})");
        }
        Ok(())
    })?;
    print!("\n{}", stages.table());
    Ok(())
}
