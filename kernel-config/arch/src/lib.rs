//! The one table of guest architectures: how each is called by Rust, by the kernel, by Debian and by QEMU, and which
//! devices its machine has.
//!
//! Plain data. Nothing else in this workspace matches on the name of an architecture: code that needs to know more
//! about one gets a new column here.

use std::fmt;
use std::str::FromStr;

/// A processor architecture that a guest can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm, little endian.
    Aarch64,
    /// IBM Z, 64 bit.
    S390x,
    /// POWER8 and later, little endian.
    Powerpc64le,
    /// RISC-V rv64gc.
    Riscv64,
}

/// What one architecture is called, and where its things are.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// Our name.
    pub name: &'static str,
    /// What the kernel calls it (`uname -m`).
    pub uname: &'static str,
    /// Rust's target for a static binary.
    pub rust_triple: &'static str,
    /// `ARCH=` of the kernel's makefiles.
    pub kernel_arch: &'static str,
    /// The image QEMU boots, below the kernel's build tree.
    pub kernel_image: &'static str,
    /// The same kernel in its smallest bootable form; where there is one form only, `kernel_image` again.
    pub compressed_image: &'static str,
    /// Debian's name.
    pub debian: &'static str,
    /// Go's name, which is the one in OCI images.
    pub oci: &'static str,
    /// The QEMU that emulates it.
    pub qemu_binary: &'static str,
    /// Debian's package of that QEMU.
    pub qemu_package: &'static str,
    /// That QEMU's `-machine`, without what it has on board and no guest of ours uses: less to look for at boot. On POWER
    /// with the firmware that QEMU plays itself (VOF, since 6.2): SLOF, an interpreter of Forth that is emulated in its
    /// turn, takes as long as all of Linux after it.
    pub machine: &'static str,
    /// File name of the firmware among QEMU's that starts a kernel sooner than the machine's own.
    pub firmware: Option<&'static str>,
    /// That QEMU's `-cpu` under emulation. On x86_64 without "fast string" instructions: emulated, `rep movsb` is the
    /// slowest way to copy, and the kernel prefers it where the processor claims it is fast (64 MiB through a guest's
    /// pipe: 0.07 s without, 0.42 s with). On aarch64 with signatures of pointers that are cheap to emulate: those of the
    /// architecture's own cipher take half of the time of a boot. POWER and RISC-V have no `max` in every QEMU that we
    /// support.
    pub emulated_cpu: &'static str,
    /// Kernel command line words for an emulated guest. On x86_64 no check that the timer's interrupt arrives within some
    /// milliseconds: on a busy host it does not, and the kernel panics before it has a console.
    pub emulated_cmdline: &'static str,
    /// More of them for a guest with one processor. On x86_64: no calibration of the local APIC's timer, a busy loop of
    /// 100 ms, which the HPET makes unnecessary, and no patching of 9000 lock prefixes away, each by a change of address
    /// spaces (20 virtual ms): an emulated processor that is alone has no bus to lock.
    pub emulated_alone: &'static str,
    /// The console's name in the guest, without `/dev/`.
    pub console: &'static str,
    /// The device of QEMU's behind it. Where the firmware needs a terminal, and knows none of virtio's, its own.
    pub console_device: &'static str,
    /// What a cross compiler's programs begin with (`CROSS_COMPILE=`).
    pub cross_compile: &'static str,
    /// Debian's package of that cross compiler.
    pub cross_package: &'static str,
    /// The directories of `kernel-config/fragments` for what its machine has, beside its own: "pci" where there is PCI.
    pub kernel_fragments: &'static [&'static str],
    /// The end of a virtio device's name in QEMU: `virtio-serial-pci`, `virtio-serial-ccw`.
    pub virtio_bus: &'static str,
    /// Whether a kernel that QEMU loads into that machine sees its NVDIMMs: it takes ACPI, which only x86's firmware has then.
    pub nvdimm: bool,
    /// The type of a GPT partition with the root file system (UAPI group, Discoverable Partitions Specification). The
    /// number is written as the text of the GUID.
    pub gpt_root: u128,
    /// The same for the hash tree of one.
    pub gpt_root_verity: u128,
    /// How the firmware of machines that boot by EFI marks its programs; none if there are no such machines.
    pub efi: Option<Efi>,
}

/// What EFI firmware calls an architecture.
#[derive(Debug, PartialEq, Eq)]
pub struct Efi {
    /// The machine in the header of its programs.
    pub machine: u16,
    /// The end of their names: `BOOTX64.EFI`, `linuxx64.efi.stub`.
    pub name: &'static str,
    /// File name of the firmware, code and settings in one, where Debian has it.
    pub firmware: &'static str,
}

impl Arch {
    /// Every architecture, in the order of the table.
    pub const ALL: [Arch; 5] = [Arch::X86_64, Arch::Aarch64, Arch::S390x, Arch::Powerpc64le, Arch::Riscv64];

