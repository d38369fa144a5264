//! Packs a linked kernel: the loadable segments, end to end, and nothing else.
//!
//! The linker lays segments out at multiples of 2 MiB and appends symbols; of 20 MB some 12 are ever loaded. `strip`
//! takes the symbols but keeps the holes, so this does both. Addresses are not touched: a loader sees the same
//! segments. Names in the kernel's own traces come from kallsyms, which is data in a segment.

use std::ops::Range;

/// Offsets stay congruent to addresses modulo this: a page, so that a loader may map the file.
const PAGE: usize = 4096;
const FILE_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const PT_LOAD: u32 = 1;

/// Whether these are the bytes of an ELF file.
pub fn is_elf(file: &[u8]) -> bool {
    file.starts_with(b"\x7fELF")
}

/// The same program in the fewest bytes. Only 64-bit little-endian files are known.
pub fn pack(file: &[u8]) -> Result<Vec<u8>, &'static str> {
    if !is_elf(file) || file.get(4..6) != Some(&[2, 1]) {
        return Err("is not a 64-bit little-endian ELF file");
    }
    let mut headers = program_headers(file)?;
    let table = FILE_HEADER + headers.len() * PROGRAM_HEADER;
    let mut out = vec![0; table];
    let mut moved: Vec<(Range<usize>, usize)> = Vec::new();
    for header in headers.iter_mut().filter(|header| header.kind == PT_LOAD) {
        let bytes = content(file, header)?;
        // A loader clears what is in memory and not in the file: zeros at the end need not be stored.
        let kept = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        let start = next_congruent(out.len(), header.address);
        out.resize(start, 0);
        out.extend_from_slice(&bytes[..kept]);
        moved.push((header.offset..header.offset + bytes.len(), start));
        header.offset = start;
        header.size = kept;
        header.align = PAGE;
    }
    for header in headers.iter_mut().filter(|header| header.kind != PT_LOAD && header.size > 0) {
        let range = header.offset..header.offset + header.size;
        let home = moved.iter().find(|(segment, _)| segment.start <= range.start && range.end <= segment.end);
        let (segment, start) = home.ok_or("has a program header that lies in no segment")?;
        header.offset = start + (range.start - segment.start);
        if header.offset + header.size > out.len() {
            return Err("has a program header that ends in zeros");
        }
    }
    out[..FILE_HEADER].copy_from_slice(&file[..FILE_HEADER]);
    out[32..40].copy_from_slice(&(FILE_HEADER as u64).to_le_bytes());
    out[40..48].fill(0); // no section headers ...
    out[58..64].fill(0); // ... their size, their number, and the one with their names
    for (header, raw) in headers.iter().zip(out[FILE_HEADER..table].chunks_exact_mut(PROGRAM_HEADER)) {
        raw.copy_from_slice(header.raw);
        raw[8..16].copy_from_slice(&(header.offset as u64).to_le_bytes());
        raw[32..40].copy_from_slice(&(header.size as u64).to_le_bytes());
        raw[48..56].copy_from_slice(&(header.align as u64).to_le_bytes());
    }
    Ok(out)
}

struct ProgramHeader<'a> {
    raw: &'a [u8],
    kind: u32,
    offset: usize,
    address: usize,
    size: usize,
    align: usize,
}

fn program_headers(file: &[u8]) -> Result<Vec<ProgramHeader<'_>>, &'static str> {
    let cut = "is cut off in its headers";
    if file.len() < FILE_HEADER {
        return Err(cut);
    }
    if u16_at(file, 54) as usize != PROGRAM_HEADER {
        return Err("has program headers of an unknown size");
    }
    let table = file.get(usize_at(file, 32)..).ok_or(cut)?;
    let table = table.get(..u16_at(file, 56) as usize * PROGRAM_HEADER).ok_or(cut)?;
    let parse = |raw| ProgramHeader {
        raw,
        kind: u32_at(raw, 0),
        offset: usize_at(raw, 8),
        address: usize_at(raw, 16),
        size: usize_at(raw, 32),
        align: usize_at(raw, 48),
    };
    Ok(table.chunks_exact(PROGRAM_HEADER).map(parse).collect())
}

