//! From a recipe to the tree of its image.
//!
//! In one order, so that a later source can say more of what an earlier one has put there: base or packages, what of them is
//! pruned, directories, single files, the agent; and what a system of packages needs when all is there.

use std::path::Path;

use guest_arch::Arch;
use guest_debian::Laid;
use guest_tree::{Attributes, Content, Kind, Node, Origin, Tree};

use crate::error::Error;
use crate::recipe::{Extension, FileEntry, Recipe, Said, What};
use crate::source::{directory, oci};

/// Where the agent comes from, in the list of contents.
pub(crate) const AGENT: &str = "the agent";

/// The root file system of a recipe, with its agent and its packages.
pub(crate) fn compose(
    recipe: &Recipe,
    arch: Arch,
    binary: Content,
    mut packages: Option<Laid>,
    busybox: Option<&Path>,
) -> Result<Tree, Error> {
    let mut tree = match &mut packages {
        Some(laid) => std::mem::take(&mut laid.tree),
        None => Tree::new(),
    };
    if let Some(base) = &recipe.base {
        let origin = Origin::from(format!("the base {}", base.said.value));
        oci::add(&mut tree, base, arch, &origin)?;
    }
    if let Some(layout) = busybox {
        oci::add_layout(&mut tree, layout, Some("latest"), arch, &Origin::from("busybox"))
            .map_err(Error::Busybox)?;
    }
    crate::packages::prune(&mut tree, recipe)?;
    clear_set_id(&mut tree, &recipe.set_id)?;
    for entry in &recipe.directories {
        let origin = Origin::from(format!("the directory {}", entry.said.value));
        directory::add(&mut tree, Path::new(&entry.path), &entry.from, &origin)?;
    }
    let origin = Origin::from(format!("the recipe {}", recipe.name));
    recipe.files.iter().try_for_each(|entry| file(&mut tree, entry, &origin))?;
    agent(&mut tree, recipe, binary)?;
    match packages {
        Some(mut laid) => {
            laid.tree = tree;
            crate::packages::finish(laid, &recipe.system)
        }
        None => Ok(tree),
    }
}

/// The name and the tree of an extension: a directory, and nothing else.
pub(crate) fn extension(extension: &Extension) -> Result<(String, Tree), Error> {
    let mut tree = Tree::new();
    let origin = Origin::from(format!("the directory {}", extension.said.value));
    directory::add(&mut tree, Path::new("/"), &extension.from, &origin)?;
    Ok((extension.name.clone(), tree))
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
            node.attributes.xattrs.remove("security.capability");
        }
    }
    Ok(())
}

fn file(tree: &mut Tree, entry: &FileEntry, origin: &Origin) -> Result<(), Error> {
    let kind = match &entry.what {
        What::Text(text) => Kind::File(text.as_str().into()),
        What::From(_, path) => Kind::File(directory::read(path)?.into()),
        What::Link(target) => Kind::Symlink(target.into()),
        What::Device { major, minor } => Kind::CharDevice { major: *major, minor: *minor },
        What::Directory => Kind::Directory,
    };
    let attributes = Attributes { uid: entry.owner.0, gid: entry.owner.1, ..Attributes::root(entry.mode) };
    let placed = tree.replace(&entry.path, Node::new(kind, attributes, origin));
    placed.map_err(|error| entry.place.wrong(error.to_string()).into())
}

fn agent(tree: &mut Tree, recipe: &Recipe, binary: Content) -> Result<(), Error> {
    let origin = Origin::from(AGENT);
    tree.replace(&recipe.agent.path, Node::file(0o755, binary, &origin))?;
    for link in &recipe.agent.links {
        tree.replace(link, Node::symlink(&recipe.agent.path, &origin))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Place;

    #[test]
    fn rights_are_lent_by_name_or_not_at_all() {
        let (mut tree, origin) = (Tree::new(), Origin::from("base"));
        for path in ["/bin/su", "/bin/evil"] {
            let mut node = Node::file(0o6755, "x", &origin);
            for name in ["security.capability", "user.x"] {
                node.attributes.xattrs.insert(name.to_owned(), vec![1]);
            }
            tree.put(path, node).unwrap();
        }
        tree.put("/var/mail", Node::directory(0o2775, &origin)).unwrap();
        tree.put("/su", Node::symlink("bin/su", &origin)).unwrap();
        let said = |path: &str| Said { value: path.to_owned(), place: Place::for_tests() };
        clear_set_id(&mut tree, &[said("/su")]).unwrap();
        let of = |path: &str| {
            let attributes = &tree.get(path).unwrap().attributes;
            (attributes.mode, attributes.xattrs.len())
        };
        assert_eq!((of("/bin/su"), of("/bin/evil"), of("/var/mail")), ((0o6755, 2), (0o755, 1), (0o2775, 0)));
        let error = clear_set_id(&mut tree, &[said("/none")]).unwrap_err().to_string();
        assert!(error.ends_with("test.toml, line 1, key: there is no /none in this image"), "{error}");
    }
}
