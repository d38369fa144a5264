//! The contents of a tree's files: which are the same, and how they are read, a block at a time.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};

use guest_tree::{Content, Kind};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, reading};
use crate::inodes::Inode;

/// For each inode the first one with the same content: itself, if no other comes before it. Only files have
/// content, and of an empty one there is nothing to share.
pub(crate) fn firsts(inodes: &[Inode<'_>], format: &'static str) -> Result<Vec<usize>, Error> {
    let mut firsts: Vec<usize> = (0..inodes.len()).collect();
    let mut by_length: BTreeMap<u64, Vec<(usize, &Content)>> = BTreeMap::new();
    for (number, inode) in inodes.iter().enumerate() {
        if let Kind::File(content) = inode.kind
            && !content.is_empty()
        {
            by_length.entry(content.len()).or_default().push((number, content));
        }
    }
    // What has a length of its own need not be read.
    for same_length in by_length.into_values().filter(|files| files.len() > 1) {
        let mut seen = HashMap::new();
        for (number, content) in same_length {
            let digest = digest(content).map_err(reading(format, inodes[number].path))?;
            firsts[number] = *seen.entry(digest).or_insert(number);
        }
    }
    Ok(firsts)
}

/// Fills `buffer`, but for what is missing at the end; says how much there was.
pub(crate) fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn digest(content: &Content) -> io::Result<[u8; 32]> {
    let (mut reader, mut digest) = (content.reader()?, Sha256::new());
    let mut buffer = vec![0; 64 << 10];
    loop {
        match fill(&mut reader, &mut buffer)? {
            0 => return Ok(digest.finalize().into()),
            n => digest.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use guest_tree::{Node, Origin, Tree};

    use super::*;
    use crate::inodes::inodes;

    #[test]
    fn the_first_of_equal_files_stands_for_all() {
        let mut tree = Tree::new();
        for (path, text) in [("a", "one"), ("b", "two"), ("c", "one"), ("d", "three"), ("e", ""), ("f", "")] {
            tree.put(path, Node::file(0o644, text, &Origin::from("test"))).unwrap();
        }
        let list = inodes(&tree, "test").unwrap();
        assert_eq!(firsts(&list, "test").unwrap(), [0, 1, 2, 1, 4, 5, 6]);
    }

    #[test]
    fn a_file_that_is_gone_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::new();
        for name in ["a", "b"] {
            std::fs::write(dir.path().join(name), "same").unwrap();
            let content = Content::of_file(dir.path().join(name)).unwrap();
            tree.put(name, Node::file(0o644, content, &Origin::from("test"))).unwrap();
        }
        std::fs::remove_file(dir.path().join("b")).unwrap();
        let error = firsts(&inodes(&tree, "erofs").unwrap(), "erofs").unwrap_err();
        assert_eq!(error.to_string(), "erofs: cannot read what is to be /b");
    }
}
