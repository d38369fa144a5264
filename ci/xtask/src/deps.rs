//! The Debian packages each command needs beyond cargo and git, and how they get here: installed when the caller says so
//! (or in CI), else named in the very line that installs them.

use std::{
    env,
    process::{Command, Stdio},
};

use ::kernel_config::Variant;
use anyhow::{Context, Result, bail};
use guest_arch::Arch;

/// To build a kernel: compiler and make; the configuration's parser; objtool's library; what packs the bzImage.
const KERNEL: &[&str] = &["bc", "bison", "flex", "gcc", "libc6-dev", "libelf-dev", "make", "zstd"];
/// To build the agent: a Python that can install zig into a directory of ours.
pub(crate) const AGENT: &[&str] = &["gcc", "libc6-dev", "python3", "python3-venv"];
/// To run the tests: an opinion on the agent's binary that is not ours, what makes file systems on disks, what the agent
/// links when it is built for the machine itself, what the jail's own tests run in their containers, and EFI firmware.
pub(crate) const TESTS: &[&str] = &[
    "busybox-static",
    "cryptsetup-bin",
    "e2fsprogs",
    "erofs-utils",
    "file",
    "libseccomp-dev",
    "ovmf",
    "xfsprogs",
];
/// To read the images that we write with programs that are not ours.
pub(crate) const READERS: &[&str] =
    &["attr", "binutils", "cpio", "fdisk", "gdisk", "squashfs-tools", "systemd-boot-efi", "tar"];

/// To run a VM of these architectures: QEMU, and with it virtiofsd.
pub(crate) fn vm(arches: &[Arch]) -> Vec<&'static str> {
    let emulators = arches.iter().map(|arch| arch.row().qemu_package);
    ["qemu-system-common"].into_iter().chain(emulators).collect()
}

/// To build kernels of these kinds, or to ask for their configurations.
pub(crate) fn kernel(arches: &[Arch], variants: &[Variant]) -> Vec<&'static str> {
    let own = |variant: &Variant| match variant {
        Variant::Lean => None,
        // It knows its own types.
        Variant::Debug => Some("dwarves"),
        // It has a keyring, and the program that fills it links OpenSSL's library.
        Variant::Hardened => Some("libssl-dev"),
    };
    KERNEL.iter().copied().chain(compilers(arches)).chain(variants.iter().filter_map(own)).collect()
}

/// A cross compiler for each architecture that is not this machine's.
fn compilers(arches: &[Arch]) -> Vec<&'static str> {
    let foreign = arches.iter().filter(|arch| **arch != Arch::host());
    foreign.map(|arch| arch.row().cross_package).collect()
}

/// Makes sure that the packages of all `sets` are installed.
pub(crate) fn ensure(sets: &[&[&'static str]], install: bool) -> Result<()> {
    let mut wanted = sets.concat();
    wanted.sort_unstable();
    wanted.dedup();
    let Some(installed) = installed(&wanted) else {
        eprintln!(
            "this is not a Debian machine: the equivalents of these packages are needed: {}",
            wanted.join(" ")
        );
        return Ok(());
    };
    let missing = missing(&wanted, &installed);
    if missing.is_empty() {
        return Ok(());
    }
    let ci = env::var_os("CI").is_some_and(|value| value == "true");
    let line = install_line(&missing);
    if !install && !ci {
        bail!("these packages are missing; install them with\n    {line}\nor say --install-deps");
    }
    if !nix::unistd::Uid::effective().is_root() {
        bail!("only root can install the missing packages:\n    {line}");
    }
    apt_get(&["update"])?;
    apt_get(&[&["install", "-y", "--no-install-recommends"], missing.as_slice()].concat())
}

fn install_line(missing: &[&str]) -> String {
    format!("apt-get install -y --no-install-recommends {}", missing.join(" "))
}

/// What dpkg knows of `wanted`; nothing where there is no dpkg. It fails if it knows none, and that is no error.
fn installed(wanted: &[&str]) -> Option<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\\n"]).args(wanted);
    let output = query.stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn missing<'a>(wanted: &[&'a str], installed: &str) -> Vec<&'a str> {
    let is_there = |name: &str| installed.lines().any(|line| line.strip_suffix(" installed") == Some(name));
    wanted.iter().copied().filter(|name| !is_there(name)).collect()
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    eprintln!("apt-get {}", arguments.join(" "));
    let mut command = Command::new("apt-get");
    command.args(["--quiet", "--quiet"]).args(arguments);
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    let status = command.status().context("cannot run apt-get")?;
    if !status.success() {
        bail!("apt-get {} failed ({status})", arguments.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_and_unknown_packages_are_missing() {
        let dpkg = "gcc installed\nflex config-files\nmake installed\n";
        assert_eq!(missing(&["bison", "flex", "gcc", "make"], dpkg), ["bison", "flex"]);
    }

    #[test]
    fn only_other_architectures_need_another_compiler() {
        assert_eq!(compilers(&Arch::ALL).len(), Arch::ALL.len() - 1);
        assert!(compilers(&[Arch::host()]).is_empty());
    }

    #[test]
    fn a_kernel_needs_what_its_variant_needs() {
        let lean = kernel(&[Arch::host()], &[Variant::Lean]);
        assert_eq!(lean, KERNEL);
        let all = kernel(&[Arch::host()], &Variant::ALL);
        assert_eq!(all[KERNEL.len()..], ["dwarves", "libssl-dev"]);
    }

    #[test]
    fn the_line_can_be_pasted() {
        let line = install_line(&["bc", "flex"]);
        assert_eq!(line, "apt-get install -y --no-install-recommends bc flex");
    }
}
