//! The program that a unified kernel image begins with: systemd's, from Debian's package.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use guest_arch::Arch;
use guest_inputs::{Cache, Key, Pin, Progress, fetch, unpack_deb};
use serde::Deserialize;

use crate::error::{Error, at};

const FILE: &str = "rootfs-builder/uki.toml";
const PINS: &str = include_str!("../uki.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stub {
    /// Its path in the package.
    file: String,
    package: Pin,
}

/// The stub for machines of `arch`.
pub fn efi_stub(cache: &Cache, arch: Arch, progress: &Progress) -> Result<PathBuf, Error> {
    let stub = all()?.remove(arch.name()).ok_or(Error::NoStub(arch))?;
    let key = Key::new("efi-stub/v1").field("package", &stub.package.sha256).field("file", &stub.file);
    let entry = cache.build("efi-stub", &key, |into| {
        let deb = fetch(cache, &stub.package, progress)?;
        let package = into.join("package");
        unpack_deb(&deb, &package)?;
        let file = package.join(&stub.file);
        fs::rename(&file, into.join("stub")).map_err(at("keep", &file))?;
        fs::remove_dir_all(&package).map_err(at("remove", &package))
    })?;
    Ok(entry.join("stub"))
}

/// Whether there is one.
pub(crate) fn is_there(arch: Arch) -> bool {
    all().is_ok_and(|stubs| stubs.contains_key(arch.name()))
}

/// What is pinned, by the guest architecture's name.
pub(crate) fn pins() -> Result<Vec<(String, Pin)>, Error> {
    Ok(all()?.into_iter().map(|(arch, stub)| (arch, stub.package)).collect())
}

fn all() -> Result<BTreeMap<String, Stub>, Error> {
    toml::from_str(PINS).map_err(|e| Error::PinFile { file: FILE, source: Box::new(e) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pins_are_of_machines_that_we_know() {
        for (arch, pin) in pins().unwrap() {
            let arch: Arch = arch.parse().unwrap();
            assert!(pin.path.ends_with(&format!("_{}.deb", arch.row().debian)), "{}", pin.path);
        }
    }

    #[test]
    fn a_machine_without_efi_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap().offline(true);
        let error = efi_stub(&cache, Arch::S390x, &Progress::silent()).unwrap_err().to_string();
        assert_eq!(error, "uki: there is no EFI stub for s390x: its firmware starts a kernel as it is");
    }
}
