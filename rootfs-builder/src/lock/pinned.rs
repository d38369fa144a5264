//! What the pin files of this repository name, and the programs of this machine that shape bytes.

use std::path::Path;

use guest_arch::Arch;
use guest_inputs::{Pin, file_sha256};
use kernel_config::Variant;

use super::Input;
use crate::error::Error;
use crate::toolchain::Rustc;
use crate::{efi_stub, libseccomp, oci_layout, std_source, zig};

/// The kind of what is installed on the machine: not fetched by us, and not on every machine.
pub(super) const PROGRAM: &str = "program";

/// All of them, for the workspace at `workspace`.
pub fn pinned(workspace: &Path) -> Result<Vec<Input>, Error> {
    let mut inputs = Vec::new();
    for pin in [&[kernel_config::source_pin()?, libseccomp::pin()?][..], &std_source::pins()?[..]].concat() {
        inputs.push(fetched("source", &pin));
    }
    for (arch, pin) in oci_layout::pins()?.into_iter().chain(efi_stub::pins()?) {
        let pin = Pin { name: format!("{} for {arch}", pin.name), ..pin };
        inputs.push(fetched("package", &pin));
    }
    inputs.extend(zig::wheels().into_iter().map(|wheel| Input {
        kind: "wheel".to_owned(),
        name: wheel.name,
        version: wheel.version,
        from: "PyPI, by rootfs-builder/requirements.txt".to_owned(),
        size: None,
        sha256: Some(wheel.sha256),
        signed_by: None,
    }));
    for (kind, name, file) in [
        ("crates", "all crates", "Cargo.lock"),
        ("keys", "Debian's certificates", "rootfs-builder/debian/trusted.toml"),
    ] {
        inputs.push(Input {
            kind: kind.to_owned(),
            name: name.to_owned(),
            version: "as locked".to_owned(),
            from: file.to_owned(),
            size: None,
            sha256: Some(file_sha256(&workspace.join(file))?),
            signed_by: None,
        });
    }
    inputs.push(program("rustc".to_owned(), Rustc::ask()?.identity()));
    for arch in Arch::ALL {
        // A machine without a cross compiler says nothing about that architecture's kernels.
        if let Ok(tools) = kernel_config::tools(arch, Variant::Lean) {
            inputs.push(program(
                format!("compiler of {arch} kernels"),
                tools.lines().collect::<Vec<_>>().join(", "),
            ));
        }
    }
    // What writes the types into the kernels that have some; the same for every architecture. Compilers come before it.
    if let Ok(tools) = kernel_config::tools(Arch::host(), Variant::Debug)
        && let Some(pahole) = tools.lines().last()
    {
        inputs.push(program("pahole of debug kernels".to_owned(), format!("pahole {pahole}")));
    }
    inputs.sort();
    Ok(inputs)
}

fn fetched(kind: &str, pin: &Pin) -> Input {
    Input {
        kind: kind.to_owned(),
        name: pin.name.clone(),
        version: pin.version.clone(),
        from: format!("{}: {}", pin.archive, pin.path),
        size: Some(pin.size),
        sha256: Some(pin.sha256.clone()),
        signed_by: None,
    }
}

fn program(name: String, version: String) -> Input {
    let from = "this machine".to_owned();
    Input { kind: PROGRAM.to_owned(), name, version, from, size: None, sha256: None, signed_by: None }
}
