//! The host runtime as it ships: built with optimisation, because that is what the demo shows and the tests test.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Builds `husk` and says where it is.
pub(crate) fn build() -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "--release", "--package", "husk", "--bin", "husk"]).stdin(Stdio::null());
    let status = cargo.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("cargo build of husk failed ({status})");
    }
    Ok(workspace::target().join("release/husk"))
}
