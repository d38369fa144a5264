//! A small program of our own as the stub, and what is wrong with others.

use guest_arch::Arch;
use proptest::prelude::*;

use super::*;

/// One section of four bytes, and room for seven more.
fn stub(machine: u16) -> Vec<u8> {
    let mut bytes = vec![0; 0x204];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"MZ");
    put(0x3c, &[0x40]);
    put(0x40, b"PE\0\0");
    put(0x44, &machine.to_le_bytes());
    put(0x46, &[1, 0]); // sections
    put(0x54, &[112, 0]); // optional header
    put(0x58, &[0x0b, 0x02]);
    put(0x58 + 4, &[7]); // code
    put(0x58 + 33, &[0x10]); // 4096 in memory
    put(0x58 + 36, &[4]); // 4 in the file
    put(0x58 + 60, &[0, 2]); // headers
    put(0x58 + 64, &[1, 2, 3, 4]); // checksum
    put(0xc8, b".text");
    put(0xc8 + 8, &[4, 0, 0, 0, 0, 0x20, 0, 0, 4, 0, 0, 0, 0, 2, 0, 0]);
    put(0x200, b"code");
    bytes
}

/// What the kernel has to look like from outside.
fn kernel(machine: u16) -> Vec<u8> {
    stub(machine)[..0x100].to_vec()
}

fn made(stub: &[u8], arch: Arch) -> Result<Vec<u8>, String> {
    let linux = kernel(arch.row().efi.as_ref().map_or(0, |efi| efi.machine));
    let parts =
        Parts { os_release: "ID=husk\n", cmdline: "quiet", uname: "6.12", initrd: b"cpio", linux: &linux };
    image(stub, arch, &parts).map_err(|error| error.to_string())
}

/// Changes a good stub, and gives what is said of it.
fn refusal(change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut stub = stub(0x8664);
    change(&mut stub);
    made(&stub, Arch::X86_64).unwrap_err()
}

#[test]
fn each_part_is_a_section() {
    let image = made(&stub(0xaa64), Arch::Aarch64).unwrap();
    assert_eq!(image[0x46], 6);
    assert_eq!(image[..0x46], stub(0xaa64)[..0x46]);
    let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
    let entries: Vec<_> = image[0xc8..0xc8 + 6 * 40].chunks(40).collect();
    let names: Vec<_> = entries.iter().map(|e| String::from_utf8_lossy(&e[..8]).replace('\0', "")).collect();
    assert_eq!(names, [".text", ".osrel", ".cmdline", ".uname", ".initrd", ".linux"]);
    let field = |entry: usize, at: usize| word(0xc8 + entry * 40 + at);
    let content = |entry| &image[field(entry, 20) as usize..][..field(entry, 8) as usize];
    assert_eq!(content(1), b"ID=husk\n");
    assert_eq!((content(2), content(3), content(4)), (&b"quiet"[..], &b"6.12"[..], &b"cpio"[..]));
    assert_eq!(content(5), kernel(0xaa64));
    let memory: Vec<_> = (0..6).map(|entry| field(entry, 12)).collect();
    assert_eq!(memory, [0x2000, 0x3000, 0x4000, 0x5000, 0x6000, 0x7000]);
    assert_eq!((field(5, 36), field(4, 36)), (0x6000_0020, 0x4000_0040));
    assert_eq!(word(0x58 + 56), 0x8000, "size in memory");
    assert_eq!((word(0x58 + 4), word(0x58 + 8)), (7 + 0x100, 8 + 8 + 4 + 4), "code and data");
    assert_eq!(word(0x58 + 64), 0, "checksum");
    assert_eq!(image, made(&stub(0xaa64), Arch::Aarch64).unwrap());
}

#[test]
fn filler_behind_the_table_gives_way() {
    let nops = |stub: &mut Vec<u8>| stub[0xf0..0x200].as_chunks_mut().0.fill([0x1f, 0x20, 0x03, 0xd5]);
    let mut filled = stub(0xaa64);
    nops(&mut filled);
    let (plain, mut image) =
        (made(&stub(0xaa64), Arch::Aarch64).unwrap(), made(&filled, Arch::Aarch64).unwrap());
    assert_ne!(image, plain);
    image[0xc8 + 6 * 40..0x200].fill(0);
    assert_eq!(image, plain);
}