    /// The architecture this program was compiled for. On any other machine this crate does not compile.
    pub const fn host() -> Arch {
        const {
            if cfg!(target_arch = "x86_64") {
                Arch::X86_64
            } else if cfg!(target_arch = "aarch64") {
                Arch::Aarch64
            } else if cfg!(target_arch = "s390x") {
                Arch::S390x
            } else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
                Arch::Powerpc64le
            } else if cfg!(target_arch = "riscv64") {
                Arch::Riscv64
            } else {
                panic!("this host's architecture is not in the table")
            }
        }
    }

    /// This architecture's row of the table.
    pub const fn row(self) -> &'static Row {
        match self {
            Arch::X86_64 => &X86_64,
            Arch::Aarch64 => &AARCH64,
            Arch::S390x => &S390X,
            Arch::Powerpc64le => &POWERPC64LE,
            Arch::Riscv64 => &RISCV64,
        }
    }

    /// Our name for it, as on the command line and in paths.
    pub const fn name(self) -> &'static str {
        self.row().name
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Arch {
    type Err = UnknownArch;

    fn from_str(name: &str) -> Result<Self, UnknownArch> {
        Arch::ALL.into_iter().find(|arch| arch.name() == name).ok_or_else(|| UnknownArch(name.to_owned()))
    }
}

impl Row {
    /// Kernel command line words for an emulated guest with this many processors.
    pub fn emulated_words(&self, cpus: u32) -> String {
        let words = [self.emulated_cmdline, if cpus == 1 { self.emulated_alone } else { "" }];
        words.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// A name that is not in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownArch(String);

impl fmt::Display for UnknownArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown architecture {:?}; known are", self.0)?;
        Arch::ALL.iter().try_for_each(|arch| write!(f, " {arch}"))
    }
}

impl std::error::Error for UnknownArch {}

const X86_64: Row = Row {
    name: "x86_64",
    uname: "x86_64",
    rust_triple: "x86_64-unknown-linux-musl",
    kernel_arch: "x86",
    kernel_image: "vmlinux",
    compressed_image: "arch/x86/boot/bzImage",
    debian: "amd64",
    oci: "amd64",
    qemu_binary: "qemu-system-x86_64",
    qemu_package: "qemu-system-x86",
    machine: "q35,sata=off,smbus=off,usb=off,vmport=off,i8042=off",
    firmware: Some("qboot.rom"),
    emulated_cpu: "max,-erms",
    emulated_cmdline: "no_timer_check",
    emulated_alone: "nolapic_timer noreplace-smp",
    console: "hvc0",
    console_device: "virtconsole",
    cross_compile: "x86_64-linux-gnu-",
    cross_package: "gcc-x86-64-linux-gnu",
    kernel_fragments: &["common", "pci", "hotplug", "pmem", "acpi"],
    virtio_bus: "pci",
    nvdimm: true,
    gpt_root: 0x4f68bce3_e8cd_4db1_96e7_fbcaf984b709,
    gpt_root_verity: 0x2c7357ed_ebd2_46d9_aec1_23d437ec2bf5,
    efi: Some(Efi { machine: 0x8664, name: "x64", firmware: "OVMF.fd" }),
};

const AARCH64: Row = Row {
    name: "aarch64",
    uname: "aarch64",
    rust_triple: "aarch64-unknown-linux-musl",
    kernel_arch: "arm64",
    kernel_image: "arch/arm64/boot/Image",
    compressed_image: "arch/arm64/boot/Image.gz",
    debian: "arm64",
    oci: "arm64",
    qemu_binary: "qemu-system-aarch64",
    qemu_package: "qemu-system-arm",
    machine: "virt",
    firmware: None,
    emulated_cpu: "max,pauth-impdef=on",
    emulated_cmdline: "",
    emulated_alone: "",
    console: "hvc0",
    console_device: "virtconsole",
    cross_compile: "aarch64-linux-gnu-",
    cross_package: "gcc-aarch64-linux-gnu",
    kernel_fragments: &["common", "pci", "hotplug", "pmem", "acpi", "devicetree"],
    virtio_bus: "pci",
    nvdimm: false,
    gpt_root: 0xb921b045_1df0_41c3_af44_4c6f280d3fae,
    gpt_root_verity: 0xdf3300ce_d69f_4c92_978c_9bfb0f38d820,
    efi: Some(Efi { machine: 0xaa64, name: "aa64", firmware: "QEMU_EFI.fd" }),
};

