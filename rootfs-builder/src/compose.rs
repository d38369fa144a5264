//! From a recipe to the tree of its image.
//!
//! In one order, so that a later source can say more of what an earlier one has put there: base, packages, what of both is
//! pruned, directories, single files, the agent.

use std::fs;
use std::path::{Path, PathBuf};

use guest_arch::Arch;
use guest_tree::{Attributes, Content, Kind, Node, Origin, Tree};

use crate::error::{Error, at};
use crate::recipe::{FileEntry, Recipe, Said, What};
use crate::source::{directory, oci};

/// Where the agent comes from, in the list of contents.
pub(crate) const AGENT: &str = "the agent";

/// What a recipe does not have in itself.
#[derive(Debug)]
pub struct Parts {
    /// The agent's binary.
    pub agent: Content,
}

/// The root file system of a recipe.
pub(crate) fn compose(recipe: &Recipe, arch: Arch, parts: &Parts) -> Result<Tree, Error> {
    let mut tree = Tree::new();
    if let Some(base) = &recipe.base {
        let origin = Origin::from(format!("the base {}", base.said.value));
        oci::add(&mut tree, base, arch, &origin)?;
    }
    clear_set_id(&mut tree, &recipe.set_id)?;
    recipe.prune.iter().try_for_each(|pattern| prune(&mut tree, pattern))?;
    for entry in &recipe.directories {
        let origin = Origin::from(format!("the directory {}", entry.said.value));
        directory::add(&mut tree, Path::new(&entry.path), &entry.from, &origin)?;
    }
    let origin = Origin::from(format!("the recipe {}", recipe.name));
    recipe.files.iter().try_for_each(|entry| file(&mut tree, entry, &origin))?;
    agent(&mut tree, recipe, &parts.agent)?;
    Ok(tree)
}

/// The tree of an extension: a directory, and nothing else.
pub(crate) fn extension(from: &Path, said: &str) -> Result<Tree, Error> {
    let mut tree = Tree::new();
    directory::add(&mut tree, Path::new("/"), from, &Origin::from(format!("the directory {said}")))?;
    Ok(tree)
}

/// A program that lends its owner's rights to whoever runs it is wanted by name or not at all.
fn clear_set_id(tree: &mut Tree, keep: &[Said<String>]) -> Result<(), Error> {
    let mut kept = Vec::new();
    for said in keep {
        let place = tree.resolve(&said.value);
        kept.push(
            place.ok_or_else(|| said.place.wrong(format!("there is no {} in this image", said.value)))?,
        );
    }
    for (path, node) in tree.iter_mut() {
        let is_kept = kept.iter().any(|kept| kept == path);
        // On a directory the group's bit only says which group new files are of.
        if matches!(node.kind, Kind::File(_)) && !is_kept {
            node.attributes.mode &= !0o6000;
        }
    }
    Ok(())
}

fn prune(tree: &mut Tree, pattern: &Said<String>) -> Result<(), Error> {
    let doomed: Vec<PathBuf> = tree
        .iter()
        .filter(|(path, _)| matches(&pattern.value, path))
        .map(|(path, _)| path.to_owned())
        .collect();
    if doomed.is_empty() {
        return Err(pattern.place.wrong(format!("there is no {} to prune", pattern.value)).into());
    }
    for path in doomed {
        tree.remove(path);
    }
    Ok(())
}

/// Whether a pattern is about a path: name by name, `*` for any part of one.
fn matches(pattern: &str, path: &Path) -> bool {
    let mut patterns = Path::new(pattern.trim_start_matches('/')).components();
    let mut names = path.components();
    loop {
        match (patterns.next(), names.next()) {
            (None, None) => return true,
            (Some(pattern), Some(name)) => {
                if !name_matches(&pattern.as_os_str().to_string_lossy(), &name.as_os_str().to_string_lossy())
                {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

fn name_matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<_> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    // Each part at its first place leaves the most for those behind it.
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

fn file(tree: &mut Tree, entry: &FileEntry, origin: &Origin) -> Result<(), Error> {
    let kind = match &entry.what {
        What::Text(text) => Kind::File(text.as_str().into()),
        What::From(_, path) => Kind::File(fs::read(path).map_err(at("read", path))?.into()),
        What::Link(target) => Kind::Symlink(target.into()),
        What::Device { major, minor } => Kind::CharDevice { major: *major, minor: *minor },
        What::Directory => Kind::Directory,
    };
    let attributes = Attributes { uid: entry.owner.0, gid: entry.owner.1, ..Attributes::root(entry.mode) };
    let placed = tree.replace(&entry.path, Node::new(kind, attributes, origin));
    placed.map_err(|error| entry.place.wrong(error.to_string()).into())
}

fn agent(tree: &mut Tree, recipe: &Recipe, binary: &Content) -> Result<(), Error> {
    let origin = Origin::from(AGENT);
    tree.replace(&recipe.agent.path, Node::file(0o755, binary.clone(), &origin))?;
    for link in &recipe.agent.links {
        tree.replace(link, Node::symlink(&recipe.agent.path, &origin))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_name_by_name() {
        let is = |pattern: &str, path: &str| matches(pattern, Path::new(path));
        assert!(is("/usr/share/doc", "usr/share/doc"));
        assert!(!is("/usr/share/doc", "usr/share/doc/x") && !is("/usr/share/doc/x", "usr/share/doc"));
        assert!(is("/usr/lib/*-linux-gnu/gconv", "usr/lib/s390x-linux-gnu/gconv"));
        assert!(!is("/usr/*/gconv", "usr/lib/x/gconv"));
        assert!(is("/a/*b*c", "a/xbxbxc") && is("/a/*", "a/") == is("/a/*", "a"));
        assert!(!is("/a/b*bc", "a/bc"), "one b is not two");
        assert!(is("/a/**", "a/x"));
    }
}
