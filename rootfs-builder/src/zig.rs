//! The linker for static musl binaries: zig and cargo-zigbuild, installed by hash from PyPI into the cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use guest_inputs::{Cache, Key, Progress};

use crate::{
    command,
    error::{Error, at},
};

/// Versions and hashes.
const REQUIREMENTS: &str = include_str!("../requirements.txt");

/// One file that pip may install.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wheel {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) sha256: String,
}

/// All that are pinned: of each program one for each architecture of a host.
pub(crate) fn wheels() -> Vec<Wheel> {
    let mut wheels = Vec::new();
    let mut current = None;
    let lines = REQUIREMENTS.lines().filter(|line| !line.starts_with('#'));
    for word in lines.flat_map(|line| line.split_ascii_whitespace()) {
        if let Some(named) = word.split_once("==") {
            current = Some(named);
        } else if let (Some((name, version)), Some(sha256)) = (current, word.strip_prefix("--hash=sha256:")) {
            let [name, version, sha256] = [name, version, sha256].map(str::to_owned);
            wheels.push(Wheel { name, version, sha256 });
        }
    }
    wheels
}

/// An installed linker.
#[derive(Debug, Clone)]
pub(crate) struct Zig {
    /// The cargo that links with zig.
    pub(crate) cargo_zigbuild: PathBuf,
    /// zig itself.
    pub(crate) zig: PathBuf,
    /// Where both keep what they make: musl and libunwind for each target, linker scripts.
    pub(crate) work: PathBuf,
}

impl Zig {
    pub(crate) fn prepare(cache: &Cache, progress: &Progress) -> Result<Self, Error> {
        // The machine too, for a home directory that two kinds of machines share.
        let key =
            Key::new("zig/v1").field("requirements", REQUIREMENTS).field("host", std::env::consts::ARCH);
        let entry = cache.build("zig", &key, |into| {
            if cache.is_offline() {
                let what = "zig (rootfs-builder/requirements.txt)".to_owned();
                return Err(guest_inputs::Error::Offline { what }.into());
            }
            let task = progress.task("zig");
            task.doing("installing zig and cargo-zigbuild");
            // pip comes with a virtual environment, which cannot be moved; what it installs with --target can.
            let venv = into.join("venv");
            let mut python = Command::new("python3");
            command::run("zig", python.arg("-m").arg("venv").arg(&venv), &task)?;
            let requirements = into.join("requirements.txt");
            fs::write(&requirements, REQUIREMENTS).map_err(at("write", &requirements))?;
            let mut pip = Command::new(venv.join("bin/python3"));
            pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]);
            pip.args([
                "--no-deps",
                "--only-binary=:all:",
                "--no-compile",
                "--require-hashes",
                "--requirement",
            ]);
            pip.arg(&requirements).arg("--target").arg(into.join("site"));
            pip.env("TMPDIR", into); // on the same file system: 370 MB are moved, not copied
            command::run("zig", &mut pip, &task)?;
            fs::remove_dir_all(&venv).map_err(at("remove", &venv))
        })?;
        let site = entry.join("site");
        Ok(Zig {
            cargo_zigbuild: site.join("bin/cargo-zigbuild"),
            zig: site.join("ziglang/zig"),
            work: cache.for_tool("zig")?,
        })
    }

    /// What tells this compiler from another one, for the key of what it makes.
    pub(crate) fn version(&self) -> &'static str {
        REQUIREMENTS
    }

    /// `zig cc`, a C compiler that brings every target's headers, ready for the arguments of a compiler.
    pub(crate) fn compiler(&self) -> Command {
        self.tool("cc")
    }

    /// `zig ar`.
    pub(crate) fn archiver(&self) -> Command {
        self.tool("ar")
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(&self.zig);
        command.arg(name);
        command.env("ZIG_GLOBAL_CACHE_DIR", self.work.join("zig"));
        command.env("ZIG_LOCAL_CACHE_DIR", self.work.join("zig-local"));
        command
    }

    /// `cargo zigbuild`, ready for the arguments of `cargo build`.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = command::cargo(Path::new(&self.cargo_zigbuild));
        cargo.arg("zigbuild");
        cargo.env("CARGO_ZIGBUILD_ZIG_PATH", &self.zig);
        cargo.env("CARGO_ZIGBUILD_CACHE_DIR", &self.work);
        cargo.env("ZIG_GLOBAL_CACHE_DIR", self.work.join("zig"));
        cargo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hash_belongs_to_a_program() {
        let wheels = wheels();
        assert_eq!(wheels.len(), REQUIREMENTS.matches("--hash=sha256:").count());
        for name in ["ziglang", "cargo-zigbuild"] {
            assert!(wheels.iter().any(|wheel| wheel.name == name && wheel.sha256.len() == 64), "{name}");
        }
    }
}