#[test]
fn an_empty_part_is_left_out() {
    let linux = kernel(0x8664);
    let parts = Parts { os_release: "", cmdline: "", uname: "6", initrd: b"", linux: &linux };
    assert_eq!(image(&stub(0x8664), Arch::X86_64, &parts).unwrap()[0x46], 3);
}

#[test]
fn what_is_no_stub_is_refused() {
    assert_eq!(refusal(Vec::clear), "uki: the stub is no PE program");
    assert_eq!(refusal(|stub| stub[0] = b'N'), "uki: the stub is no PE program");
    assert_eq!(refusal(|stub| stub[0x3f] = 0xff), "uki: the stub is no PE program");
    assert_eq!(refusal(|stub| stub.truncate(0x60)), "uki: the stub ends within its headers");
    assert_eq!(refusal(|stub| stub.truncate(0x1ff)), "uki: the stub ends within its headers");
    assert_eq!(refusal(|stub| stub[0x59] = 1), "uki: the stub is no program for 64 bits");
    assert_eq!(
        refusal(|stub| stub[0x58 + 36] = 3),
        "uki: the stub has sections aligned to 0x1000, and to 0x3 in the file"
    );
    assert_eq!(refusal(|stub| stub[0x47] = 1), "uki: the stub ends within its headers", "257 sections");
    assert_eq!(
        refusal(|stub| stub.truncate(0x203)),
        "uki: the stub has a section \".text\" that is not all there"
    );
    let high = refusal(|stub| stub[0xd4..0xd8].copy_from_slice(&0xffff_d000_u32.to_le_bytes()));
    assert_eq!(high, "uki: the stub with all parts would be larger than 4 GiB");
    assert_eq!(
        refusal(|stub| stub[0xc8..0xcf].copy_from_slice(b".linux\0")),
        "uki: the stub has a section \".linux\" already"
    );
    assert_eq!(refusal(|stub| stub[0x1b0] = 1), "uki: the stub has no room for 5 more sections");
    assert_eq!(refusal(|stub| stub[0x46] = 4), "uki: the stub has no room for 5 more sections");
    assert_eq!(refusal(|stub| stub[0x58 + 108] = 1), "uki: the stub has more directories than room for them");
}

#[test]
fn a_signed_stub_is_refused() {
    let says = refusal(|stub| {
        // Sixteen directories move the section table.
        let entry = stub[0xc8..0xf0].to_vec();
        stub[0x54] = 240;
        stub[0xc8..0xf0].fill(0);
        stub[0x148..0x170].copy_from_slice(&entry);
        stub[0x58 + 108] = 16;
        stub[0x58 + 112 + 4 * 8 + 4] = 8;
    });
    assert_eq!(says, "uki: the stub is signed, and with more sections it would not be");
}

#[test]
fn every_part_has_to_be_for_the_machine() {
    let says = made(&stub(0xaa64), Arch::X86_64).unwrap_err();
    assert_eq!(says, "uki: the stub is for machine 0xaa64, and x86_64 is 0x8664");
    let says = |linux: &[u8], cmdline: &str, arch| {
        let parts = Parts { os_release: "", cmdline, uname: "", initrd: b"", linux };
        image(&stub(0x8664), arch, &parts).unwrap_err().to_string()
    };
    assert!(says(&kernel(0xaa64), "", Arch::X86_64).starts_with("uki: the kernel is for machine 0xaa64"));
    assert!(says(b"\x7fELF", "", Arch::X86_64).starts_with("uki: the kernel is no EFI program"));
    assert_eq!(says(&kernel(0x8664), "a\0b", Arch::X86_64), "uki: the command line has a NUL in it");
    assert_eq!(says(&kernel(0x8664), "", Arch::S390x), "uki: there are no EFI machines of s390x");
}

proptest! {
    #[test]
    fn no_stub_makes_it_panic(
        changes in proptest::collection::vec((0..0x204_usize, any::<u8>()), 1..20),
        length in 0..0x205_usize,
    ) {
        let mut stub = stub(0x8664);
        changes.iter().for_each(|(at, byte)| stub[*at] = *byte);
        stub.truncate(length);
        let _ = made(&stub, Arch::X86_64);
    }
}
