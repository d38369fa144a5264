//! An OCI image layout as the base of an image: its layers, one on the other, in a tree.
//!
//! `index.json` has no digest, so that is where trust in a layout begins; every other blob is read whole, measured and
//! hashed before anything in it counts. A layer is a stranger's archive all the same: what would leave the tree is refused,
//! and so are device nodes and files that together would fill the memory.

mod pax;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use guest_arch::Arch;
use guest_inputs::sha256;
use guest_tree::{Attributes, Kind, Node, Origin, Tree};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use pax::Records;

use crate::error::Error;
use crate::recipe::Base;

/// The annotation by which a layout names its images.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// How deep indexes may nest.
const DEPTH: u32 = 4;
/// The largest JSON document that is read.
const MAX_DOCUMENT: u64 = 4 << 20;
/// The most that a layer, or all files of a base, may be when unpacked: it is held in memory.
const MAX_CONTENT: u64 = 4 << 30;

/// How the key of an extended attribute begins, in all tools that know any.
const XATTR: &str = "SCHILY.xattr.";

/// Before the name of what a layer takes away, and instead of it for all that lower layers have in a directory.
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// An entry of a layer, which is in memory.
type Entry<'a> = tar::Entry<'a, Cursor<&'a [u8]>>;

/// An index or a manifest: whichever it is has the fields of that.
#[derive(Deserialize)]
struct Document {
    manifests: Option<Vec<Descriptor>>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// Puts the files of a base's image for `arch` into the tree.
pub(crate) fn add(tree: &mut Tree, base: &Base, arch: Arch, origin: &Origin) -> Result<(), Error> {
    let added = add_layout(tree, &base.layout, base.reference.as_deref(), arch, origin);
    added.map_err(|what| base.said.place.wrong(what).into())
}

/// The same of a layout that no recipe names; the error is the rest of a sentence about it.
pub(crate) fn add_layout(
    tree: &mut Tree,
    layout: &Path,
    reference: Option<&str>,
    arch: Arch,
    origin: &Origin,
) -> Result<(), String> {
    add_layout_within(tree, layout, reference, arch, origin, MAX_CONTENT)
}

/// The same with less room than that.
pub(crate) fn add_layout_within(
    tree: &mut Tree,
    layout: &Path,
    reference: Option<&str>,
    arch: Arch,
    origin: &Origin,
    most: u64,
) -> Result<(), String> {
    let mut left = most;
    for layer in layers(layout, reference, arch)? {
        let archive = unpacked(&layer, blob(layout, &layer, most)?, most)?;
        put_layer(tree, &archive, origin, &mut left)
            .map_err(|what| format!("layer {}: {what}", layer.digest))?;
    }
    Ok(())
}

/// The layers of the image that is meant, the lowest first.
fn layers(layout: &Path, reference: Option<&str>, arch: Arch) -> Result<Vec<Descriptor>, String> {
    let index = layout.join("index.json");
    let file = File::open(&index).map_err(|e| format!("cannot open {}: {e}", index.display()))?;
    let document: Document = json("index.json", &read_up_to(file, MAX_DOCUMENT)?)?;
    let mut candidates = document.manifests.ok_or("index.json has no list of manifests")?;
    let names: Vec<_> = candidates.iter().filter_map(|d| d.annotations.get(REF_NAME)).cloned().collect();
    match reference {
        Some(name) => candidates.retain(|d| d.annotations.get(REF_NAME).is_some_and(|of| of == name)),
        None if names.iter().any(|name| *name != names[0]) => {
            return Err(format!("it has several images: say one of {}", names.join(", ")));
        }
        None => {}
    }
    if candidates.is_empty() {
        return Err(format!("it has no such image; it has {}", names.join(", ")));
    }
    let found = search(layout, candidates, arch, DEPTH)?;
    found.ok_or_else(|| format!("it has no image for linux/{}", arch.row().oci))
}

/// The first manifest for an architecture, through nested indexes.
fn search(
    layout: &Path,
    among: Vec<Descriptor>,
    arch: Arch,
    depth: u32,
) -> Result<Option<Vec<Descriptor>>, String> {
    let fits = |platform: &Platform| platform.architecture == arch.row().oci && platform.os == "linux";
    for descriptor in among.into_iter().filter(|d| d.platform.as_ref().is_none_or(fits)) {
        let document: Document = json(&descriptor.digest, &blob(layout, &descriptor, MAX_DOCUMENT)?)?;
        if let Some(layers) = document.layers {
            return Ok(Some(layers));
        }
        let Some(inner) = document.manifests else {
            return Err(format!("{} is neither index nor manifest", descriptor.digest));
        };
        if depth == 0 {
            return Err(format!("{}: indexes nest too deep", descriptor.digest));
        }
        if let Some(found) = search(layout, inner, arch, depth - 1)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A blob whose bytes are the ones its descriptor names.
fn blob(layout: &Path, descriptor: &Descriptor, most: u64) -> Result<Vec<u8>, String> {
    let digest = &descriptor.digest;
    let hex = digest.strip_prefix("sha256:").filter(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    });
    let hex = hex.ok_or_else(|| format!("{digest:?} is not a sha256 digest"))?;
    if descriptor.size > most {
        return Err(format!(
            "{digest}: has {} bytes, and there must be no more than {most}",
            descriptor.size
        ));
    }
    let file = File::open(layout.join("blobs/sha256").join(hex));
    let file = file.map_err(|e| format!("cannot open blob {digest}: {e}"))?;
    let bytes = read_up_to(file, descriptor.size)?;
    let found = sha256(&bytes);
    if bytes.len() as u64 != descriptor.size {
        return Err(format!("blob {digest} has {} bytes instead of {}", bytes.len(), descriptor.size));
    }
    if found != hex {
        return Err(format!("blob {digest} has the digest {found}"));
    }
    Ok(bytes)
}

/// At most one byte more than `most`, which is enough to see that there are too many.
fn read_up_to(from: impl Read, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes).map_err(|e| format!("cannot read: {e}"))?;
    if bytes.len() as u64 > most {
        return Err(format!("more than {most} bytes"));
    }
    Ok(bytes)
}

fn json<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|e| format!("{what}: {e}"))
}

