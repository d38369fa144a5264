//! Unified kernel images of systemd's own stub, as binutils read them.

mod tools;

use guest_arch::Arch;
use guest_formats::uki::{Parts, image};
use tools::text;

/// From the Debian package systemd-boot-efi.
const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

#[test]
fn objdump_finds_every_part_in_the_real_stub() {
    let stub = std::fs::read(STUB).expect("systemd-boot-efi is installed");
    // From outside a stub looks as a kernel has to.
    let initrd = vec![7; 10_000];
    let parts = Parts {
        os_release: "ID=husk\n",
        cmdline: "console=ttyS0 quiet",
        uname: "6.12.117",
        initrd: &initrd,
        linux: &stub,
    };
    let made = image(&stub, Arch::X86_64, &parts).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("husk.efi");
    std::fs::write(&path, &made).unwrap();

    let headers = text("objdump", "binutils", &[&"--section-headers", &path]);
    assert!(headers.contains("file format pei-x86-64"), "{headers}");
    let mut before = 0;
    for (name, content) in [
        (".osrel", parts.os_release.as_bytes()),
        (".cmdline", parts.cmdline.as_bytes()),
        (".uname", parts.uname.as_bytes()),
        (".initrd", parts.initrd),
        (".linux", parts.linux),
    ] {
        let line = headers.lines().find(|line| line.split_whitespace().nth(1) == Some(name)).expect(name);
        let numbers: Vec<_> = line.split_whitespace().map(|word| u64::from_str_radix(word, 16)).collect();
        let (address, place) = (numbers[3].clone().unwrap(), numbers[5].clone().unwrap() as usize);
        assert!(address % 4096 == 0 && address > before, "{headers}");
        before = address;
        assert!(made[place..].starts_with(content), "{name}");
    }
    // All of the stub is where it was.
    let first = 0x400;
    assert!(made[first..stub.len()] == stub[first..]);
}
