//! A directory of this machine as part of an image.
//!
//! What it looks like in the image must not depend on the machine: a checkout has other owners, and another umask other
//! modes, on each. So everything is root's, a directory is 0755, a file 0644, or 0755 if its owner may execute it; a recipe
//! says anything else with `[[file]]`. Links are taken as they are, and never followed here. A file is held in memory, and a
//! hole counts as what it reads as.

use std::fs::{self, FileType};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use guest_tree::{Node, Origin, Tree};

use crate::error::{Error, at};

const MAX_FILE: u64 = 4 << 30;

/// Puts what is in `from` below `path` of the tree, in the place of what is there.
pub(crate) fn add(tree: &mut Tree, path: &Path, from: &Path, origin: &Origin) -> Result<(), Error> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(from).map_err(at("list", from))? {
        entries.push(entry.map_err(at("list", from))?);
    }
    entries.sort_by_key(fs::DirEntry::file_name); // for whoever gets an error: always the same one
    for entry in entries {
        let (here, there) = (entry.path(), path.join(entry.file_name()));
        let kind = entry.file_type().map_err(at("examine", &here))?;
        if let Some(what) = unwanted(kind) {
            return Err(Error::Unwanted { path: here, what });
        }
        if kind.is_dir() {
            tree.put(&there, Node::directory(0o755, origin))?;
            add(tree, &there, &here, origin)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&here).map_err(at("read", &here))?;
            tree.replace(&there, Node::symlink(target, origin))?;
        } else {
            let executable =
                entry.metadata().map_err(at("examine", &here))?.permissions().mode() & 0o100 != 0;
            let content = read(&here)?;
            tree.replace(&there, Node::file(if executable { 0o755 } else { 0o644 }, content, origin))?;
        }
    }
    Ok(())
}

/// A file's bytes, of which there must not be more than fits into memory.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let length = fs::metadata(path).map_err(at("examine", path))?.len();
    if length > MAX_FILE {
        return Err(Error::Unwanted { path: path.to_owned(), what: "larger than 4 GiB" });
    }
    fs::read(path).map_err(at("read", path))
}

/// What nobody has in a directory on purpose: it would be a hole in the image, or would stall its reader here.
fn unwanted(kind: FileType) -> Option<&'static str> {
    [
        (kind.is_block_device(), "a block device"),
        (kind.is_char_device(), "a character device: a recipe says those with [[file]] device"),
        (kind.is_socket(), "a socket"),
        (kind.is_fifo(), "a named pipe"),
    ]
    .into_iter()
    .find_map(|(is, what)| is.then_some(what))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use guest_tree::Kind;

    use super::*;

    fn added(make: impl FnOnce(&Path)) -> Result<Tree, String> {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        let mut tree = Tree::new();
        tree.put("/opt/old", Node::file(0o600, "old", &Origin::from("base"))).unwrap();
        add(&mut tree, Path::new("/opt"), dir.path(), &Origin::from("test"))
            .map(|()| tree)
            .map_err(|e| e.to_string().replace(dir.path().to_str().unwrap(), "/x"))
    }

    #[test]
    fn modes_and_owners_are_ours() {
        let tree = added(|dir| {
            for (name, mode) in [("a", 0o600), ("b", 0o4711), ("old", 0o664)] {
                fs::write(dir.join(name), name).unwrap();
                fs::set_permissions(dir.join(name), PermissionsExt::from_mode(mode)).unwrap();
            }
            fs::create_dir(dir.join("d")).unwrap();
            fs::set_permissions(dir.join("d"), PermissionsExt::from_mode(0o2700)).unwrap();
        })
        .unwrap();
        for (path, mode) in [("/opt/a", 0o644), ("/opt/b", 0o755), ("/opt/old", 0o644), ("/opt/d", 0o755)] {
            let attributes = &tree.get(path).unwrap().attributes;
            assert_eq!((attributes.mode, attributes.uid), (mode, 0), "{path}");
        }
        assert_eq!(tree.get("/opt/old").unwrap().kind, Kind::File("old".into()));
    }

    #[test]
    fn links_are_not_followed() {
        let tree = added(|dir| {
            symlink("/etc/shadow", dir.join("away")).unwrap();
            symlink("/", dir.join("root")).unwrap();
        })
        .unwrap();
        assert_eq!(tree.get("/opt/away").unwrap().kind, Kind::Symlink("/etc/shadow".into()));
        assert_eq!(tree.get("/opt/root").unwrap().kind, Kind::Symlink("/".into()));
    }

    #[test]
    fn a_file_that_fills_the_memory_is_refused_by_name() {
        let error = added(|dir| fs::File::create(dir.join("huge")).unwrap().set_len(1 << 40).unwrap());
        assert_eq!(error.unwrap_err(), "/x/huge is larger than 4 GiB, which no image is made of");
    }

    #[test]
    fn what_is_no_file_is_refused_by_name() {
        let error = added(|dir| drop(UnixListener::bind(dir.join("s")).unwrap())).unwrap_err();
        assert_eq!(error, "/x/s is a socket, which no image is made of");
        let pipe = |dir: &Path| nix::unistd::mkfifo(&dir.join("p"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(added(pipe).unwrap_err(), "/x/p is a named pipe, which no image is made of");
    }
}