/// A layer's tar.
fn unpacked(layer: &Descriptor, bytes: Vec<u8>, most: u64) -> Result<Vec<u8>, String> {
    let broken = |what: String| format!("layer {}: {what}", layer.digest);
    let packing = layer.media_type.rsplit(['+', '.']).next().unwrap_or_default();
    match packing {
        "tar" => Ok(bytes),
        "gzip" => read_up_to(flate2::read::MultiGzDecoder::new(&bytes[..]), most).map_err(broken),
        "zstd" => {
            let decoder = zstd::Decoder::new(&bytes[..]).map_err(|e| broken(e.to_string()))?;
            read_up_to(decoder, most).map_err(broken)
        }
        _ => Err(broken(format!("{:?} is no kind of layer that is known", layer.media_type))),
    }
}

/// One layer onto what is there: first what it takes away, then what it brings, in whatever order both stand in it.
fn put_layer(tree: &mut Tree, archive: &[u8], origin: &Origin, left: &mut u64) -> Result<(), String> {
    let records = pax::records(archive)?;
    let none = Records::new();
    let records = |entry: &Entry<'_>| records.get(&entry.raw_header_position()).unwrap_or(&none);
    for entry in tar::Archive::new(Cursor::new(archive)).entries().map_err(text)? {
        let mut entry = entry.map_err(text)?;
        let records = records(&entry);
        let path = inside(&mut entry, records)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let parent = path.parent().unwrap_or(Path::new(""));
        if name == OPAQUE {
            if let Some(directory) = tree.resolve(parent) {
                let below: Vec<_> = tree.below(&directory).map(|(path, _)| path.to_owned()).collect();
                for path in below {
                    tree.remove(path);
                }
            }
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, "" | "." | "..") {
                return Err(format!("{} takes away what has no name", path.display()));
            }
            tree.remove(parent.join(hidden));
        }
    }
    for entry in tar::Archive::new(Cursor::new(archive)).entries().map_err(text)? {
        let mut entry = entry.map_err(text)?;
        let records = records(&entry);
        let path = inside(&mut entry, records)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(WHITEOUT) {
            continue;
        }
        put_entry(tree, &mut entry, records, &path, origin, left)
            .map_err(|what| format!("entry {}: {what}", path.display()))?;
    }
    Ok(())
}

