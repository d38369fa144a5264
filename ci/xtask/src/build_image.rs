//! `cargo xtask build-image`: agent, ramdisk and kernel, and the manifest that names them.

use anyhow::Result;
use guest_arch::Arch;
use guest_inputs::{Cache, Progress};
use rootfs_builder::agent::Profile;
use rootfs_builder::{Image, Toolchain, agent};

use crate::{deps, stage::Stages, workspace};

pub(crate) fn run(arch: Arch, install_deps: bool) -> Result<()> {
    deps::ensure(&[deps::KERNEL, deps::AGENT], install_deps)?;
    let mut stages = Stages::default();
    let image = build(arch, Profile::Guest, &mut stages)?;
    for artefact in image.manifest.artefacts() {
        println!("{:<16} {:>10} bytes  {}", artefact.file, artefact.size, artefact.sha256);
    }
    println!("{}", image.dir.display());
    eprint!("{}", stages.table());
    Ok(())
}

/// The stages that other commands have in common with this one. What is not meant to ship stays out of `out/`.
pub(crate) fn build(arch: Arch, profile: Profile, stages: &mut Stages) -> Result<Image> {
    let (cache, progress) = (Cache::open()?, Progress::new());
    let toolchain = stages.run("toolchain", || Ok(Toolchain::prepare(&cache, arch, &progress)?))?;
    let agent = stages.run("agent", || {
        Ok(agent::build(&workspace::root(), &workspace::target(), &toolchain, profile, &progress)?)
    })?;
    stages.run("kernel", || {
        Ok(::kernel_config::build(&cache, arch, ::kernel_config::Variant::Lean, &progress)?)
    })?;
    let out = match profile {
        Profile::Guest => workspace::out(),
        Profile::Quick => workspace::target().join("quick"),
    };
    stages.run("image", || Ok(rootfs_builder::build_image(&cache, arch, &agent, &out, &progress)?))
}
