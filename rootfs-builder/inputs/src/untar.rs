//! Unpacks tar archives below one directory. Whatever an entry claims, nothing is written outside it: names with `..`,
//! absolute names, and names that lead through a symbolic link are refused, not repaired.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

use tar::EntryType;

use crate::error::{Error, at};

/// Unpacks `archive` (`.tar`, `.tar.xz`, `.tar.gz`, `.tar.zst`) into `into`. Owners, times and set-id bits are not kept.
pub fn unpack_tar(archive: &Path, into: &Path) -> Result<(), Error> {
    let name = archive.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let suffix = name.rsplit_once(".tar").map_or("", |(_, suffix)| suffix);
    let data = open_compressed(archive, suffix)?;
    unpack(archive, data, into)
}

/// The content of a compressed file. `suffix` says how it is compressed (`.xz`, `.gz`, `.zst`, or nothing).
pub fn open_compressed(path: &Path, suffix: &str) -> Result<Box<dyn Read>, Error> {
    let file = BufReader::new(File::open(path).map_err(at("open", path))?);
    let unknown =
        || Error::Package { path: path.to_owned(), what: format!("unknown compression {suffix:?}") };
    decoder(suffix, file).ok_or_else(unknown)?.map_err(at("read", path))
}

/// The decoder for what stands behind `.tar`; none for an unknown one.
pub(crate) fn decoder<'a>(suffix: &str, data: impl Read + 'a) -> Option<io::Result<Box<dyn Read + 'a>>> {
    Some(match suffix {
        "" => Ok(Box::new(data)),
        ".xz" => Ok(Box::new(liblzma::read::XzDecoder::new_multi_decoder(data))),
        ".gz" => Ok(Box::new(flate2::read::MultiGzDecoder::new(data))),
        ".zst" => zstd::Decoder::new(data).map(|d| Box::new(d) as Box<dyn Read>),
        _ => return None,
    })
}

/// Unpacks a plain tar stream; `archive` is its name in errors.
pub(crate) fn unpack(archive: &Path, data: impl Read, into: &Path) -> Result<(), Error> {
    fs::create_dir_all(into).map_err(at("create", into))?;
    let mut tar = tar::Archive::new(data);
    for entry in tar.entries().map_err(at("read", archive))? {
        place(archive, entry.map_err(at("read", archive))?, into)?;
    }
    Ok(())
}

fn place(archive: &Path, mut entry: tar::Entry<'_, impl Read>, into: &Path) -> Result<(), Error> {
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let refuse =
        |what: &str| Error::Entry { path: archive.to_owned(), entry: name.clone(), what: what.to_owned() };
    let kind = entry.header().entry_type();
    if matches!(kind, EntryType::XGlobalHeader) {
        return Ok(()); // carries no file
    }
    let path = entry.path().map_err(at("read an entry name of", archive))?.into_owned();
    let inside = confined(&path).map_err(refuse)?;
    let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
    make_parents(&inside, into).map_err(refuse)?;
    let to = into.join(&inside);
    match kind {
        EntryType::Directory => match fs::symlink_metadata(&to) {
            Ok(there) if there.is_dir() => Ok(()),
            Ok(_) => return Err(refuse("is a directory where something else stands")),
            Err(_) => fs::create_dir(&to),
        }
        // Ours to write in, whatever the archive says: the next entries go there.
        .and_then(|()| fs::set_permissions(&to, PermissionsExt::from_mode(mode | 0o700))),
        EntryType::Regular | EntryType::Continuous => write_file(&mut entry, &to, mode),
        EntryType::Symlink => {
            let target = entry.link_name().map_err(at("read an entry of", archive))?;
            let target = target.ok_or_else(|| refuse("is a link to nothing"))?;
            if climbs_out(inside.parent().unwrap_or(Path::new("")), &target) {
                return Err(refuse("is a link out of the archive"));
            }
            symlink(&target, &to)
        }
        EntryType::Link => {
            let target = entry.link_name().map_err(at("read an entry of", archive))?;
            let target = confined(&target.ok_or_else(|| refuse("is a link to nothing"))?).map_err(refuse)?;
            make_parents(&target, into).map_err(refuse)?;
            fs::hard_link(into.join(target), &to)
        }
        _ => return Err(refuse("is neither file, directory nor link")),
    }
    .map_err(at("unpack", to.clone()))
}

fn write_file(entry: &mut impl Read, to: &Path, mode: u32) -> io::Result<()> {
    // create_new follows no link and overwrites nothing: an archive that names a file twice is broken.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode | 0o600).open(to)?;
    file.set_permissions(PermissionsExt::from_mode(mode))?; // the umask had its say above
    io::copy(entry, &mut file).map(|_| ())
}

/// The name of an archive's entry without `./`, or what is wrong with one that could lead out.
pub fn confined(path: &Path) -> Result<PathBuf, &'static str> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => inside.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err("has .. in its name"),
            Component::RootDir | Component::Prefix(_) => return Err("is absolute"),
        }
    }
    Ok(inside)
}

