//! A tree as the list that file systems are made of: numbered inodes, directories with their entries. What no
//! Linux file system could hold is refused here, once for all formats.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use guest_tree::{Attributes, Kind, Tree};

use crate::error::{Error, unsupported};

/// The longest name that the kernel takes.
const NAME_MAX: usize = 255;

/// The kernel wants a link's target, with a zero at its end, in a page of 4096 bytes.
const TARGET_MAX: usize = 4095;

/// One node of the tree. Its number is its place in the list; the root is 0.
#[derive(Debug)]
pub(crate) struct Inode<'a> {
    /// Without a leading slash.
    pub(crate) path: &'a Path,
    pub(crate) kind: &'a Kind,
    pub(crate) attributes: &'a Attributes,
    /// The directory it is in; the root is in itself.
    pub(crate) parent: usize,
    /// What is in it, sorted by the bytes of the names.
    pub(crate) entries: Vec<(&'a [u8], usize)>,
}

/// All nodes, in the tree's order: a directory before what is in it.
pub(crate) fn inodes<'a>(tree: &'a Tree, format: &'static str) -> Result<Vec<Inode<'a>>, Error> {
    let mut list: Vec<Inode<'a>> = Vec::new();
    let mut numbers = HashMap::new();
    for (number, (path, node)) in tree.iter().enumerate() {
        check(path, node.attributes.mode, &node.kind, format)?;
        let parent = path.parent().map_or(number, |parent| numbers[parent]);
        if let Some(name) = path.file_name() {
            list[parent].entries.push((name.as_bytes(), number));
        }
        numbers.insert(path, number);
        let (kind, attributes) = (&node.kind, &node.attributes);
        list.push(Inode { path, kind, attributes, parent, entries: Vec::new() });
    }
    Ok(list)
}

impl Inode<'_> {
    /// Type and permissions, as in `st_mode`.
    pub(crate) fn mode(&self) -> u16 {
        let kind = match self.kind {
            Kind::Fifo => 0o010000,
            Kind::CharDevice { .. } => 0o020000,
            Kind::Directory => 0o040000,
            Kind::File(_) => 0o100000,
            Kind::Symlink(_) => 0o120000,
        };
        kind | self.attributes.mode as u16
    }

    /// How many names lead to it: a directory's own, its `.`, and the `..` of each directory in it.
    pub(crate) fn links(&self, all: &[Inode<'_>]) -> u32 {
        let directories =
            self.entries.iter().filter(|(_, entry)| *all[*entry].kind == Kind::Directory).count();
        if *self.kind == Kind::Directory { 2 + directories as u32 } else { 1 }
    }

    /// A device's number as Linux file systems keep it; none for what is no device.
    pub(crate) fn device_number(&self, format: &'static str) -> Result<Option<u32>, Error> {
        match *self.kind {
            // 12 bits and 20 bits are what the kernel has (`new_encode_dev`).
            Kind::CharDevice { major, minor } if major < 1 << 12 && minor < 1 << 20 => {
                Ok(Some(minor & 0xff | major << 8 | (minor & !0xff) << 12))
            }
            Kind::CharDevice { major, minor } => Err(unsupported(
                format,
                self.path,
                format!("has the device number {major}:{minor}, which Linux has not"),
            )),
            _ => Ok(None),
        }
    }
}

fn check(path: &Path, mode: u32, kind: &Kind, format: &'static str) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let refuse = |what: String| Err(unsupported(format, path, what));
    if name.len() > NAME_MAX {
        return refuse(format!("has a name of more than {NAME_MAX} bytes"));
    }
    if name.contains(&0) {
        return refuse("has a zero byte in its name".to_owned());
    }
    if mode > 0o7777 {
        return refuse(format!("has mode {mode:o}, and permissions end at 7777"));
    }
    if let Kind::Symlink(target) = kind {
        let target = target.as_os_str().as_bytes();
        if target.is_empty() || target.len() > TARGET_MAX || target.contains(&0) {
            return refuse(format!(
                "is a link whose target of {} bytes the kernel would refuse",
                target.len()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use guest_tree::{Node, Origin};

    use super::*;

    fn origin() -> Origin {
        Origin::from("test")
    }

    #[test]
    fn directories_know_their_entries_and_count_their_directories() {
        let mut tree = Tree::new();
        for path in ["b/x/y", "a-b", "a/c", "a.b"] {
            tree.put(path, Node::file(0o644, "", &origin())).unwrap();
        }
        let list = inodes(&tree, "test").unwrap();
        let names: Vec<_> =
            list[0].entries.iter().map(|(name, _)| std::str::from_utf8(name).unwrap()).collect();
        assert_eq!(names, ["a", "a-b", "a.b", "b"]);
        assert_eq!(list[0].links(&list), 4);
        let y = list.iter().find(|inode| inode.path == Path::new("b/x/y")).unwrap();
        assert_eq!(list[y.parent].path, Path::new("b/x"));
        assert_eq!((y.links(&list), y.mode()), (1, 0o100644));
    }

    #[test]
    fn what_linux_has_not_is_refused_by_path() {
        let cases = [
            ("a".repeat(256), Node::file(0o644, "", &origin()), "name of more than 255"),
            ("z\0".to_owned(), Node::file(0o644, "", &origin()), "zero byte"),
            ("m".to_owned(), Node::file(0o10644, "", &origin()), "mode 10644"),
            ("l".to_owned(), Node::symlink("t".repeat(4096), &origin()), "target of 4096 bytes"),
            ("l".to_owned(), Node::symlink("", &origin()), "target of 0 bytes"),
        ];
        for (path, node, says) in cases {
            let mut tree = Tree::new();
            tree.put(&path, node).unwrap();
            let error = inodes(&tree, "erofs").unwrap_err().to_string();
            assert!(error.starts_with("erofs: /") && error.contains(says), "{error}");
        }
    }

    #[test]
    fn device_numbers_are_packed_as_the_kernel_does() {
        let device = |major, minor| {
            let (kind, attributes) = (Kind::CharDevice { major, minor }, Attributes::root(0o600));
            let inode = Inode {
                path: Path::new("dev/x"),
                kind: &kind,
                attributes: &attributes,
                parent: 0,
                entries: vec![],
            };
            inode.device_number("erofs").map_err(|error| error.to_string())
        };
        assert_eq!(device(1, 3), Ok(Some(0x103)));
        assert_eq!(device(0xabc, 0x12345), Ok(Some(0x123a_bc45)));
        let refused = "erofs: /dev/x has the device number 4096:0, which Linux has not";
        assert_eq!(device(4096, 0), Err(refused.to_owned()));
    }
}
