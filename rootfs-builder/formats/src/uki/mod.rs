//! Unified kernel images (UAPI group, Unified Kernel Image): one EFI program of kernel, ramdisk and command
//! line, to be started by a machine's firmware, and to be signed and measured as one.
//!
//! It is systemd's stub with a section for each part. The stub is a pinned input like the kernel; what is
//! added has no time, and the checksum in the header, at which no firmware looks, is zero until somebody
//! signs the program.

mod pe;

use guest_arch::Arch;

use crate::error::Error;
use pe::{Program, Section};

const FORMAT: &str = "uki";

/// What goes into an image beside the stub.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The content of an os-release file: what a boot menu shows.
    pub os_release: &'a str,
    /// The kernel's command line.
    pub cmdline: &'a str,
    /// The kernel's version, `uname -r`.
    pub uname: &'a str,
    /// The ramdisk; empty for none.
    pub initrd: &'a [u8],
    /// The kernel, with an EFI stub of its own (`CONFIG_EFI_STUB`): bzImage or Image.
    pub linux: &'a [u8],
}

/// Makes the image for machines of `arch` from systemd's stub for them, `linux<name>.efi.stub`.
pub fn image(stub: &[u8], arch: Arch, parts: &Parts<'_>) -> Result<Vec<u8>, Error> {
    let Some(efi) = &arch.row().efi else {
        return Err(Error::Limit { format: FORMAT, what: format!("there are no EFI machines of {arch}") });
    };
    let refused = |what: String| Error::Corrupt { format: FORMAT, what };
    let machine = pe::machine(parts.linux).ok_or_else(|| {
        refused("the kernel is no EFI program: it needs CONFIG_EFI_STUB, and not to be compressed".into())
    })?;
    let stub = Program::parse(stub).map_err(|what| refused(format!("the stub {what}")))?;
    for (name, machine) in [("kernel", machine), ("stub", stub.machine)] {
        if machine != efi.machine {
            return Err(refused(format!(
                "the {name} is for machine {machine:#06x}, and {arch} is {:#06x}",
                efi.machine
            )));
        }
    }
    for (name, text) in
        [("os-release", parts.os_release), ("command line", parts.cmdline), ("version", parts.uname)]
    {
        if text.contains('\0') {
            return Err(refused(format!("the {name} has a NUL in it")));
        }
    }
    stub.with(&sections(parts)).map_err(|what| refused(format!("the stub {what}")))
}

/// The kernel comes last: what it needs beyond its bytes when it is unpacked must not be another section's.
fn sections<'a>(parts: &Parts<'a>) -> Vec<Section<'a>> {
    let data = |name, content| Section { name, content, is_code: false };
    let mut sections = vec![
        data(".osrel", parts.os_release.as_bytes()),
        data(".cmdline", parts.cmdline.as_bytes()),
        data(".uname", parts.uname.as_bytes()),
        data(".initrd", parts.initrd),
        Section { name: ".linux", content: parts.linux, is_code: true },
    ];
    sections.retain(|section| !section.content.is_empty());
    sections
}

#[cfg(test)]
mod tests;
