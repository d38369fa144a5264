//! PE programs (Microsoft, PE Format), as far as it takes to add sections to one: of headers and the section
//! table all is checked that is relied on, and of contents nothing is touched.

/// The head of the COFF header, behind the signature.
const COFF: usize = 20;

/// An entry of the section table.
const ENTRY: usize = 40;

/// Of the optional header, for 64 bits.
const PE32_PLUS: u16 = 0x20b;

/// The optional header up to its directories.
const FIXED: usize = 112;

/// The directory that says where a signature is.
const CERTIFICATES: usize = 4;

/// Sections that are added begin at a page, so that each can have its own rights in memory.
const PAGE: u32 = 4096;

/// The most that a table says of a contents' size or place.
const MAX: u64 = u32::MAX as u64;

const HAS_CODE: u32 = 0x20;
const HAS_DATA: u32 = 0x40;
const MAY_EXECUTE: u32 = 0x2000_0000;
const MAY_READ: u32 = 0x4000_0000;

/// What is to be added.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section<'a> {
    /// At most eight bytes.
    pub(super) name: &'static str,
    pub(super) content: &'a [u8],
    pub(super) is_code: bool,
}

/// A program whose headers make sense.
#[derive(Debug)]
pub(super) struct Program<'a> {
    bytes: &'a [u8],
    pub(super) machine: u16,
    /// Where the COFF header is.
    coff: usize,
    /// Where the optional header is.
    optional: usize,
    /// Where the section table is.
    table: usize,
    sections: usize,
    alignment: u32,
    file_alignment: u32,
    /// How much of the file is headers.
    headers: usize,
    /// The end of the last section in memory.
    end: u64,
}

/// The machine that a program is for, if it is one.
pub(super) fn machine(bytes: &[u8]) -> Option<u16> {
    u16_at(bytes, coff(bytes)?)
}

