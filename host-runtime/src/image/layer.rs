//! One layer onto the tree. A layer is read twice: once to check its digests and to learn what it hides of the layers
//! below, then to unpack it. So nothing of a broken layer reaches the tree, and the order of entries does not matter.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::Error;
use super::blob::{Blobs, Hashing};
use super::layout::Layer;
use super::tree::{Kind, Meta, Tree};

const HIDE: &str = ".wh.";
const HIDE_ALL: &str = ".wh..wh..opq";

/// Something a layer removes.
#[derive(Debug, PartialEq)]
enum Whiteout {
    /// A path.
    One(PathBuf),
    /// All that lower layers have in a directory.
    Below(PathBuf),
}

/// Applies `layer` to `tree`.
pub(super) fn apply(layer: &Layer, blobs: &Blobs, tree: &mut Tree, stop: &AtomicBool) -> Result<(), Error> {
    let mut whiteouts = Vec::new();
    walk(layer, blobs, stop, |entry| {
        if let Some(whiteout) = whiteout(&entry.path()?) {
            whiteouts.push(whiteout);
        }
        Ok(())
    })?;
    for whiteout in whiteouts {
        let (path, done) = match &whiteout {
            Whiteout::One(path) => (path, tree.remove(path)),
            Whiteout::Below(path) => (path, tree.empty(path)),
        };
        done.map_err(|source| entry_error(layer, path, source))?;
    }
    let mut directories = Vec::new();
    walk(layer, blobs, stop, |mut entry| {
        let path = entry.path()?.into_owned();
        if whiteout(&path).is_some() {
            return Ok(());
        }
        let Some((kind, meta)) = describe(&entry)? else { return Ok(()) };
        if kind == Kind::Directory {
            directories.push((path.clone(), meta.mtime));
        }
        tree.add(&path, &kind, &meta, &mut entry)
    })?;
    // Last, because every entry made in a directory has changed its time.
    for (path, mtime) in directories {
        tree.set_time(&path, mtime).map_err(|source| entry_error(layer, &path, source))?;
    }
    Ok(())
}

/// Visits every entry, then compares both digests.
fn walk(
    layer: &Layer,
    blobs: &Blobs,
    stop: &AtomicBool,
    mut visit: impl FnMut(tar::Entry<'_, &mut dyn Read>) -> io::Result<()>,
) -> Result<(), Error> {
    let mut blob = blobs.open(&layer.blob)?;
    let visited = (|| {
        let mut content = Hashing::new(decoder(layer, &mut blob)?);
        let reader: &mut dyn Read = &mut content;
        let mut archive = tar::Archive::new(reader);
        let broken = |source| entry_error(layer, Path::new("tar"), source);
        for entry in archive.entries().map_err(broken)? {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            let entry = entry.map_err(broken)?;
            let path = entry.path().map(|path| path.into_owned()).unwrap_or_default();
            visit(entry).map_err(|source| entry_error(layer, &path, source))?;
        }
        // Padding behind the archive's end belongs to the content too.
        io::copy(&mut content, &mut io::sink()).map_err(broken)?;
        let (_, found) = content.finish();
        if found == layer.diff_id {
            Ok(())
        } else {
            Err(Error::Digest { digest: layer.diff_id.clone(), found })
        }
    })();
    match visited {
        Err(Error::Stopped) => Err(Error::Stopped),
        // Damage shows first as nonsense in the archive, but what matters is that the blob is not the right one.
        Err(e) => blob.finish().and(Err(e)),
        Ok(()) => blob.finish(),
    }
}

fn entry_error(layer: &Layer, path: &Path, source: io::Error) -> Error {
    let entry = crate::log::printable(&path.to_string_lossy());
    Error::Entry { layer: layer.blob.digest().to_string(), entry, source }
}

fn decoder<'a>(layer: &Layer, blob: &'a mut impl Read) -> Result<Box<dyn Read + 'a>, Error> {
    let kind = layer.blob.media_type().to_string();
    if kind.ends_with("gzip") {
        return Ok(Box::new(flate2::read::MultiGzDecoder::new(blob)));
    }
    if kind.ends_with("zstd") {
        let decoder = zstd::Decoder::new(blob).map_err(|e| entry_error(layer, Path::new("zstd"), e))?;
        return Ok(Box::new(decoder));
    }
    if kind.ends_with("tar") {
        return Ok(Box::new(blob));
    }
    Err(Error::Unsupported { digest: layer.blob.digest().to_string(), kind })
}

/// What a path hides, if it is a marker.
fn whiteout(path: &Path) -> Option<Whiteout> {
    let name = path.file_name()?.to_str()?;
    let parent = path.parent().unwrap_or(Path::new(""));
    if name == HIDE_ALL {
        return Some(Whiteout::Below(parent.to_path_buf()));
    }
    name.strip_prefix(HIDE).map(|hidden| Whiteout::One(parent.join(hidden)))
}

/// What an entry makes. `None` for entries that make nothing, such as pax headers for all that follows.
fn describe<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<Option<(Kind, Meta)>> {
    use tar::EntryType as T;
    let header = entry.header();
    let target = || -> io::Result<PathBuf> {
        let link = entry.link_name()?.ok_or_else(|| io::Error::other("a link without a target"))?;
        Ok(link.into_owned())
    };
    let device = || -> io::Result<(u64, u64)> {
        Ok((header.device_major()?.unwrap_or(0).into(), header.device_minor()?.unwrap_or(0).into()))
    };
    let kind = match header.entry_type() {
        T::Regular | T::Continuous | T::GNUSparse => Kind::File,
        T::Directory => Kind::Directory,
        T::Symlink => Kind::Symlink(target()?),
        T::Link => Kind::Hardlink(target()?),
        T::Char => Kind::Char(device()?),
        T::Block => Kind::Block(device()?),
        T::Fifo => Kind::Fifo,
        _ => return Ok(None),
    };
    let id = |id: u64| u32::try_from(id).map_err(|_| io::Error::other("an owner beyond 32 bits"));
    let meta = Meta {
        mode: header.mode()? & 0o7777,
        uid: id(header.uid()?)?,
        gid: id(header.gid()?)?,
        mtime: i64::try_from(header.mtime()?).unwrap_or(0),
    };
    Ok(Some((kind, meta)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_told_from_names() {
        assert_eq!(whiteout(Path::new("a/.wh.b")), Some(Whiteout::One("a/b".into())));
        assert_eq!(whiteout(Path::new(".wh.b")), Some(Whiteout::One("b".into())));
        assert_eq!(whiteout(Path::new("a/.wh..wh..opq")), Some(Whiteout::Below("a".into())));
        assert_eq!(whiteout(Path::new("a/wh.b")), None);
    }
}
