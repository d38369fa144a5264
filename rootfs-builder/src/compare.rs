//! Two builds of the same, byte by byte: on a difference the file, the offset, and what of the image is there.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use crate::diff;
use crate::error::{Error, at};

/// The first difference of two files: where it is, counted from zero. Nothing if they are the same.
pub fn first_difference(one: &Path, other: &Path) -> Result<Option<u64>, Error> {
    let open = |path: &Path| File::open(path).map(BufReader::new).map_err(at("open", path));
    let (mut a, mut b) = (open(one)?, open(other)?);
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut offset = 0;
    loop {
        let (n, m) = (
            fill(&mut a, &mut left).map_err(at("read", one))?,
            fill(&mut b, &mut right).map_err(at("read", other))?,
        );
        if let Some(at) = left[..n.min(m)].iter().zip(&right[..n.min(m)]).position(|(a, b)| a != b) {
            return Ok(Some(offset + at as u64));
        }
        offset += n.min(m) as u64;
        if n != m {
            return Ok(Some(offset));
        }
        if n == 0 {
            return Ok(None);
        }
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// Every file of two sets; a line for each that differs, and for the files in their images that do.
pub fn sets(one: &Path, other: &Path) -> Result<Vec<String>, Error> {
    let names = |dir: &Path| -> Result<Vec<String>, Error> {
        let entries = fs::read_dir(dir).map_err(at("list", dir))?;
        let mut names: Vec<_> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    };
    let (left, right) = (names(one)?, names(other)?);
    let mut lines = Vec::new();
    for name in left.iter().filter(|name| !right.contains(name)) {
        lines.push(format!("{name}: only the first build has it"));
    }
    for name in right.iter().filter(|name| !left.contains(name)) {
        lines.push(format!("{name}: only the second build has it"));
    }
    for name in left.iter().filter(|name| right.contains(name)) {
        if let Some(offset) = first_difference(&one.join(name), &other.join(name))? {
            let near = near(&one.join(name), offset)?;
            lines.push(format!("{name}: differs from byte {offset} on{near}"));
        }
    }
    if !lines.is_empty() {
        lines.extend(diff::diff(one, other)?);
    }
    Ok(lines)
}

/// The entry of a plain cpio archive that an offset is in; of anything else there is no telling.
fn near(path: &Path, offset: u64) -> Result<String, Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if !name.ends_with(".cpio") {
        return Ok(String::new());
    }
    let bytes = fs::read(path).map_err(at("read", path))?;
    Ok(cpio_entry(&bytes, offset).map(|entry| format!(", in /{entry}")).unwrap_or_default())
}

/// Walks the headers of a "newc" archive to the entry that holds an offset.
fn cpio_entry(archive: &[u8], offset: u64) -> Option<String> {
    let mut at = 0usize;
    loop {
        let header = archive.get(at..at.checked_add(110)?)?;
        let number = |index: usize| {
            let field = header.get(6 + 8 * index..14 + 8 * index)?;
            usize::from_str_radix(std::str::from_utf8(field).ok()?, 16).ok()
        };
        let (size, name_size) = (number(6)?, number(11)?);
        let name = archive.get(at + 110..at.checked_add(110 + name_size)?)?;
        let end = (at + 110 + name_size).next_multiple_of(4).checked_add(size)?.next_multiple_of(4);
        if offset < end as u64 {
            return Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned());
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;
    use crate::image::tests::made_with;

    #[test]
    fn the_first_difference_is_where_bytes_or_lengths_part() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        let long = vec![7; 200_000];
        let mut changed = long.clone();
        changed[150_000] = 8;
        for (one, other, expected) in [
            (&long[..], &long[..], None),
            (&long, &changed, Some(150_000)),
            (&long, &long[..70_000], Some(70_000)),
            (b"", b"x", Some(0)),
        ] {
            fs::write(&a, one).unwrap();
            fs::write(&b, other).unwrap();
            assert_eq!(first_difference(&a, &b).unwrap(), expected);
            assert_eq!(first_difference(&b, &a).unwrap(), expected);
        }
    }

    #[test]
    fn a_difference_names_file_offset_and_entry() {
        let formats = [Format::Initrd(initrd::Compression::None)];
        let [one, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let sets_of = [&one, &other].map(|dir| made_with(dir.path(), &formats).dir);
        assert_eq!(sets(&sets_of[0], &sets_of[1]).unwrap(), Vec::<String>::new());
        let path = sets_of[1].join("initrd.cpio");
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(5).position(|window| window == b"agent").unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        fs::write(sets_of[1].join("odd"), "").unwrap();
        let lines = sets(&sets_of[0], &sets_of[1]).unwrap();
        assert_eq!(
            lines,
            [
                "odd: only the second build has it".to_owned(),
                format!("initrd.cpio: differs from byte {at} on, in /sbin/init"),
            ]
        );
    }
}