impl<'a> Program<'a> {
    /// Reads the headers. An error is the rest of a sentence.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let cut = || "ends within its headers".to_owned();
        let coff = coff(bytes).ok_or("is no PE program")?;
        let optional = coff + COFF;
        let word = |at| u32_at(bytes, at).ok_or_else(cut);
        let half = |at| u16_at(bytes, at).ok_or_else(cut);
        let (machine, sections) = (half(coff)?, usize::from(half(coff + 2)?));
        let optional_length = usize::from(half(coff + 16)?);
        if half(optional)? != PE32_PLUS || optional_length < FIXED {
            return Err("is no program for 64 bits".to_owned());
        }
        let directories = word(optional + 108)? as usize;
        if directories > (optional_length - FIXED) / 8 {
            return Err("has more directories than room for them".to_owned());
        }
        if directories > CERTIFICATES && word(optional + FIXED + 8 * CERTIFICATES + 4)? != 0 {
            return Err("is signed, and with more sections it would not be".to_owned());
        }
        let (alignment, file_alignment) = (word(optional + 32)?, word(optional + 36)?);
        if !alignment.is_power_of_two()
            || !file_alignment.is_power_of_two()
            || alignment > 1 << 20
            || file_alignment > 1 << 16
        {
            return Err(format!(
                "has sections aligned to {alignment:#x}, and to {file_alignment:#x} in the file"
            ));
        }
        let headers = word(optional + 60)? as usize;
        let table = optional + optional_length;
        let mut program = Program {
            bytes,
            machine,
            coff,
            optional,
            table,
            sections,
            alignment,
            file_alignment,
            headers,
            end: 0,
        };
        if headers > bytes.len() || program.table_end(0) > headers {
            return Err(cut());
        }
        for entry in bytes[table..program.table_end(0)].chunks(ENTRY) {
            program.end = program.end.max(program.check(entry)?);
        }
        Ok(program)
    }

    /// The program with more sections, behind all that are there.
    pub(super) fn with(&self, added: &[Section<'_>]) -> Result<Vec<u8>, String> {
        let full = || format!("has no room for {} more sections", added.len());
        if self.table_end(added.len()) > self.headers || !self.is_filler(added.len()) {
            return Err(full());
        }
        let mut bytes = self.bytes.to_vec();
        let mut memory = self.end;
        let (mut code, mut data) = (0, 0);
        for (index, section) in added.iter().enumerate() {
            memory = memory.next_multiple_of(u64::from(self.alignment.max(PAGE)));
            self.align(&mut bytes);
            let place = bytes.len() as u64;
            bytes.extend(section.content);
            self.align(&mut bytes);
            let raw = bytes.len() as u64 - place;
            let length = section.content.len() as u64;
            if memory + length > MAX || place + raw > MAX {
                return Err("with all parts would be larger than 4 GiB".to_owned());
            }
            let rights = if section.is_code { HAS_CODE | MAY_EXECUTE } else { HAS_DATA } | MAY_READ;
            *if section.is_code { &mut code } else { &mut data } += raw as u32;
            let at = self.table_end(index);
            bytes[at..at + ENTRY].fill(0);
            bytes[at..at + section.name.len()].copy_from_slice(section.name.as_bytes());
            for (field, number) in
                [(8, length as u32), (12, memory as u32), (16, raw as u32), (20, place as u32), (36, rights)]
            {
                put(&mut bytes, at + field, number);
            }
            memory += length;
        }
        let sections = u16::try_from(self.sections + added.len()).map_err(|_| full())?;
        bytes[self.coff + 2..self.coff + 4].copy_from_slice(&sections.to_le_bytes());
        for (field, more) in [(4, code), (8, data)] {
            let there = u32_at(&bytes, self.optional + field).unwrap_or_default();
            put(&mut bytes, self.optional + field, there.saturating_add(more));
        }
        let size = memory.next_multiple_of(u64::from(self.alignment));
        let size = u32::try_from(size).map_err(|_| "with all parts would be larger than 4 GiB".to_owned())?;
        put(&mut bytes, self.optional + 56, size);
        put(&mut bytes, self.optional + 64, 0);
        Ok(bytes)
    }

    /// One section's entry; gives its end in memory.
    fn check(&self, entry: &[u8]) -> Result<u64, String> {
        let name = String::from_utf8_lossy(&entry[..8]).trim_end_matches('\0').to_owned();
        let word = |at| u32_at(entry, at).map(u64::from).unwrap_or_default();
        let (length, memory, raw, place) = (word(8), word(12), word(16), word(20));
        if place + raw > self.bytes.len() as u64 || memory + length.max(raw) > MAX {
            return Err(format!("has a section {name:?} that is not all there"));
        }
        if [".osrel", ".cmdline", ".uname", ".initrd", ".linux"].contains(&name.as_str()) {
            return Err(format!("has a section {name:?} already"));
        }
        Ok(memory + length.max(raw))
    }

    /// Whether nothing is lost with what stands where so many more entries would: it is one word again and
    /// again, zeros or an instruction that does nothing, with which arm64's stub is filled up.
    fn is_filler(&self, entries: usize) -> bool {
        let place = &self.bytes[self.table_end(0)..self.table_end(entries)];
        place.chunks(4).all(|word| word == &place[..4])
    }

    /// Where the section table ends with so many sections more.
    fn table_end(&self, more: usize) -> usize {
        self.table + (self.sections + more) * ENTRY
    }

    fn align(&self, bytes: &mut Vec<u8>) {
        bytes.resize(bytes.len().next_multiple_of(self.file_alignment as usize), 0);
    }
}

/// Where the COFF header is.
fn coff(bytes: &[u8]) -> Option<usize> {
    let at = u32_at(bytes, 0x3c)? as usize;
    let is_program = bytes.starts_with(b"MZ") && bytes.get(at..)?.starts_with(b"PE\0\0");
    is_program.then_some(at + 4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}
