//! libseccomp for the agent: a static library, compiled from the pinned release with the linker's own C compiler.
//!
//! Its configure script and makefiles are left out. All they would find out is that the kernel's header is there, and the
//! table of system calls that they would generate comes with the release.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use guest_arch::Arch;
use guest_inputs::{Cache, Key, Pin, Progress, Task, fetch, unpack_tar};

use crate::{
    command,
    error::{Error, at},
    zig::Zig,
};

const FILE: &str = "rootfs-builder/libseccomp.toml";
const PIN: &str = include_str!("../libseccomp.toml");
const LIBRARY: &str = "libseccomp.a";

/// Small; without a word about this machine; each function by itself, so that the linker can leave out what the agent does
/// not call.
const FLAGS: [&str; 7] = [
    "-Os",
    "-g0",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-sanitize=all",
];

/// What the configure script would have written.
const CONFIGURATION: &str = "#define HAVE_LINUX_SECCOMP_H 1\n";

/// A program of its own among the sources, for libseccomp's maintainers.
const NOT_OF_THE_LIBRARY: &str = "arch-syscall-dump.c";

/// The directory with the library for `arch`.
pub(crate) fn build(cache: &Cache, arch: Arch, zig: &Zig, progress: &Progress) -> Result<PathBuf, Error> {
    let pin = pin()?;
    let target = target_of(arch);
    let key = Key::new("libseccomp/v1")
        .field("source", &pin.sha256)
        .field("compiler", zig.version())
        .field("target", &target)
        .field("flags", FLAGS.join(" "));
    cache.build("libseccomp", &key, |into| {
        let archive = fetch(cache, &pin, progress)?;
        let task = progress.task("libseccomp");
        task.doing("unpacking the source");
        let work = into.join("work");
        unpack_tar(&archive, &work)?;
        let source = work.join(format!("{}-{}", pin.name, pin.version));
        let objects = compile(zig, &source, &target, &task)?;
        let mut archiver = zig.archiver();
        // Times, owners and modes of the members are left out.
        archiver.arg("rcsD").arg(into.join(LIBRARY)).args(objects);
        command::run("libseccomp", &mut archiver, &task)?;
        fs::remove_dir_all(&work).map_err(at("remove", &work))
    })
}

/// One object for each source file, in the order of their names.
fn compile(zig: &Zig, source: &Path, target: &str, task: &Task) -> Result<Vec<PathBuf>, Error> {
    let configuration = source.join("configure.h");
    fs::write(&configuration, CONFIGURATION).map_err(at("write", &configuration))?;
    let directory = source.join("src");
    let entries = fs::read_dir(&directory).map_err(at("list", &directory))?;
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| is_ours(path)).collect();
    files.sort();
    let mut objects = Vec::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        task.at("compiling", &name);
        let object = file.with_extension("o");
        let mut compiler = zig.compiler();
        compiler.args(["-target", target, "-c"]).args(FLAGS);
        compiler.arg(format!("-ffile-prefix-map={}=/libseccomp", source.display()));
        compiler.arg("-I").arg(source).arg("-I").arg(source.join("include"));
        compiler.arg("-o").arg(&object).arg(&file);
        command::run("libseccomp", &mut compiler, task)?;
        objects.push(object);
    }
    Ok(objects)
}

/// `syscalls.perf.c` too, which is the generated table.
fn is_ours(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("c")) && path.file_name() != Some(OsStr::new(NOT_OF_THE_LIBRARY))
}

/// What zig calls the target that Rust calls `x86_64-unknown-linux-musl`.
fn target_of(arch: Arch) -> String {
    let triple = arch.row().rust_triple;
    // Rust says more of RISC-V than zig wants to hear.
    let cpu = triple.split('-').next().unwrap_or(triple).replace("riscv64gc", "riscv64");
    format!("{cpu}-linux-musl")
}

pub(crate) fn pin() -> Result<Pin, Error> {
    toml::from_str(PIN).map_err(|e| Error::PinFile { file: FILE, source: Box::new(e) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_is_the_version_it_claims() {
        let pin = pin().unwrap();
        assert!(pin.path.contains(&format!("{}_{}.orig.tar.gz", pin.name, pin.version)));
        assert_eq!(pin.sha256.len(), 64);
    }

    #[test]
    fn every_architecture_has_a_target() {
        let targets = Arch::ALL.map(target_of);
        let expected = ["x86_64", "aarch64", "s390x", "powerpc64le", "riscv64"];
        assert_eq!(targets, expected.map(|cpu| format!("{cpu}-linux-musl")));
    }

    #[test]
    fn the_maintainers_own_program_stays_out() {
        assert!(is_ours(Path::new("/s/api.c")) && is_ours(Path::new("/s/syscalls.perf.c")));
        assert!(!is_ours(Path::new("/s/arch-syscall-dump.c")) && !is_ours(Path::new("/s/api.h")));
    }
}
