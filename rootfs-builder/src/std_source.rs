//! Rust's standard library for a target that rustup does not have here, built once from Debian's `rust-src` into a sysroot
//! of its own in the cache. The user's toolchain is left as it is.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use guest_arch::Arch;
use guest_inputs::{Cache, Key, Pin, Progress, fetch, unpack_deb};
use serde::Deserialize;

use crate::{
    command::{self, encoded_flags},
    error::{Error, at},
    toolchain::{Rustc, STATIC, cargo_program},
};

const FILE: &str = "rootfs-builder/toolchain.toml";
const PINS: &str = include_str!("../toolchain.toml");

/// Why each: static, so that there is no shared library of it, which only a linker for the target could make; no start
/// files of rustc's own (zig has them); bitcode, so that the agent's link-time optimisation sees the standard library;
/// its crates marked unstable, as everywhere but in rustc's own build.
const FLAGS: [&str; 4] =
    [STATIC, "-Clink-self-contained=no", "-Cembed-bitcode=yes", "-Zforce-unstable-if-unmarked"];
/// Small, and no backtraces, which say nothing about a stripped binary: that spares the agent a DWARF reader.
const FEATURES: &str = "panic-unwind,optimize_for_size";
const OPT_LEVEL: &str = "s";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pins {
    #[serde(rename = "std-source")]
    sources: Vec<StdSource>,
}

#[derive(Deserialize)]
struct StdSource {
    /// The rustc it belongs to.
    rust: String,
    #[serde(flatten)]
    pin: Pin,
}

/// The sysroot with the standard library for `arch`.
pub(crate) fn sysroot(
    cache: &Cache,
    arch: Arch,
    rustc: &Rustc,
    progress: &Progress,
) -> Result<PathBuf, Error> {
    let triple = arch.row().rust_triple;
    let pin = choose(PINS, &rustc.release, triple)?;
    let key = Key::new("std/v1")
        .field("rustc", &rustc.verbose)
        .field("source", &pin.sha256)
        .field("target", triple)
        .field("flags", encoded_flags(&FLAGS.map(str::to_owned)))
        .field("features", FEATURES)
        .field("opt-level", OPT_LEVEL);
    cache.build("std", &key, |into| {
        let deb = fetch(cache, &pin, progress)?;
        let task = progress.task("std");
        task.doing("unpacking the standard library's source");
        let source = into.join("source");
        unpack_deb(&deb, &source)?;
        let library = source.join(format!("usr/src/rustc-{}/library", rustc.release));
        let target = into.join("target");
        let mut cargo = build_command(&library, &target, triple);
        cargo.args(cache.is_offline().then_some("--offline"));
        command::run("std", &mut cargo, &task)?;
        let libraries = target.join(triple).join("release/deps");
        install(&libraries, &into.join("lib/rustlib").join(triple).join("lib"), triple)?;
        for scratch in [source, target] {
            fs::remove_dir_all(&scratch).map_err(at("remove", &scratch))?;
        }
        Ok(())
    })
}

/// The way rustc's own build does it: in the library's workspace, by its lock file. Members of a workspace are hashed by
/// their place in it, so the result does not depend on where the cache is.
fn build_command(library: &Path, target: &Path, triple: &str) -> std::process::Command {
    let mut flags = FLAGS.map(str::to_owned).to_vec();
    flags.push(format!("--remap-path-prefix={}=/rust/library", library.display()));
    flags.extend(remap_cargo_home());
    let mut cargo = command::cargo(&cargo_program());
    cargo.args(["build", "--release", "--locked", "--target", triple, "--features", FEATURES]);
    cargo.arg("--manifest-path").arg(library.join("sysroot/Cargo.toml")).arg("--target-dir").arg(target);
    cargo.current_dir(library);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", encoded_flags(&flags));
    cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", OPT_LEVEL);
    cargo.env("RUSTC_BOOTSTRAP", "1"); // the library uses unstable features of its own compiler
    cargo.env("__CARGO_DEFAULT_LIB_METADATA", "husk"); // libstd gets a hash in its name like all others
    cargo
}

/// The name a crate's source has in panic messages, instead of a path of this machine.
pub(crate) fn remap_cargo_home() -> Option<String> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))?;
    Some(format!("--remap-path-prefix={}=/cargo", home.display()))
}

fn install(from: &Path, to: &Path, triple: &'static str) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(at("create", to))?;
    let mut has_std = false;
    for entry in fs::read_dir(from).map_err(at("list", from))? {
        let path = entry.map_err(at("list", from))?.path();
        let name = path.file_name().unwrap_or_default().to_owned();
        if path.extension().is_some_and(|e| e == "rlib") {
            fs::rename(&path, to.join(&name)).map_err(at("move", &path))?;
            has_std |= name.to_string_lossy().starts_with("libstd-");
        }
    }
    if has_std { Ok(()) } else { Err(Error::NoStd { triple, library: "libstd" }) }
}

/// All that are pinned, one for each rustc.
pub(crate) fn pins() -> Result<Vec<Pin>, Error> {
    Ok(parse(PINS)?.sources.into_iter().map(|source| source.pin).collect())
}

/// The one for a rustc.
pub(crate) fn pin_for(release: &str, triple: &'static str) -> Result<Pin, Error> {
    choose(PINS, release, triple)
}

fn parse(pins: &str) -> Result<Pins, Error> {
    toml::from_str(pins).map_err(|e| Error::PinFile { file: FILE, source: Box::new(e) })
}

fn choose(pins: &str, release: &str, triple: &'static str) -> Result<Pin, Error> {
    let pins = parse(pins)?;
    let pinned = pins.sources.iter().map(|s| s.rust.as_str()).collect::<Vec<_>>().join(", ");
    let found = pins.sources.into_iter().find(|s| s.rust == release);
    found.map(|s| s.pin).ok_or_else(|| Error::NoStdSource { rustc: release.to_owned(), triple, pinned })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_toolchain_file_has_its_source() {
        let toolchain: toml::Table = toml::from_str(include_str!("../../rust-toolchain.toml")).unwrap();
        let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
        assert!(choose(PINS, channel, "t").unwrap().path.contains(channel));
    }

    #[test]
    fn another_rustc_is_told_what_to_do() {
        let error = choose(PINS, "1.96.0", "x86_64-unknown-linux-musl").unwrap_err().to_string();
        assert!(error.contains("rustc 1.96.0 has no x86_64-unknown-linux-musl target"), "{error}");
        assert!(error.contains("rootfs-builder/toolchain.toml") && error.contains("1.95.0"), "{error}");
    }

    #[test]
    fn a_wrong_pin_file_is_named() {
        let error = choose("[[std-source]]\nrust = 1\n", "1.95.0", "t").unwrap_err().to_string();
        assert!(error.starts_with("rootfs-builder/toolchain.toml: "), "{error}");
    }
}