/// Makes the directories above an entry, each of which must be a real one.
fn make_parents(inside: &Path, into: &Path) -> Result<(), &'static str> {
    let mut above = into.to_owned();
    for part in inside.parent().into_iter().flat_map(Path::components) {
        above.push(part);
        match fs::symlink_metadata(&above) {
            Ok(there) if there.is_dir() => {}
            Ok(there) if there.is_symlink() => return Err("leads through a symbolic link"),
            Ok(_) => return Err("leads through a file"),
            Err(_) => fs::create_dir(&above).map_err(|_| "has a parent that cannot be made")?,
        }
    }
    Ok(())
}

/// Whether a relative link in `dir` climbs above the root. An absolute one is kept: it means the root of the tree it is
/// part of, and is never followed here.
fn climbs_out(dir: &Path, target: &Path) -> bool {
    let mut depth = dir.components().count();
    for part in target.components() {
        match part {
            Component::ParentDir if depth == 0 => return true,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            Component::RootDir => return false,
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    false
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A tar of plain files.
    pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        entries(&files.iter().map(|(n, c)| (*n, EntryType::Regular, "", *c)).collect::<Vec<_>>())
    }

    /// Headers are filled byte by byte: the tar crate refuses to write most of what must be refused here.
    fn entries(all: &[(&str, EntryType, &str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, link, content) in all {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o4755);
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn run(all: &[(&str, EntryType, &str, &[u8])], into: &Path) -> Result<(), String> {
        unpack(Path::new("a.tar"), &entries(all)[..], into).map_err(|e| e.to_string())
    }

    #[test]
    fn escapes_are_refused() {
        let (file, link, hard) = (EntryType::Regular, EntryType::Symlink, EntryType::Link);
        type Entries = Vec<(&'static str, EntryType, &'static str, &'static [u8])>;
        let cases: Vec<(Entries, &str)> = vec![
            (vec![("../evil", file, "", b"x")], "has .. in its name"),
            (vec![("a/../../evil", file, "", b"x")], "has .. in its name"),
            (vec![("/evil", file, "", b"x")], "is absolute"),
            (vec![("l", link, "../..", b"")], "is a link out of the archive"),
            (vec![("l", link, "/", b""), ("l/evil", file, "", b"x")], "leads through a symbolic link"),
            (vec![("d/l", link, "..", b""), ("d/l/evil", file, "", b"x")], "leads through a symbolic link"),
            (vec![("h", hard, "../evil", b"")], "has .. in its name"),
            (vec![("l", link, "/etc", b""), ("h", hard, "l/passwd", b"")], "leads through a symbolic link"),
            (vec![("f", file, "", b""), ("f/evil", file, "", b"")], "leads through a file"),
            (vec![("c", EntryType::Char, "", b"")], "is neither file, directory nor link"),
        ];
        for (all, what) in cases {
            let dir = tempfile::tempdir().unwrap();
            let error = run(&all, &dir.path().join("in")).unwrap_err();
            assert!(error.ends_with(what) && error.starts_with("archive a.tar: entry "), "{error} / {what}");
            assert!(!dir.path().join("evil").exists());
        }
    }

    #[test]
    fn a_file_through_a_planted_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        fs::write(&target, "safe").unwrap();
        let all = [("l", EntryType::Symlink, "/tmp/x", &b""[..]), ("l", EntryType::Regular, "", b"evil")];
        assert!(run(&all, &dir.path().join("in")).is_err());
        assert_eq!(fs::read_to_string(target).unwrap(), "safe");
    }

    #[test]
    fn files_links_and_modes() {
        let dir = tempfile::tempdir().unwrap();
        let all = [
            ("./usr/bin/", EntryType::Directory, "", &b""[..]),
            ("./usr/bin/a", EntryType::Regular, "", b"a"),
            ("./usr/bin/b", EntryType::Symlink, "a", b""),
            ("./usr/c", EntryType::Link, "./usr/bin/a", b""),
        ];
        run(&all, dir.path()).unwrap();
        assert_eq!(fs::read(dir.path().join("usr/bin/b")).unwrap(), b"a");
        assert_eq!(fs::read(dir.path().join("usr/c")).unwrap(), b"a");
        let mode = fs::metadata(dir.path().join("usr/bin/a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "no set-id bit survives");
    }

    #[test]
    fn a_truncated_archive_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let whole = tar(&[("f", &[7; 2000])]);
        assert!(unpack(Path::new("a.tar"), &whole[..1500], dir.path()).is_err());
        assert!(unpack(Path::new("a.tar"), &[0x55; 700][..], dir.path()).is_err());
    }

    #[test]
    fn links_may_stay_inside() {
        assert!(!climbs_out(Path::new("a/b"), Path::new("../../c")));
        assert!(climbs_out(Path::new("a/b"), Path::new("../../../c")));
        assert!(climbs_out(Path::new("a"), Path::new("x/../../../x")));
    }
}
