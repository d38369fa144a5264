//! Two builds of the same, byte by byte: on a difference the file, the offset, and what of the image is there.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use crate::diff;
use crate::error::{Error, at};
use crate::parts::{self, Part};

/// So many files of an image are named, and the others counted.
const NAMED: usize = 8;

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
        let paths = [one, other].map(|dir| dir.join(name));
        if let Some(offset) = first_difference(&paths[0], &paths[1])? {
            lines.extend(file(name, offset, &paths)?);
        }
    }
    if !lines.is_empty() {
        lines.extend(diff::diff(one, other)?);
    }
    Ok(lines)
}

/// What there is to say of a file of both sets: where the difference begins and what is there; then, since what is first
/// in an image is often no more than its name, a digest of all the rest, which files in it differ.
fn file(name: &str, offset: u64, paths: &[PathBuf; 2]) -> Result<Vec<String>, Error> {
    let read = |path: &PathBuf| fs::read(path).map_err(at("read", path));
    let (first, second) = (read(&paths[0])?, read(&paths[1])?);
    let said = format!("{name}: differs from byte {offset} on");
    let Some(ours) = parts::of(name, &first) else {
        return Ok(vec![said]);
    };
    let place = parts::at(&ours, offset).map(|place| format!(", in {place}")).unwrap_or_default();
    let mut lines = vec![said + &place];
    let Some(theirs) = parts::of(name, &second) else {
        lines.push(format!("{name}: the second one's files cannot be read"));
        return Ok(lines);
    };
    let theirs: HashMap<&str, &Part<'_>> = theirs.iter().map(|part| (part.name.as_str(), part)).collect();
    let differing = ours.iter().filter(|part| !part.is_derived).filter_map(|part| {
        let at = part.first_difference(theirs.get(part.name.as_str())?)?;
        Some((part, at))
    });
    let differing: Vec<_> = differing.collect();
    // What was said already is not said again.
    let news = differing.iter().filter(|(part, at)| part.place(*at) != Some(offset)).map(|(part, at)| {
        let place = part.place(*at).map(|at| format!(", byte {at} of the image")).unwrap_or_default();
        format!("{name}: {} in it differs from its byte {at} on{place}", part.name)
    });
    lines.extend(news.take(NAMED));
    if differing.len() > NAMED {
        lines.push(format!("{name}: {} files in it differ", differing.len()));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use guest_tree::{Kind, Node, Origin};

    use super::*;
    use crate::Format;
    use crate::image::tests::made_with;
    use crate::parts::tests::LARGE;

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
                format!("initrd.cpio: differs from byte {at} on, in /sbin/init at its byte 0"),
            ]
        );
    }

    /// What is said of two images in a format, the second of which is of a changed tree, or changed itself.
    fn said(format: Format, ours: &[u8], theirs: &[u8]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| dir.path().join(name));
        fs::write(&paths[0], ours).unwrap();
        fs::write(&paths[1], theirs).unwrap();
        let offset = first_difference(&paths[0], &paths[1]).unwrap().unwrap();
        file(format.file(), offset, &paths).unwrap()
    }

    #[test]
    fn a_changed_byte_is_told_by_the_file_it_is_in_in_every_format() {
        let tree = parts::tests::tree();
        let mut changed = tree.clone();
        let Kind::File(content) = &tree.get(LARGE).unwrap().kind else { unreachable!() };
        let mut bytes = content.bytes().unwrap().to_vec();
        bytes[299_990] ^= 1;
        let needle = bytes[299_980..299_990].to_vec();
        changed.replace(LARGE, Node::file(0o644, bytes, &Origin::from("test"))).unwrap();
        for format in Format::ALL {
            let name = format!("{}: {}{LARGE}", format.file(), parts::tests::prefix(format));
            let ours = parts::tests::image(format, &tree);
            // Another content has another digest, and so the image another name: that is what differs first.
            let lines = said(format, &ours, &parts::tests::image(format, &changed));
            let told =
                |line: &String| line.starts_with(&format!("{name} in it differs from its byte 299990 on"));
            let first =
                lines[0].ends_with(&format!("in {}{LARGE} at its byte 299990", parts::tests::prefix(format)));
            assert!(first || lines.iter().any(told), "{lines:?}");
            assert!(lines.len() <= 2, "{lines:?}");
            if parts::tests::is_plain(format) {
                let at = parts::tests::find(&ours, &needle) + 10;
                let mut flipped = ours.clone();
                flipped[at] ^= 1;
                let name = format!("{}{LARGE}", parts::tests::prefix(format));
                let expected =
                    format!("{}: differs from byte {at} on, in {name} at its byte 299990", format.file());
                assert_eq!(said(format, &ours, &flipped), [expected]);
            }
        }
    }

    #[test]
    fn a_file_more_moves_all_others_and_is_no_difference_of_them() {
        let tree = parts::tests::tree();
        let mut changed = tree.clone();
        changed.put("/aaa", Node::file(0o644, vec![1; 9000], &Origin::from("test"))).unwrap();
        for format in Format::ALL {
            let images = [&tree, &changed].map(|tree| parts::tests::image(format, tree));
            let lines = said(format, &images[0], &images[1]);
            assert_eq!(lines.len(), 1, "{lines:?}");
        }
    }

    #[test]
    fn an_image_that_cannot_be_read_is_told_as_that() {
        let ours = parts::tests::image(Format::Erofs, &parts::tests::tree());
        let mut theirs = ours.clone();
        theirs[1024] ^= 1;
        assert_eq!(
            said(Format::Erofs, &ours, &theirs),
            [
                "rootfs.erofs: differs from byte 1024 on, in its own metadata",
                "rootfs.erofs: the second one's files cannot be read"
            ]
        );
    }
}