const S390X: Row = Row {
    name: "s390x",
    uname: "s390x",
    rust_triple: "s390x-unknown-linux-musl",
    kernel_arch: "s390",
    kernel_image: "arch/s390/boot/bzImage",
    compressed_image: "arch/s390/boot/bzImage",
    debian: "s390x",
    oci: "s390x",
    qemu_binary: "qemu-system-s390x",
    qemu_package: "qemu-system-misc",
    machine: "s390-ccw-virtio",
    firmware: None,
    emulated_cpu: "max",
    emulated_cmdline: "",
    emulated_alone: "",
    console: "hvc0",
    console_device: "virtconsole",
    cross_compile: "s390x-linux-gnu-",
    cross_package: "gcc-s390x-linux-gnu",
    kernel_fragments: &["common"],
    virtio_bus: "ccw",
    nvdimm: false,
    gpt_root: 0x5eead9a9_fe09_4a1e_a1d7_520d00531306,
    gpt_root_verity: 0xb325bfbe_c7be_4ab8_8357_139e652d2f6b,
    efi: None,
};

const POWERPC64LE: Row = Row {
    name: "powerpc64le",
    uname: "ppc64le",
    rust_triple: "powerpc64le-unknown-linux-musl",
    kernel_arch: "powerpc",
    kernel_image: "vmlinux",
    compressed_image: "arch/powerpc/boot/zImage.pseries",
    debian: "ppc64el",
    oci: "ppc64le",
    qemu_binary: "qemu-system-ppc64",
    qemu_package: "qemu-system-ppc",
    machine: "pseries,x-vof=on",
    firmware: None,
    emulated_cpu: "power9",
    emulated_cmdline: "",
    emulated_alone: "",
    console: "hvc0",
    console_device: "spapr-vty",
    cross_compile: "powerpc64le-linux-gnu-",
    cross_package: "gcc-powerpc64le-linux-gnu",
    kernel_fragments: &["common", "pci"],
    virtio_bus: "pci",
    nvdimm: false,
    gpt_root: 0xc31c45e6_3f39_412e_80fb_4809c4980599,
    gpt_root_verity: 0x906bd944_4589_4aae_a4e4_dd983917446a,
    efi: None,
};

const RISCV64: Row = Row {
    name: "riscv64",
    uname: "riscv64",
    rust_triple: "riscv64gc-unknown-linux-musl",
    kernel_arch: "riscv",
    kernel_image: "arch/riscv/boot/Image",
    compressed_image: "arch/riscv/boot/Image.gz",
    debian: "riscv64",
    oci: "riscv64",
    qemu_binary: "qemu-system-riscv64",
    qemu_package: "qemu-system-misc",
    machine: "virt",
    firmware: None,
    emulated_cpu: "rv64",
    emulated_cmdline: "",
    emulated_alone: "",
    console: "hvc0",
    console_device: "virtconsole",
    cross_compile: "riscv64-linux-gnu-",
    cross_package: "gcc-riscv64-linux-gnu",
    kernel_fragments: &["common", "pci", "hotplug", "pmem", "devicetree"],
    virtio_bus: "pci",
    nvdimm: false,
    gpt_root: 0x72ec70a6_cf74_40e6_bd49_4bda08e8f224,
    gpt_root_verity: 0xb6ed5582_440b_4209_b8da_5ff7c419ea3d,
    efi: Some(Efi { machine: 0x5064, name: "riscv64", firmware: "RISCV_VIRT_CODE.fd" }),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_to_its_row() {
        for arch in Arch::ALL {
            assert_eq!(arch.to_string().parse(), Ok(arch));
        }
    }

    #[test]
    fn another_systems_name_is_refused_with_the_list() {
        let error = "amd64".parse::<Arch>().unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown architecture \"amd64\"; known are x86_64 aarch64 s390x powerpc64le riscv64"
        );
    }

    #[test]
    fn names_that_must_tell_architectures_apart_do() {
        let columns: [fn(&Row) -> &str; 9] = [
            |row| row.name,
            |row| row.uname,
            |row| row.rust_triple,
            |row| row.kernel_arch,
            |row| row.debian,
            |row| row.oci,
            |row| row.qemu_binary,
            |row| row.cross_compile,
            |row| row.cross_package,
        ];
        for column in columns {
            let mut names: Vec<_> = Arch::ALL.iter().map(|arch| column(arch.row())).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), Arch::ALL.len(), "{names:?}");
        }
    }

    #[test]
    fn partition_types_tell_architectures_and_uses_apart() {
        let mut types: Vec<_> =
            Arch::ALL.iter().flat_map(|arch| [arch.row().gpt_root, arch.row().gpt_root_verity]).collect();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), 2 * Arch::ALL.len());
    }

    #[test]
    fn every_agent_is_linked_against_musl() {
        assert!(Arch::ALL.iter().all(|arch| arch.row().rust_triple.ends_with("-unknown-linux-musl")));
    }

    #[test]
    fn the_host_is_the_one_rust_names() {
        assert!(Arch::host().name().starts_with(std::env::consts::ARCH));
    }
}
