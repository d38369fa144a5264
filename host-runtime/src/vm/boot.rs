//! From artefacts to what QEMU boots: the image in its place, the kernel's command line, firmware.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use agent_api::{cmdline, ports};
use guest_arch::Efi;
use guest_manifest::Attachment;

use crate::artefacts::Artefacts;
use crate::error::plain;
use crate::qemu::boot::{Boot, Root, find_firmware};

/// The directory of a VM that its firmware sees as a disk.
pub(super) const EFI_DISK: &str = "efi";

/// Why an image cannot be booted on this host.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its size is not to be had.
    #[error("{}: {}", .0.display(), plain(.1))]
    Image(PathBuf, #[source] io::Error),
    /// The machine has no place for it.
    #[error("{}: {arch} has no NVDIMM in its machine", .image.display())]
    NoNvdimm {
        /// The image.
        image: PathBuf,
        /// The guest's architecture.
        arch: guest_arch::Arch,
    },
    /// There is no firmware that starts programs.
    #[error("EFI firmware {0}: not found: it is in Debian's packages ovmf and qemu-efi-aarch64")]
    NoFirmware(&'static str),
    /// Machines of the architecture do not boot by EFI.
    #[error("there is no EFI firmware for {0}")]
    NoEfi(guest_arch::Arch),
    /// Somebody has words for a command line that cannot be changed.
    #[error("the command line is part of {} and takes no more words", .0.display())]
    FixedCmdline(PathBuf),
    /// The disk for the firmware cannot be made.
    #[error("{}: {}", .0.display(), plain(.1))]
    Disk(PathBuf, #[source] io::Error),
}

/// What QEMU boots. `of_machine` are the words by which a kernel does better on this machine; `extra` are the caller's.
pub(super) fn boot(
    artefacts: &Artefacts,
    of_machine: &str,
    extra: &[String],
    dir: &Path,
) -> Result<Boot, Error> {
    let row = artefacts.arch.row();
    let image = artefacts.root.clone();
    let size = || image.metadata().map_err(|e| Error::Image(image.clone(), e)).map(|file| file.len());
    let root = match artefacts.attachment {
        Attachment::Ramdisk => Root::Ramdisk(image),
        Attachment::Disk => Root::Disk { image, scratch: false },
        Attachment::ScratchDisk => Root::Disk { image, scratch: true },
        Attachment::Nvdimm if !row.nvdimm => return Err(Error::NoNvdimm { image, arch: artefacts.arch }),
        Attachment::Nvdimm => Root::Nvdimm { size: size()?, image },
        Attachment::Program if !extra.is_empty() => return Err(Error::FixedCmdline(image)),
        Attachment::Program => {
            let efi = row.efi.as_ref().ok_or(Error::NoEfi(artefacts.arch))?;
            let firmware = find_firmware(efi.firmware).ok_or(Error::NoFirmware(efi.firmware))?;
            return Ok(Boot::Program { firmware, disk: efi_disk(&image, efi, dir)? });
        }
    };
    let cmdline = match root {
        Root::Ramdisk(_) => completed(&artefacts.cmdline, of_machine, extra),
        _ => exact(&artefacts.cmdline, of_machine, extra),
    };
    let firmware = row.firmware.and_then(find_firmware);
    Ok(Boot::Kernel { kernel: artefacts.kernel(), cmdline, root, firmware })
}

/// The manifest's words, then the machine's, then the caller's, then what all left out: a panic that ends the VM, and a port for the log.
fn completed(base: &str, machine: &str, extra: &[String]) -> String {
    let given = base.split_ascii_whitespace().chain(machine.split_ascii_whitespace());
    let mut words: Vec<String> = given.map(String::from).collect();
    words.extend_from_slice(extra);
    for (key, value) in [("panic", "-1".to_string()), (cmdline::LOG_VPORT, ports::LOGS.to_string())] {
        if !words.iter().any(|word| word.split_once('=').is_some_and(|(word, _)| word == key)) {
            words.push(format!("{key}={value}"));
        }
    }
    words.join(" ")
}

/// The manifest's text to the letter, then the machine's words, of which only an emulator has any, then the caller's. Who
/// measures a VM with its root on a disk measures its command line, which says what the disk must hold, and computes it
/// from the manifest: we have no word in it. Nobody measures an emulated machine; and without its words two boots of forty
/// on a busy host reset before they had a console.
fn exact(base: &str, machine: &str, extra: &[String]) -> String {
    let words = [base, machine].into_iter().chain(extra.iter().map(String::as_str));
    words.filter(|words| !words.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A disk on which firmware looks for what to start: the program under the one name that needs no settings.
fn efi_disk(program: &Path, efi: &Efi, dir: &Path) -> Result<PathBuf, Error> {
    let disk = dir.join(EFI_DISK);
    let place = disk.join("EFI/BOOT");
    let link = place.join(format!("BOOT{}.EFI", efi.name.to_uppercase()));
    let made = std::fs::create_dir_all(&place).and_then(|()| symlink(std::path::absolute(program)?, &link));
    made.map_err(|e| Error::Disk(link, e))?;
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramdisks_command_line_is_completed() {
        let line = completed("console=hvc0  quiet", "nolapic_timer", &["agent.log=debug".into()]);
        assert_eq!(line, "console=hvc0 quiet nolapic_timer agent.log=debug panic=-1 agent.log_vport=1025");
        assert_eq!(completed("panic=1", "", &["agent.log_vport=0".into()]), "panic=1 agent.log_vport=0");
    }

    #[test]
    fn a_disks_command_line_is_the_manifests() {
        let line = "ro  dm-mod.create=\"root,,0,ro,0 8 verity 1 /dev/vda\"";
        assert_eq!(exact(line, "", &[]), line);
        let longer = exact(line, "nolapic_timer", &["agent.log=debug".into()]);
        assert_eq!(longer, format!("{line} nolapic_timer agent.log=debug"));
    }

    #[test]
    fn firmware_finds_a_program_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("husk.efi");
        std::fs::write(&program, "program").unwrap();
        let efi = guest_arch::Arch::X86_64.row().efi.as_ref().unwrap();
        let disk = efi_disk(&program, efi, dir.path()).unwrap();
        assert_eq!(std::fs::read_to_string(disk.join("EFI/BOOT/BOOTX64.EFI")).unwrap(), "program");
        let again = efi_disk(&program, efi, dir.path()).unwrap_err().to_string();
        assert!(again.ends_with("BOOTX64.EFI: file exists"), "{again}");
    }
}
