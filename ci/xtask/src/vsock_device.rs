//! The vhost-device-vsock daemon, which Debian 12 does not package: built from crates.io, once, into the cache.
//!
//! The vsock tests need it. It is a tool of the tests and goes into no artefact.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, Result, bail};
use guest_inputs::{Cache, Key, Progress};

use crate::workspace;

/// The version the tests were written with. `--locked` pins what it depends on, crates.io's digests pin the rest.
const VERSION: &str = "0.3.0";

/// Builds the daemon unless the cache has it; returns the directory it is in.
pub(crate) fn build(cache: &Cache, progress: &Progress) -> Result<PathBuf> {
    let key =
        Key::new("vhost-device-vsock/v1").field("version", VERSION).field("host", std::env::consts::ARCH);
    let entry = cache.build("tool", &key, |into| -> Result<()> {
        progress.task("vhost-device-vsock").doing("building from crates.io");
        let mut cargo = workspace::cargo();
        cargo
            .args(["install", "--quiet", "--locked", "--no-track", "--version", VERSION, "--root"])
            .arg(into);
        cargo.arg("--target-dir").arg(into.join("build")).arg("vhost-device-vsock");
        let status = cargo.stdin(Stdio::null()).status().context("cannot run cargo install")?;
        if !status.success() {
            bail!("cargo install vhost-device-vsock {VERSION} failed ({status})");
        }
        std::fs::remove_dir_all(into.join("build")).context("cannot remove the build directory")
    })?;
    Ok(entry.join("bin"))
}
