//! `contents.json`: every file of an image, and the input that put it there. It is what `image why` and `image diff` read,
//! and what a person can search without unpacking anything.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use guest_inputs::sha256;
use guest_tree::{Kind, Node, Tree};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The list's name beside the manifest.
pub const FILE: &str = "contents.json";
/// The version of its format.
const VERSION: u32 = 1;

/// What is in a set of images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    version: u32,
    /// Of the root file system, in the order of the tree.
    pub root: Vec<Entry>,
    /// Of each extension, by its name.
    pub extensions: BTreeMap<String, Vec<Entry>>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// From the image's root: "/sbin/init".
    pub path: String,
    /// "directory", "file", "link", "device", "pipe".
    pub kind: String,
    /// Permissions, in octal.
    pub mode: String,
    /// Numbers of owner and group.
    pub owner: (u32, u32),
    /// Of a file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// Of a file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
    /// Where a link leads; "major:minor" of a device.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<String>,
    /// Extended attributes, in hexadecimal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub xattrs: BTreeMap<String, String>,
    /// The input that put it there: "the agent", "package bash 5.2-1".
    pub origin: String,
}

impl Contents {
    /// The list of a root and its extensions.
    pub(crate) fn of(root: &Tree, extensions: &[(String, Tree)]) -> Result<Contents, Error> {
        let named = |(name, tree): &(String, Tree)| Ok((name.clone(), entries(tree)?));
        let extensions = extensions.iter().map(named).collect::<Result<_, Error>>()?;
        Ok(Contents { version: VERSION, root: entries(root)?, extensions })
    }

    /// As it is written: an entry a line, so that two lists can be compared with any tool.
    #[must_use]
    pub fn to_json(&self) -> String {
        let list = |entries: &[Entry]| {
            let lines: Vec<_> = entries
                .iter()
                .map(|entry| serde_json::to_string(entry).expect("strings and numbers are JSON"))
                .collect();
            format!("[\n{}\n]", lines.join(",\n"))
        };
        let extensions: Vec<_> = self
            .extensions
            .iter()
            .map(|(name, entries)| format!("{}: {}", serde_json::Value::from(name.as_str()), list(entries)))
            .collect();
        format!(
            "{{\n\"version\": {},\n\"root\": {},\n\"extensions\": {{{}}}\n}}\n",
            self.version,
            list(&self.root),
            extensions.join(",\n")
        )
    }

    /// Every entry at a path, of the root and of extensions, with the name of the image it is in; and, where links lead on
    /// from there, the entries at their ends.
    #[must_use]
    pub fn why(&self, path: &str) -> Vec<(&str, &Entry)> {
        let named = self.extensions.iter().map(|(name, entries)| (name.as_str(), entries));
        let mut found = Vec::new();
        for (image, entries) in std::iter::once(("root", &self.root)).chain(named) {
            let mut path = plain(Path::new("/"), Path::new(path));
            // As many links the kernel follows.
            for _ in 0..40 {
                let Some(entry) = entries.iter().find(|entry| Path::new(&entry.path) == path) else { break };
                found.push((image, entry));
                let Some(target) = entry.target.as_deref().filter(|_| entry.kind == "link") else { break };
                path = plain(path.parent().unwrap_or(Path::new("/")), Path::new(target));
            }
        }
        found
    }

    /// Reads the list beside a manifest.
    pub fn load(dir: &Path) -> Result<Contents, Error> {
        let path = dir.join(FILE);
        let bytes = std::fs::read(&path).map_err(crate::error::at("read", &path))?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Document { path, source })
    }
}

fn entries(tree: &Tree) -> Result<Vec<Entry>, Error> {
    let entry = |(path, node): (&Path, &Node)| {
        entry(path, node).map_err(|source| Error::Content { path: path.to_owned(), source })
    };
    tree.iter().map(entry).collect()
}