fn content<'a>(file: &'a [u8], header: &ProgramHeader<'_>) -> Result<&'a [u8], &'static str> {
    let end = header.offset.checked_add(header.size);
    end.and_then(|end| file.get(header.offset..end)).ok_or("is cut off in a segment")
}

/// The first offset from `from` on that lies in its page as `address` does in its own.
fn next_congruent(from: usize, address: usize) -> usize {
    from + (address % PAGE + PAGE - from % PAGE) % PAGE
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// Offsets and addresses of a 64-bit file, on the 64-bit machines this runs on.
fn usize_at(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i])) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program header's kind, offset, address and size in the file; it is a page larger in memory.
    type Header = (u32, usize, usize, usize);

    fn elf(headers: &[Header], len: usize, content: &[(usize, &[u8])]) -> Vec<u8> {
        let mut file = vec![0; len];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[40..48].copy_from_slice(&(len as u64).to_le_bytes());
        file[54..56].copy_from_slice(&56u16.to_le_bytes());
        file[56..58].copy_from_slice(&(headers.len() as u16).to_le_bytes());
        file[60..62].copy_from_slice(&9u16.to_le_bytes());
        for (i, (kind, offset, address, size)) in headers.iter().enumerate() {
            let at = 64 + i * 56;
            file[at..at + 4].copy_from_slice(&kind.to_le_bytes());
            let words = [*offset, *address, *address, *size, size + PAGE, 0x20_0000];
            for (word, to) in words.iter().zip(file[at + 8..].chunks_exact_mut(8)) {
                to.copy_from_slice(&(*word as u64).to_le_bytes());
            }
        }
        for (at, bytes) in content {
            file[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        file
    }

    /// What a loader finds: kind, address, bytes, size in memory.
    fn loaded(file: &[u8]) -> Vec<(u32, usize, Vec<u8>, usize)> {
        let headers = program_headers(file).unwrap();
        headers
            .iter()
            .map(|h| (h.kind, h.address, content(file, h).unwrap().to_vec(), usize_at(h.raw, 40)))
            .collect()
    }

    #[test]
    fn segments_are_the_same_in_fewer_bytes() {
        let headers =
            [(PT_LOAD, 0x4000, 0x100_0000, 8), (PT_LOAD, 0x9010, 0x200_0010, 4), (4, 0x4002, 0x100_0002, 3)];
        let file = elf(&headers, 0xa000, &[(0x4000, b"kernel42"), (0x9010, b"data")]);
        let packed = pack(&file).unwrap();
        assert_eq!(loaded(&packed), loaded(&file));
        assert_eq!(packed.len(), 0x1014);
        assert_eq!((usize_at(&packed, 40), u16_at(&packed, 60)), (0, 0), "section headers are gone");
        assert_eq!(pack(&packed).unwrap(), packed);
    }

    #[test]
    fn zeros_at_a_segments_end_are_left_to_the_loader() {
        let file = elf(&[(PT_LOAD, 0x1000, 0x1000, 0x1000)], 0x2000, &[(0x1000, b"abc")]);
        let packed = pack(&file).unwrap();
        assert_eq!(loaded(&packed), [(PT_LOAD, 0x1000, b"abc".to_vec(), 0x2000)]);
        assert_eq!(packed.len(), 0x1003);
    }

    #[test]
    fn broken_files_are_refused() {
        let file = elf(&[(PT_LOAD, 0x1000, 0x1000, 8)], 0x1008, &[(0x1000, b"kernel42")]);
        assert_eq!(pack(b"MZ").unwrap_err(), "is not a 64-bit little-endian ELF file");
        assert_eq!(pack(&file[..40]).unwrap_err(), "is cut off in its headers");
        assert_eq!(pack(&file[..100]).unwrap_err(), "is cut off in its headers");
        assert_eq!(pack(&file[..0x1004]).unwrap_err(), "is cut off in a segment");
        let stray = elf(&[(PT_LOAD, 0x1000, 0x1000, 8), (4, 0x10, 0, 8)], 0x1008, &[(0x1000, b"kernel42")]);
        assert_eq!(pack(&stray).unwrap_err(), "has a program header that lies in no segment");
        let mut big_endian = file;
        big_endian[5] = 2;
        assert!(pack(&big_endian).is_err());
    }
}
