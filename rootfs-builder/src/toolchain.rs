//! A compiler for static musl binaries: rustup's own target where it is installed, else a standard library and a linker
//! that we make. There is no third way: without musl there is no agent.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use guest_arch::Arch;
use guest_inputs::{Cache, Progress};

use crate::{command, error::Error, libseccomp, std_source, zig::Zig};

/// How static binaries for one architecture are built here.
#[derive(Debug, Clone)]
pub struct Toolchain {
    arch: Arch,
    kind: Kind,
    /// Where the static libseccomp is.
    libseccomp: PathBuf,
}

#[derive(Debug, Clone)]
enum Kind {
    /// `rustup target add` was run: the target brings its standard library, musl and start files.
    Installed,
    /// A sysroot in the cache, and zig, which has musl.
    Made { sysroot: PathBuf, zig: Zig },
}

/// What makes a program of every target a static one: x86_64 and aarch64 are so with musl unless told otherwise, the
/// others are not.
pub(crate) const STATIC: &str = "-Ctarget-feature=+crt-static";

/// What rustc says about itself.
#[derive(Debug, Clone)]
pub(crate) struct Rustc {
    /// All of `rustc -vV`: version, commit, LLVM.
    pub(crate) verbose: String,
    /// "1.95.0".
    pub(crate) release: String,
}

impl Toolchain {
    /// Finds what is installed, or makes what is missing: for a minute or two the first time, at once after that.
    pub fn prepare(cache: &Cache, arch: Arch, progress: &Progress) -> Result<Self, Error> {
        // For C in any case: no compiler of the machine's own knows every target.
        let zig = Zig::prepare(cache, progress)?;
        let libseccomp = libseccomp::build(cache, arch, &zig, progress)?;
        let kind = if is_installed(arch.row().rust_triple)? {
            Kind::Installed
        } else {
            let sysroot = std_source::sysroot(cache, arch, &Rustc::ask()?, progress)?;
            Kind::Made { sysroot, zig }
        };
        Ok(Toolchain { arch, kind, libseccomp })
    }

    /// The architecture it compiles for.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Where the standard library comes from, for a person: "rustup" or "built".
    #[must_use]
    pub fn origin(&self) -> &'static str {
        match self.kind {
            Kind::Installed => "rustup",
            Kind::Made { .. } => "built",
        }
    }

    /// Whether the standard library is compiled by us, from Debian's source.
    pub(crate) fn makes_std(&self) -> bool {
        matches!(self.kind, Kind::Made { .. })
    }

    /// `cargo build` for the target, ready for a package and a profile; and the compiler flags that go with it.
    pub(crate) fn cargo_build(&self) -> (Command, Vec<String>) {
        let (mut cargo, mut flags) = match &self.kind {
            Kind::Installed => {
                let mut cargo = command::cargo(&cargo_program());
                cargo.arg("build");
                // The target has all a linker needs, and rustc brings a linker that knows every architecture.
                (cargo, vec!["-Clinker=rust-lld".to_owned(), "-Clink-self-contained=yes".to_owned()])
            }
            Kind::Made { sysroot, zig } => {
                let sysroot = format!("--sysroot={}", sysroot.display());
                (zig.cargo(), vec![sysroot, "-Clink-self-contained=no".to_owned()])
            }
        };
        flags.push(STATIC.to_owned());
        cargo.args(["--target", self.arch.row().rust_triple]);
        cargo.env("LIBSECCOMP_LINK_TYPE", "static").env("LIBSECCOMP_LIB_PATH", &self.libseccomp);
        (cargo, flags)
    }
}

impl Rustc {
    /// Release and commit, without the machine it runs on: "1.95.0 (0123456 2026-04-14)".
    pub(crate) fn identity(&self) -> String {
        let first = self.verbose.lines().next().unwrap_or_default();
        first.strip_prefix("rustc ").unwrap_or(first).to_owned()
    }

    pub(crate) fn ask() -> Result<Self, Error> {
        let verbose = rustc(&["-vV"])?;
        let release = verbose.lines().find_map(|l| l.strip_prefix("release: ")).map(str::to_owned);
        Ok(Rustc { release: release.ok_or(Error::Rustc("its release"))?, verbose })
    }
}

/// The cargo that runs us, if one does.
pub(crate) fn cargo_program() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Whether the target's directory holds a standard library: its name is printed even where it does not exist.
fn is_installed(triple: &str) -> Result<bool, Error> {
    let directory = rustc(&["--print", "target-libdir", "--target", triple])?;
    Ok(has_std(Path::new(directory.trim())))
}

fn has_std(directory: &Path) -> bool {
    let is_std = |name: &str| name.starts_with("libstd-") && name.ends_with(".rlib");
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|e| e.file_name()).any(|name| is_std(&name.to_string_lossy()))
}

fn rustc(arguments: &[&str]) -> Result<String, Error> {
    let program = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let stage = "toolchain";
    let output = Command::new(&program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|source| Error::Start { stage, program: program.clone(), source })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::Failed { stage, program, status: output.status, output: text });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_is_no_target() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_std(dir.path()));
        assert!(!has_std(&dir.path().join("missing")));
        fs::write(dir.path().join("libstd-1234.rlib"), "").unwrap();
        assert!(has_std(dir.path()));
    }

    #[test]
    fn the_host_target_is_installed() {
        let host = Rustc::ask().unwrap();
        let triple = host.verbose.lines().find_map(|l| l.strip_prefix("host: ")).unwrap();
        assert!(is_installed(triple).unwrap());
    }
}