fn put_entry(
    tree: &mut Tree,
    entry: &mut Entry<'_>,
    records: &Records,
    path: &Path,
    origin: &Origin,
    left: &mut u64,
) -> Result<(), String> {
    use tar::EntryType as T;
    let id = |key: &str, id: io::Result<u64>| {
        let id = records.get(key).map_or_else(|| id.map_err(text), |id| pax::number(id))?;
        u32::try_from(id).map_err(|_| "its owner is beyond 32 bits".to_owned())
    };
    let header = entry.header();
    let mut attributes = Attributes::root(header.mode().map_err(text)? & 0o7777);
    (attributes.uid, attributes.gid) = (id("uid", header.uid())?, id("gid", header.gid())?);
    let target = |entry: &Entry<'_>| -> Result<PathBuf, String> {
        let target = entry.link_name().map_err(text)?.filter(|target| !target.as_os_str().is_empty());
        let target = target.ok_or("is a link to nothing")?;
        no_zero(&target)?;
        Ok(target.into_owned())
    };
    let kind = match header.entry_type() {
        T::Regular | T::Continuous | T::GNUSparse => {
            // The size an entry claims is the size it unpacks to, holes too.
            let larger = || format!("the base is larger than {} GiB", MAX_CONTENT >> 30);
            *left = left.checked_sub(entry.size()).ok_or_else(larger)?;
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(text)?;
            Kind::File(bytes.into())
        }
        T::Directory => Kind::Directory,
        T::Symlink => {
            attributes.mode = 0o777;
            Kind::Symlink(target(entry)?)
        }
        T::Link => {
            let target = plain(&target(entry)?).map_err(|what| format!("its target {what}"))?;
            match tree.get(&target) {
                Some(Node { kind: kind @ Kind::File(_), attributes: of_target, .. }) => {
                    attributes = of_target.clone();
                    kind.clone()
                }
                _ => return Err(format!("is a link to {}, which is no file of the image", target.display())),
            }
        }
        T::Fifo => Kind::Fifo,
        T::Char | T::Block => return Err("is a device node".to_owned()),
        T::XGlobalHeader => return Ok(()),
        other => return Err(format!("is of an unknown kind ({:?})", other.as_byte() as char)),
    };
    if !matches!(kind, Kind::Symlink(_)) {
        let xattrs = records.iter().filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?, value)));
        attributes.xattrs.extend(xattrs.map(|(name, value)| (name.to_owned(), value.clone())));
    }
    let is_directory = kind == Kind::Directory;
    let leads_to_directory = |tree: &Tree| {
        let end = tree.resolve(path).and_then(|end| tree.get(end));
        end.is_some_and(|node| node.kind == Kind::Directory)
    };
    if !is_directory && !path.as_os_str().is_empty() {
        tree.remove(path); // a file of a higher layer replaces even a directory
    } else if !leads_to_directory(tree) {
        tree.remove(path);
    } else if matches!(tree.get(path), Some(Node { kind: Kind::Symlink(_), .. })) {
        return Ok(()); // a directory said again through a link to it
    }
    if !is_directory && path.as_os_str().is_empty() {
        return Err("the root can only be a directory".to_owned());
    }
    tree.replace(path, Node::new(kind, attributes, origin)).map_err(|e| e.to_string())
}

/// An entry's path in the image.
fn inside(entry: &mut Entry<'_>, records: &Records) -> Result<PathBuf, String> {
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let wrong = |what: &str| format!("entry {name:?} {what}");
    pax::check(entry, records).map_err(|what| wrong(&what))?;
    plain(Path::new(OsStr::from_bytes(&entry.path_bytes()))).map_err(wrong)
}

/// A path of an archive without what could lead out of it.
fn plain(path: &Path) -> Result<PathBuf, &'static str> {
    use std::path::Component as C;
    no_zero(path)?;
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            C::Normal(name) => plain.push(name),
            C::CurDir => {}
            C::ParentDir => return Err("has .. in its path"),
            C::RootDir | C::Prefix(_) => return Err("is absolute"),
        }
    }
    Ok(plain)
}

/// A kernel's names end at a zero: what comes behind one would be lost.
fn no_zero(path: &Path) -> Result<(), &'static str> {
    if path.as_os_str().as_bytes().contains(&0) { Err("has a zero byte in its path") } else { Ok(()) }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests;
