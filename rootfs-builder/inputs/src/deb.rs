//! Debian packages: an `ar` archive whose member `data.tar.*` holds the files. Both layers are read as hostile input.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use crate::{
    error::{Error, at},
    untar,
};

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: usize = 60;

/// Lays the package's files below `into`. No maintainer script is run; owners and times are not kept.
pub fn unpack_deb(deb: &Path, into: &Path) -> Result<(), Error> {
    untar::unpack(deb, open_deb(deb, DebMember::Data)?, into)
}

/// One of the two archives in a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebMember {
    /// `control.tar`: what dpkg knows of the package, and its scripts.
    Control,
    /// `data.tar`: the files.
    Data,
}

impl DebMember {
    const fn stem(self) -> &'static str {
        match self {
            DebMember::Control => "control.tar",
            DebMember::Data => "data.tar",
        }
    }
}

/// One of a package's archives as a plain tar stream, for a reader who wants more of it than [`unpack_deb`] keeps.
pub fn open_deb(deb: &Path, member: DebMember) -> Result<Box<dyn Read>, Error> {
    let stem = member.stem();
    let wrong = |what: String| Error::Package { path: deb.to_owned(), what };
    let mut file = BufReader::new(File::open(deb).map_err(at("open", deb))?);
    let found = find_member(&mut file, stem).map_err(|e| wrong(e.to_string()))?;
    let Some((name, size)) = found else { return Err(wrong(format!("has no {stem}"))) };
    let suffix = name.strip_prefix(stem).unwrap_or_default();
    let data = untar::decoder(suffix, file.take(size)).ok_or_else(|| wrong(format!("cannot read {name}")))?;
    data.map_err(at("read", deb))
}

/// Leaves the reader at the content of the first member whose name begins with `prefix`; gives its name and size.
fn find_member(file: &mut (impl Read + Seek), prefix: &str) -> std::io::Result<Option<(String, u64)>> {
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(std::io::Error::other("is not an ar archive"));
    }
    loop {
        let mut header = [0; HEADER];
        let first = file.read(&mut header[..1])?;
        if first == 0 {
            return Ok(None);
        }
        file.read_exact(&mut header[1..])?;
        let (name, size) =
            parse_header(&header).ok_or_else(|| std::io::Error::other("has a broken ar header"))?;
        if name.starts_with(prefix) {
            return Ok(Some((name, size)));
        }
        // Members begin at even offsets. Ten digits fit into an i64 with room to spare.
        file.seek(SeekFrom::Current((size + size % 2) as i64))?;
    }
}

/// Name in 16 bytes, size as decimal digits at 48, and a fixed end mark.
fn parse_header(header: &[u8; HEADER]) -> Option<(String, u64)> {
    if &header[58..] != b"`\n" {
        return None;
    }
    let text = |bytes| std::str::from_utf8(bytes).ok().map(str::trim_end);
    let name = text(&header[..16])?.trim_end_matches('/').to_owned();
    let digits = text(&header[48..58])?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()); // `parse` would take a sign
    Some((name, plain.then(|| digits.parse().ok())??))
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    fn member(name: &str, content: &[u8]) -> Vec<u8> {
        let head = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, content.len());
        let mut bytes = head.into_bytes();
        bytes.extend(content);
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
        bytes
    }

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        members.iter().for_each(|(name, content)| bytes.extend(member(name, content)));
        bytes
    }

    fn find(bytes: &[u8]) -> Result<Option<(String, u64)>, String> {
        find_member(&mut Cursor::new(bytes), "data.tar").map_err(|e| e.to_string())
    }

    #[test]
    fn the_member_after_an_odd_one_is_found() {
        let bytes = archive(&[("debian-binary", b"2.0"), ("data.tar.xz/", b"xy")]);
        let mut reader = Cursor::new(&bytes);
        assert_eq!(find_member(&mut reader, "data.tar").unwrap(), Some(("data.tar.xz".to_owned(), 2)));
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"xy");
    }

    #[test]
    fn garbage_is_refused_and_absence_is_told() {
        assert_eq!(find(b"PK\x03\x04 not this").unwrap_err(), "is not an ar archive");
        assert!(find(b"!<ar").is_err());
        assert_eq!(find(&archive(&[("control.tar", b"x")])).unwrap(), None);
        let whole = archive(&[("data.tar", b"")]);
        assert!(find(&whole[..whole.len() - 1]).is_err());
        let mut bad = whole.clone();
        *bad.last_mut().unwrap() = b'x';
        assert_eq!(find(&bad).unwrap_err(), "has a broken ar header");
    }

    #[test]
    fn sizes_are_plain_digits() {
        for size in ["-1", "+1", "", "0x10", "1 1"] {
            let mut bytes = archive(&[("data.tar", b"")]);
            let field = format!("{size:<10}");
            bytes[MAGIC.len() + 48..MAGIC.len() + 58].copy_from_slice(field.as_bytes());
            assert_eq!(find(&bytes).unwrap_err(), "has a broken ar header", "{size:?}");
        }
        // A size beyond the end is no member, and no loop either.
        let mut bytes = archive(&[("control", b"")]);
        bytes[MAGIC.len() + 48..MAGIC.len() + 58].copy_from_slice(b"9999999999");
        assert_eq!(find(&bytes).unwrap(), None);
    }

    #[test]
    fn a_package_is_unpacked_whatever_its_compression() {
        let tar = untar::tests::tar(&[("./etc/x", b"hello")]);
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&tar).unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&tar).unwrap();
        let zst = zstd::encode_all(&tar[..], 1).unwrap();
        let all = [
            ("data.tar", tar.clone()),
            ("data.tar.xz", xz.finish().unwrap()),
            ("data.tar.gz", gz.finish().unwrap()),
            ("data.tar.zst", zst),
        ];
        for (name, data) in all {
            let dir = tempfile::tempdir().unwrap();
            let deb = dir.path().join("p.deb");
            std::fs::write(&deb, archive(&[("debian-binary", b"2.0\n"), (name, &data)])).unwrap();
            unpack_deb(&deb, &dir.path().join("root")).unwrap();
            assert_eq!(std::fs::read(dir.path().join("root/etc/x")).unwrap(), b"hello", "{name}");
        }
    }

    #[test]
    fn an_unknown_compression_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let deb = dir.path().join("p.deb");
        std::fs::write(&deb, archive(&[("data.tar.lz9", b"x")])).unwrap();
        let error = unpack_deb(&deb, dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("p.deb: cannot read data.tar.lz9"), "{error}");
    }
}
