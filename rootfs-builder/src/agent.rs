//! The agent's binary: static, small, and without a trace of the machine that built it.

use std::{
    fs::{self, File},
    path::Path,
};

use guest_inputs::Progress;
use guest_tree::Content;

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

/// Which agent, and from where.
#[derive(Debug)]
pub struct Request<'a> {
    /// The workspace it is a package of.
    pub workspace: &'a Path,
    /// Cargo's directory; this build has its own in it.
    pub target: &'a Path,
    /// How much time the compiler may take.
    pub profile: Profile,
    /// What it is built with beyond its usual.
    pub features: &'a [String],
    /// Whether cargo has to do with the crates that are on this machine.
    pub offline: bool,
}

/// Builds the agent; gives the binary.
pub fn build(request: &Request<'_>, toolchain: &Toolchain, progress: &Progress) -> Result<Content, Error> {
    let task = progress.task("agent");
    task.doing("building");
    let target = request.target.join("guest");
    // Held until the binary is read: cargo leaves agents of other features under the same name.
    fs::create_dir_all(&target).map_err(at("create", &target))?;
    let lock = target.join(".husk.lock");
    let lock_file = File::create(&lock).map_err(at("create", &lock))?;
    lock_file.lock().map_err(at("lock", &lock))?;

    let (mut cargo, mut flags) = toolchain.cargo_build();
    // The last that matches wins: what is generated lies below the workspace.
    flags.push(format!("--remap-path-prefix={}=/husk", request.workspace.display()));
    flags.push(format!("--remap-path-prefix={}=/husk/target", target.display()));
    flags.extend(remap_cargo_home());
    let profile = request.profile.name();
    cargo.args(["--locked", "--package", PACKAGE, "--bin", PACKAGE, "--profile", profile]);
    cargo.arg("--features").arg(request.features.join(","));
    cargo.args(request.offline.then_some("--offline"));
    cargo.arg("--target-dir").arg(&target).current_dir(request.workspace);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", encoded_flags(&flags));
    command::run("agent", &mut cargo, &task)?;
    let binary = target.join(toolchain.arch().row().rust_triple).join(profile).join(PACKAGE);
    let bytes = fs::read(&binary).map_err(at("read", &binary))?;
    match elf::not_static(&bytes) {
        None => Ok(bytes.into()),
        Some(what) => Err(Error::NotStatic { path: binary, what: what.to_owned() }),
    }
}