fn entry(path: &Path, node: &Node) -> io::Result<Entry> {
    let attributes = &node.attributes;
    let mut entry = Entry {
        path: format!("/{}", text(path)?),
        kind: String::new(),
        mode: format!("{:04o}", attributes.mode),
        owner: (attributes.uid, attributes.gid),
        size: None,
        sha256: None,
        target: None,
        xattrs: attributes.xattrs.iter().map(|(name, value)| (name.clone(), hex(value))).collect(),
        origin: node.origin.to_string(),
    };
    entry.kind = match &node.kind {
        Kind::Directory => "directory",
        Kind::Fifo => "pipe",
        Kind::File(content) => {
            let bytes = content.bytes()?;
            (entry.size, entry.sha256) = (Some(bytes.len() as u64), Some(sha256(&bytes)));
            "file"
        }
        Kind::Symlink(target) => {
            entry.target = Some(text(target)?.to_owned());
            "link"
        }
        Kind::CharDevice { major, minor } => {
            entry.target = Some(format!("{major}:{minor}"));
            "device"
        }
    }
    .to_owned();
    Ok(entry)
}

/// Names that are no text could not be told apart in any of our lists.
fn text(path: &Path) -> io::Result<&str> {
    path.to_str().ok_or_else(|| io::Error::other("its name or target is not UTF-8"))
}

/// A path as it is written in the list, from the directory that it is relative to.
fn plain(from: &Path, path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for part in from.join(path).components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => _ = plain.pop(),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    plain
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use guest_tree::{Attributes, Origin};

    use super::*;

    fn tree() -> Tree {
        let (mut tree, origin) = (Tree::new(), Origin::from("test"));
        tree.put("/bin/a", Node::file(0o4755, "abc", &origin)).unwrap();
        tree.put("/l", Node::symlink("bin/a", &origin)).unwrap();
        let mut attributes = Attributes { uid: 1, gid: 2, ..Attributes::root(0o600) };
        attributes.xattrs.insert("user.x".into(), vec![1, 0xff]);
        tree.put("/tty", Node::new(Kind::CharDevice { major: 5, minor: 0 }, attributes, &origin)).unwrap();
        tree
    }

    #[test]
    fn what_is_written_is_read_and_an_entry_is_a_line() {
        let contents = Contents::of(&tree(), &[("tools".to_owned(), tree())]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), contents.to_json()).unwrap();
        assert_eq!(Contents::load(dir.path()).unwrap(), contents);
        let line = "{\"path\":\"/bin/a\",\"kind\":\"file\",\"mode\":\"4755\",\"owner\":[0,0],\"size\":3,\"sha256\":\
            \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\",\"origin\":\"test\"}";
        assert_eq!(contents.to_json().lines().filter(|l| l.trim_end_matches(',') == line).count(), 2);
        let tty = contents.root.iter().find(|entry| entry.path == "/tty").unwrap();
        assert_eq!((tty.target.as_deref(), tty.xattrs["user.x"].as_str()), (Some("5:0"), "01ff"));
    }

    #[test]
    fn why_follows_links_and_looks_into_every_image() {
        let contents = Contents::of(&tree(), &[("tools".to_owned(), tree())]).unwrap();
        let why = |path| -> Vec<_> {
            contents.why(path).into_iter().map(|(image, entry)| (image, entry.path.as_str())).collect()
        };
        assert_eq!(why("/l"), [("root", "/l"), ("root", "/bin/a"), ("tools", "/l"), ("tools", "/bin/a")]);
        assert_eq!(why("bin/../bin/./a"), [("root", "/bin/a"), ("tools", "/bin/a")]);
        assert_eq!(why("/none"), []);
    }

    #[test]
    fn a_name_that_is_no_text_is_refused() {
        let mut tree = tree();
        tree.put(OsStr::from_bytes(b"/\xff"), Node::directory(0o755, &Origin::from("test"))).unwrap();
        let error = Contents::of(&tree, &[]).unwrap_err();
        assert!(error.to_string().starts_with("cannot list /"), "{error}");
    }
}
