//! Packages laid into a tree, one over the other, and what there is to say of the result.

use std::collections::{BTreeMap, BTreeSet};

use guest_inputs::{Cache, Progress};
use guest_tree::{Attributes, Content, Kind, Node, Origin, Tree};

use crate::copyright;
use crate::error::{Error, at};
use crate::package::Package;
use crate::unpacked::{self, Unpacked};

/// The packages' files, before anything is changed of them.
#[derive(Debug)]
pub struct Laid {
    /// All files.
    pub tree: Tree,
    /// Each package's copyright file, for a bill of materials. Not every package has one.
    pub copyrights: BTreeMap<String, String>,
    /// What runs with more rights than who starts it: path, mode and origin of set-id files, for somebody to
    /// look at.
    pub set_id: Vec<SetId>,
    /// What dpkg would know: a stanza of its status file for each package.
    pub(crate) status: BTreeMap<String, String>,
}

/// A file whose mode gives rights away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetId {
    /// Without its leading slash.
    pub path: String,
    /// All twelve bits.
    pub mode: u32,
    /// Its owner's number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
    /// Which package has it.
    pub origin: Origin,
}

/// Lays packages into a tree, fetching what the cache does not have.
pub fn lay(packages: &[Package], cache: &Cache, progress: &Progress) -> Result<Laid, Error> {
    let task = progress.task("packages");
    let mut unpacked = Vec::new();
    for (done, package) in packages.iter().enumerate() {
        task.count("unpacking", done as u64, packages.len() as u64);
        unpacked.push((package, Unpacked::of(package, cache, progress)?));
    }
    let mut tree = Tree::new();
    merge_usr(&mut tree, unpacked.iter().flat_map(|(_, unpacked)| &unpacked.entries))?;
    let mut status = BTreeMap::new();
    for (package, unpacked) in &unpacked {
        put_all(&mut tree, &package.origin(), unpacked)?;
        let wrong = |what| Error::Package { package: format!("{} {}", package.name, package.version), what };
        status.insert(package.name.clone(), crate::status::stanza(&unpacked.control).map_err(wrong)?);
    }
    let of_package = |Package { name, .. }: &Package| Some((name.clone(), copyright::text(&tree, name)?));
    let copyrights = packages.iter().filter_map(of_package).collect();
    let set_id = set_id_files(&tree);
    Ok(Laid { tree, copyrights, set_id, status })
}

/// `/bin -> usr/bin` and so on, as every Debian since bookworm wants it: for each directory below the root
/// that has its twin in /usr. Where base-files brings these links itself (trixie) they are the same.
fn merge_usr<'a>(tree: &mut Tree, entries: impl Iterator<Item = &'a unpacked::Entry>) -> Result<(), Error> {
    let origin = Origin::from("the merged /usr");
    let tops = entries.filter_map(|entry| entry.path.split('/').next()).filter(|top| is_merged(top));
    let tops: BTreeSet<_> = ["bin", "lib", "sbin"].into_iter().chain(tops).collect();
    for top in tops {
        tree.put(format!("usr/{top}"), Node::directory(0o755, &origin))?;
        tree.put(top, Node::symlink(format!("usr/{top}"), &origin))?;
    }
    Ok(())
}

/// The directories that usr-merge is about.
fn is_merged(top: &str) -> bool {
    ["bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32"].contains(&top)
}

fn put_all(tree: &mut Tree, origin: &Origin, unpacked: &Unpacked) -> Result<(), Error> {
    for entry in &unpacked.entries {
        if let unpacked::Kind::Symlink(target) = &entry.kind
            && is_merged(&entry.path)
            && target.trim_start_matches('/') == format!("usr/{}", entry.path)
        {
            continue; // laid already
        }
        let kind = match &entry.kind {
            unpacked::Kind::Directory => Kind::Directory,
            unpacked::Kind::Symlink(target) => Kind::Symlink(target.into()),
            unpacked::Kind::File(number) => {
                let path = unpacked.content(*number);
                Kind::File(Content::of_file(&path).map_err(at("read", &path))?)
            }
        };
        let mode = if matches!(kind, Kind::Symlink(_)) { 0o777 } else { entry.mode };
        let attributes = Attributes { uid: entry.uid, gid: entry.gid, ..Attributes::root(mode) };
        tree.put(&entry.path, Node::new(kind, attributes, origin))?;
    }
    Ok(())
}

fn set_id_files(tree: &Tree) -> Vec<SetId> {
    let all = tree
        .iter()
        .filter(|(_, node)| matches!(node.kind, Kind::File(_)) && node.attributes.mode & 0o6000 != 0);
    all.map(|(path, node)| SetId {
        path: path.display().to_string(),
        mode: node.attributes.mode,
        uid: node.attributes.uid,
        gid: node.attributes.gid,
        origin: node.origin.clone(),
    })
    .collect()
}

#[cfg(test)]
mod tests;
