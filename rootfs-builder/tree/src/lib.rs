//! A root file system in memory. What an image is made of (packages, files, the agent) goes in; what an image can be
//! (a ramdisk, a file system on a disk) is written from it.
//!
//! Nothing of the machine is in a [`Tree`]: owners, modes and extended attributes are what a source said, the order is
//! that of the paths, and there is no time at all, since all files of an image have the one that its recipe chose. A hard
//! link is a second file with the same content: in an image that nobody writes to there is no other difference.
//!
//! A path given to a tree is hostile until it is in there: `..` is refused, and a symbolic link above it is followed as the
//! guest would, inside of the tree and nowhere else.

mod content;
mod error;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

pub use content::Content;
pub use error::Error;

/// Which input put something into a tree: "package systemd 252.39-1~deb12u1", "the recipe debian".
pub type Origin = Arc<str>;

/// As many symbolic links the kernel follows before it says ELOOP.
const MAX_LINKS: usize = 40;

/// A root file system. Its root directory is always there.
#[derive(Debug, Clone)]
pub struct Tree {
    /// By path without a leading slash; the root is "". A directory comes before what is in it.
    nodes: BTreeMap<PathBuf, Node>,
}

/// What stands at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Who may do what with it.
    pub attributes: Attributes,
    /// Where it came from.
    pub origin: Origin,
    /// Made only because something is in it: another source may still say what it should be like.
    implied: bool,
}

