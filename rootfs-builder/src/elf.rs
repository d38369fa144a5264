//! Whether a file is a static executable: the one question we have about ELF.

/// What is wrong with `bytes` as a static 64-bit executable; nothing if it is one.
pub(crate) fn not_static(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(..5) != Some(b"\x7fELF\x02") {
        return Some("is not a 64-bit ELF file");
    }
    let big_endian = bytes.get(5) == Some(&2);
    let number = |offset: usize, size: usize| -> Option<u64> {
        let field = bytes.get(offset..offset.checked_add(size)?)?;
        let join = |n: u64, b: &u8| (n << 8) | u64::from(*b);
        Some(if big_endian { field.iter().fold(0, join) } else { field.iter().rev().fold(0, join) })
    };
    let interpreter = (|| {
        let table = usize::try_from(number(32, 8)?).ok()?;
        let (size, count) = (number(54, 2)? as usize, number(56, 2)? as usize);
        let mut found = false;
        for index in 0..count {
            found |= number(table.checked_add(index * size)?, 4)? == PT_INTERP;
        }
        Some(found)
    })();
    match interpreter {
        None => Some("has a broken ELF header"),
        Some(true) => Some("is dynamically linked"),
        Some(false) => None,
    }
}

/// The program header that names a dynamic loader.
const PT_INTERP: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(header_types: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64; // program headers follow
        bytes[54] = 56; // size of each
        bytes[56] = header_types.len() as u8;
        for kind in header_types {
            bytes.extend(kind.to_le_bytes());
            bytes.extend([0; 52]);
        }
        bytes
    }

    #[test]
    fn an_interpreter_tells() {
        assert_eq!(not_static(&elf(&[1, 1, 7])), None);
        assert_eq!(not_static(&elf(&[6, 3, 1])), Some("is dynamically linked"));
    }

    #[test]
    fn other_files_are_no_executables() {
        assert_eq!(not_static(b"#!/bin/sh\n"), Some("is not a 64-bit ELF file"));
        assert_eq!(not_static(&elf(&[1])[..100]), None, "the type is all that is read");
        assert_eq!(not_static(&elf(&[1])[..66]), Some("has a broken ELF header"));
        assert_eq!(not_static(&elf(&[1])[..40]), Some("has a broken ELF header"));
    }

    #[test]
    fn this_test_is_dynamic() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(not_static(&own), Some("is dynamically linked"));
    }
}
