//! What a VM boots from, as QEMU's arguments.

use std::path::{Path, PathBuf};

use super::config::{text, value};

/// Where the machine begins.
#[derive(Clone, Debug)]
pub(crate) enum Boot {
    /// QEMU loads the kernel.
    Kernel {
        /// The kernel.
        kernel: PathBuf,
        /// Its command line.
        cmdline: String,
        /// Where it finds its root.
        root: Root,
        /// Firmware instead of the machine's own.
        firmware: Option<PathBuf>,
    },
    /// EFI firmware loads a program, which is kernel, command line and root in one.
    Program {
        /// The firmware's code.
        firmware: PathBuf,
        /// A directory that the firmware sees as a disk, with the program in its place.
        disk: PathBuf,
    },
}

/// Where a kernel finds its root.
#[derive(Clone, Debug)]
pub(crate) enum Root {
    /// In memory.
    Ramdisk(PathBuf),
    /// On the first disk. What is written there is gone with the VM, or else writing is refused.
    Disk { image: PathBuf, scratch: bool },
    /// On an NVDIMM, of this many bytes.
    Nvdimm { image: PathBuf, size: u64 },
}

impl Boot {
    /// What has to be said behind the machine's name.
    pub(crate) fn machine(&self) -> &'static str {
        if self.nvdimm().is_some() { ",nvdimm=on" } else { "" }
    }

    /// What has to be said behind `mib`, the amount of memory: room for what comes beside it.
    pub(crate) fn memory(&self, mib: u64) -> String {
        match self.nvdimm() {
            // In whole GiB: how machines align what is put there is theirs.
            Some(size) => format!(",slots=1,maxmem={}M", (mib + (size >> 20)).next_multiple_of(1024) + 1024),
            None => String::new(),
        }
    }

    /// The arguments of what is booted, and of the device that it is on: the first disk of the machine.
    pub(crate) fn argv(&self, bus: &str) -> Vec<String> {
        let mut args: Vec<String> = Vec::new();
        let mut add = |key: &str, value: String| args.extend([key.to_string(), value]);
        match self {
            Boot::Kernel { kernel, cmdline, root, firmware } => {
                if let Some(firmware) = firmware {
                    add("-bios", text(firmware));
                }
                add("-kernel", text(kernel));
                add("-append", cmdline.clone());
                match root {
                    Root::Ramdisk(image) => add("-initrd", text(image)),
                    Root::Disk { image, scratch } => {
                        let writes = if *scratch { "snapshot=on" } else { "readonly=on" };
                        let file = value(image);
                        add("-drive", format!("if=none,id=root,format=raw,{writes},file={file}"));
                        add("-device", format!("virtio-blk-{bus},drive=root"));
                    }
                    Root::Nvdimm { image, size } => {
                        let file = value(image);
                        let backend = format!(
                            "memory-backend-file,id=root,readonly=on,share=off,size={size},mem-path={file}"
                        );
                        add("-object", backend);
                        add("-device", "nvdimm,memdev=root,unarmed=on".into());
                    }
                }
            }
            Boot::Program { firmware, disk } => {
                add("-bios", text(firmware));
                // QEMU takes a directory for a disk with FAT on it.
                let dir = value(disk);
                let drive =
                    format!("if=none,id=root,format=raw,readonly=on,file.driver=vvfat,file.dir={dir}");
                add("-drive", drive);
                add("-device", format!("virtio-blk-{bus},drive=root,bootindex=0"));
            }
        }
        args
    }

    fn nvdimm(&self) -> Option<u64> {
        match self {
            Boot::Kernel { root: Root::Nvdimm { size, .. }, .. } => Some(*size),
            _ => None,
        }
    }
}

/// A firmware of that file name, if this host has it where QEMU's are, or where Debian's packages of EFI firmware put it.
pub(crate) fn find_firmware(name: &str) -> Option<PathBuf> {
    const PLACES: [&str; 4] =
        ["/usr/share/qemu", "/usr/local/share/qemu", "/usr/share/ovmf", "/usr/share/qemu-efi-aarch64"];
    PLACES.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(root: Root) -> Boot {
        Boot::Kernel { kernel: "/k".into(), cmdline: "root=/dev/vda ro".into(), root, firmware: None }
    }

    #[test]
    fn a_ramdisk_needs_no_device() {
        let argv = kernel(Root::Ramdisk("/i".into())).argv("pci");
        assert_eq!(argv, ["-kernel", "/k", "-append", "root=/dev/vda ro", "-initrd", "/i"]);
    }

    #[test]
    fn a_disk_is_not_written_to() {
        let disk = |scratch| kernel(Root::Disk { image: "/a,b".into(), scratch }).argv("ccw");
        let device = ["-device", "virtio-blk-ccw,drive=root"].map(String::from);
        let drive = |writes: &str| format!("if=none,id=root,format=raw,{writes},file=/a,,b");
        assert_eq!(disk(false)[4..], [&["-drive".into(), drive("readonly=on")], &device[..]].concat());
        assert!(disk(true).contains(&drive("snapshot=on")), "what the guest writes goes elsewhere");
        assert!(!disk(false).contains(&"-initrd".to_string()));
    }

    #[test]
    fn an_nvdimm_has_a_slot_beside_the_memory() {
        let boot = kernel(Root::Nvdimm { image: "/n".into(), size: 10 << 20 });
        assert_eq!(boot.machine(), ",nvdimm=on");
        assert_eq!(boot.memory(256), ",slots=1,maxmem=2048M");
        let backend =
            "memory-backend-file,id=root,readonly=on,share=off,size=10485760,mem-path=/n".to_string();
        assert!(boot.argv("pci").contains(&backend));
        assert_eq!(kernel(Root::Ramdisk("/i".into())).memory(256), "");
    }

    #[test]
    fn firmware_is_used_where_there_is_one() {
        assert_eq!(find_firmware("no such firmware"), None);
        let argv = Boot::Program { firmware: "/fw".into(), disk: "/d".into() }.argv("pci");
        assert_eq!(argv[..2], ["-bios", "/fw"]);
        assert!(!argv.contains(&"-kernel".to_string()));
    }
}
