//! The agent's binary: static, small, and without a trace of the machine that built it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use guest_inputs::Progress;

use crate::{
    Toolchain,
    command::{self, encoded_flags},
    elf,
    error::{Error, at},
    std_source::remap_cargo_home,
};

/// The package in the workspace, and its binary.
const PACKAGE: &str = "husk-agent";

/// How much time the compiler may take: a profile in the root's Cargo.toml.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// What ships.
    Guest,
    /// For a developer's next test run.
    Quick,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Profile::Guest => "guest",
            Profile::Quick => "guest-quick",
        }
    }
}

/// Builds the agent of the workspace at `workspace`. `target` is cargo's directory; this build has its own in it.
pub fn build(
    workspace: &Path,
    target: &Path,
    toolchain: &Toolchain,
    profile: Profile,
    progress: &Progress,
) -> Result<PathBuf, Error> {
    let task = progress.task("agent");
    task.doing("building");
    let target = target.join("guest");
    let (mut cargo, mut flags) = toolchain.cargo_build();
    // The last that matches wins: what is generated lies below the workspace.
    flags.push(format!("--remap-path-prefix={}=/husk", workspace.display()));
    flags.push(format!("--remap-path-prefix={}=/husk/target", target.display()));
    flags.extend(remap_cargo_home());
    cargo.args(["--locked", "--package", PACKAGE, "--bin", PACKAGE, "--profile", profile.name()]);
    cargo.arg("--target-dir").arg(&target).current_dir(workspace);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", encoded_flags(&flags));
    command::run("agent", &mut cargo, &task)?;
    let binary = target.join(toolchain.arch().row().rust_triple).join(profile.name()).join(PACKAGE);
    let bytes = fs::read(&binary).map_err(at("read", &binary))?;
    match elf::not_static(&bytes) {
        None => Ok(binary),
        Some(what) => Err(Error::NotStatic { path: binary, what: what.to_owned() }),
    }
}