/// The types of files an image can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link, to any text.
    Symlink(PathBuf),
    /// A character device.
    CharDevice {
        /// Its driver's number.
        major: u32,
        /// The device's among its driver's.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// Owner, permissions, extended attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// The lower twelve bits of a mode: permissions, set-id bits, sticky bit.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// By full name: "security.capability".
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Attributes {
    /// Root's, with a mode.
    #[must_use]
    pub fn root(mode: u32) -> Self {
        Attributes { mode, uid: 0, gid: 0, xattrs: BTreeMap::new() }
    }
}

impl Node {
    /// A node of any kind.
    #[must_use]
    pub fn new(kind: Kind, attributes: Attributes, origin: &Origin) -> Self {
        Node { kind, attributes, origin: origin.clone(), implied: false }
    }

    /// A regular file of root's.
    #[must_use]
    pub fn file(mode: u32, content: impl Into<Content>, origin: &Origin) -> Self {
        Node::new(Kind::File(content.into()), Attributes::root(mode), origin)
    }

    /// A directory of root's.
    #[must_use]
    pub fn directory(mode: u32, origin: &Origin) -> Self {
        Node::new(Kind::Directory, Attributes::root(mode), origin)
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(target: impl Into<PathBuf>, origin: &Origin) -> Self {
        Node::new(Kind::Symlink(target.into()), Attributes::root(0o777), origin)
    }

    fn implied(origin: &Origin) -> Self {
        Node { implied: true, ..Node::directory(0o755, origin) }
    }
}

impl Tree {
    /// A root directory with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Tree { nodes: BTreeMap::from([(PathBuf::new(), Node::implied(&Origin::from("every image")))]) }
    }

    /// Puts something where nothing is yet; directories above it are made. A directory may be put where one is, or a link
    /// to one: what the first source said of it stays.
    pub fn put(&mut self, path: impl AsRef<Path>, node: Node) -> Result<(), Error> {
        let place = self.place(path.as_ref(), &node.origin)?;
        if let Some(there) = self.nodes.get(&place) {
            if node.kind != Kind::Directory || !self.leads_to_directory(&place) {
                return Err(Error::Taken { path: place, by: there.origin.clone(), wanted: node.origin });
            }
            if !there.implied {
                return Ok(());
            }
        }
        self.nodes.insert(place, node);
        Ok(())
    }

    /// The same, in the place of whatever is there, unless that is a directory with something in it.
    pub fn replace(&mut self, path: impl AsRef<Path>, node: Node) -> Result<(), Error> {
        let place = self.place(path.as_ref(), &node.origin)?;
        if node.kind != Kind::Directory && self.below(&place).next().is_some() {
            return Err(Error::NotEmpty { path: place });
        }
        self.nodes.insert(place, node);
        Ok(())
    }

    /// Takes out what is at a path and all below it; says whether there was anything.
    pub fn remove(&mut self, path: impl AsRef<Path>) -> bool {
        let Some(place) = self.place_of_existing(path.as_ref()) else { return false };
        let doomed: Vec<_> = self.below(&place).map(|(path, _)| path.to_owned()).collect();
        doomed.iter().for_each(|path| drop(self.nodes.remove(path)));
        place.as_os_str().is_empty() || self.nodes.remove(&place).is_some()
    }

    /// What is at a path; links above it are followed, it itself is not.
    #[must_use]
    pub fn get(&self, path: impl AsRef<Path>) -> Option<&Node> {
        self.nodes.get(&self.place_of_existing(path.as_ref())?)
    }

    /// Where a path leads when every link is followed, the last one too; none if that is nowhere.
    #[must_use]
    pub fn resolve(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        self.walk(path.as_ref(), true).ok().filter(|place| self.nodes.contains_key(place))
    }

    /// Everything, each directory before what is in it; the root comes first, as "".
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_path(), node))
    }

    /// Everything, for a source that changes what others have put there: owners, modes.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Path, &mut Node)> {
        self.nodes.iter_mut().map(|(path, node)| (path.as_path(), node))
    }

    /// What is in a directory, at any depth.
    pub fn below<'a>(&'a self, directory: &'a Path) -> impl Iterator<Item = (&'a Path, &'a Node)> {
        let after = self.nodes.range(directory.to_path_buf()..).map(|(path, node)| (path.as_path(), node));
        after
            .skip_while(move |(path, _)| *path == directory)
            .take_while(move |(path, _)| path.starts_with(directory))
    }

    /// The bytes of all files.
    #[must_use]
    pub fn content_size(&self) -> u64 {
        self.nodes
            .values()
            .map(|node| if let Kind::File(content) = &node.kind { content.len() } else { 0 })
            .sum()
    }

    /// Where something given by `path` goes; directories above it that are missing are made.
    fn place(&mut self, path: &Path, origin: &Origin) -> Result<PathBuf, Error> {
        let place = self.walk(path, false)?;
        for above in place.ancestors().skip(1) {
            match self.nodes.get(above) {
                None => drop(self.nodes.insert(above.to_owned(), Node::implied(origin))),
                Some(Node { kind: Kind::Directory, .. }) => break,
                Some(_) => return Err(Error::NotADirectory { path: above.to_owned() }),
            }
        }
        Ok(place)
    }

    fn place_of_existing(&self, path: &Path) -> Option<PathBuf> {
        self.walk(path, false).ok()
    }

    fn leads_to_directory(&self, place: &Path) -> bool {
        let end = self.resolve(place);
        end.and_then(|end| self.nodes.get(&end)).is_some_and(|node| node.kind == Kind::Directory)
    }

    /// Follows links as the guest's kernel would with the tree as its root. What is missing is taken for a directory that
    /// is yet to be made.
    fn walk(&self, path: &Path, follow_last: bool) -> Result<PathBuf, Error> {
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(Error::Parent { path: path.to_owned() });
        }
        let mut place = PathBuf::new();
        // The parts that are still to go, the next one last.
        let mut parts: Vec<_> = reversed(path);
        let mut links = 0;
        while let Some(part) = parts.pop() {
            if part.as_os_str() == ".." {
                place.pop();
                continue;
            }
            place.push(&part);
            let Some(Node { kind: Kind::Symlink(target), .. }) = self.nodes.get(&place) else { continue };
            if parts.is_empty() && !follow_last {
                break;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Error::Links { path: path.to_owned() });
            }
            if target.is_absolute() {
                place.clear();
            } else {
                place.pop();
            }
            parts.extend(reversed(target));
        }
        Ok(place)
    }
}

impl Default for Tree {
    fn default() -> Self {
        Tree::new()
    }
}

/// Names of a path, the last first. Only a link's target has `..` among them, and at the root that stays there.
fn reversed(path: &Path) -> Vec<PathBuf> {
    let named = |part| match part {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    let mut parts: Vec<_> = path.components().filter_map(named).collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests;
