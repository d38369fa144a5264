//! Extended attributes: those of one inode stand behind it; those that several have stand once, in an area of
//! their own.

use std::collections::BTreeMap;

use super::FORMAT;
use crate::error::{Error, unsupported};
use crate::inodes::Inode;

/// What is before the attributes of an inode.
const HEADER: usize = 12;

/// As many bytes of attributes stay with their inode; with more all of them go to the shared area, so that an
/// inode always fits its block.
const MAX_INLINE: usize = 1024;

/// An inode counts its shared attributes in a byte.
const MAX_SHARED: usize = 255;

/// The attributes of all inodes.
#[derive(Debug)]
pub(super) struct Xattrs {
    /// What follows each inode; nothing if it has no attributes.
    pub(super) bodies: Vec<Vec<u8>>,
    /// The area of those that are shared.
    pub(super) shared: Vec<u8>,
}

/// Encodes the attributes of all inodes.
pub(super) fn encode(inodes: &[Inode<'_>]) -> Result<Xattrs, Error> {
    let entries = inodes.iter().map(entries).collect::<Result<Vec<_>, _>>()?;

    let mut uses: BTreeMap<&[u8], usize> = BTreeMap::new();
    for own in &entries {
        let weight = if own.iter().map(Vec::len).sum::<usize>() > MAX_INLINE { 2 } else { 1 };
        own.iter().for_each(|entry| *uses.entry(entry).or_default() += weight);
    }
    let (mut shared, mut places) = (Vec::new(), BTreeMap::new());
    for (entry, _) in uses.into_iter().filter(|(_, uses)| *uses > 1) {
        places.insert(entry, (shared.len() / 4) as u32);
        shared.extend_from_slice(entry);
    }
    let mut bodies = Vec::new();
    for (inode, own) in inodes.iter().zip(&entries) {
        let (elsewhere, here): (Vec<_>, Vec<_>) =
            own.iter().partition(|entry| places.contains_key(entry.as_slice()));
        if elsewhere.len() > MAX_SHARED {
            return Err(unsupported(
                FORMAT,
                inode.path,
                format!("has more than {MAX_SHARED} extended attributes"),
            ));
        }
        bodies.push(body(elsewhere.iter().map(|entry| places[entry.as_slice()]), &here));
    }
    Ok(Xattrs { bodies, shared })
}

fn body(shared: impl ExactSizeIterator<Item = u32>, here: &[&Vec<u8>]) -> Vec<u8> {
    if shared.len() + here.len() == 0 {
        return Vec::new();
    }
    let mut body = vec![0; HEADER];
    body[4] = shared.len() as u8;
    shared.for_each(|place| body.extend_from_slice(&place.to_le_bytes()));
    here.iter().for_each(|entry| body.extend_from_slice(entry));
    body
}

/// What `i_xattr_icount` says of a body: how many words it has, but the header counts as one.
pub(super) fn count(body: &[u8]) -> u16 {
    if body.is_empty() { 0 } else { ((body.len() - HEADER) / 4 + 1) as u16 }
}

/// One inode's attributes as they stand on the disk, in whole words.
fn entries(inode: &Inode<'_>) -> Result<Vec<Vec<u8>>, Error> {
    let encode = |(name, value): (&String, &Vec<u8>)| {
        let refuse =
            |why| unsupported(FORMAT, inode.path, format!("has the extended attribute {name:?}: {why}"));
        let (index, rest) =
            split(name).ok_or_else(|| refuse("the format has no number for its namespace"))?;
        let length = u8::try_from(rest.len()).map_err(|_| refuse("its name is too long"))?;
        let size = u16::try_from(value.len()).map_err(|_| refuse("its value is longer than 65535 bytes"))?;
        let mut entry = vec![length, index];
        entry.extend_from_slice(&size.to_le_bytes());
        entry.extend_from_slice(rest.as_bytes());
        entry.extend_from_slice(value);
        entry.resize(entry.len().next_multiple_of(4), 0);
        Ok(entry)
    };
    inode.attributes.xattrs.iter().map(encode).collect()
}

/// A name's namespace as a number, and what is left of it.
fn split(name: &str) -> Option<(u8, &str)> {
    match name {
        "system.posix_acl_access" => return Some((2, "")),
        "system.posix_acl_default" => return Some((3, "")),
        _ => {}
    }
    [(1, "user."), (4, "trusted."), (6, "security.")]
        .into_iter()
        .find_map(|(index, prefix)| Some((index, name.strip_prefix(prefix)?)))
        .filter(|(_, rest)| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use guest_tree::{Node, Origin, Tree};

    use super::*;
    use crate::inodes::inodes;

    type Attribute<'a> = (&'a str, &'a [u8]);

    fn tree(files: &[(&str, &[Attribute<'_>])]) -> Tree {
        let mut tree = Tree::new();
        for (path, xattrs) in files {
            let mut node = Node::file(0o644, "", &Origin::from("test"));
            node.attributes.xattrs =
                xattrs.iter().map(|(name, value)| (name.to_string(), value.to_vec())).collect();
            tree.put(path, node).unwrap();
        }
        tree
    }

    fn encoded(files: &[(&str, &[Attribute<'_>])]) -> Result<Xattrs, String> {
        encode(&inodes(&tree(files), FORMAT).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_one_inode_has_stands_behind_it_and_what_two_have_stands_once() {
        let acl: Attribute<'_> = ("system.posix_acl_access", b"acl");
        let xattrs = encoded(&[("a", &[acl, ("user.x", b"1")]), ("b", &[acl]), ("c", &[])]).unwrap();
        assert_eq!(xattrs.shared, b"\0\x02\x03\0acl\0");
        assert_eq!(xattrs.bodies[1], *b"\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x01\x01\x01\0x1\0\0");
        assert_eq!(xattrs.bodies[2], *b"\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(xattrs.bodies[3], b"");
        assert_eq!([count(&xattrs.bodies[1]), count(&xattrs.bodies[2]), count(&xattrs.bodies[3])], [4, 2, 0]);
    }

    #[test]
    fn an_inode_stays_small_whatever_its_attributes() {
        let xattrs = encoded(&[("a", &[("user.big", &[7; 65535]), ("user.small", b"1")])]).unwrap();
        assert_eq!(xattrs.bodies[1].len(), HEADER + 2 * 4);
        assert_eq!(xattrs.shared.len(), 65544 + 12);
    }

    #[test]
    fn attributes_without_a_place_are_refused_by_name() {
        for (name, value, says) in [
            ("system.nfs4_acl", vec![], "no number for its namespace"),
            ("user.", vec![], "no number for its namespace"),
            ("user.x", vec![0; 65536], "longer than 65535"),
            (&format!("user.{}", "x".repeat(256)), vec![], "too long"),
        ] {
            let error = encoded(&[("bin/a", &[(name, &value)])]).unwrap_err();
            assert!(error.starts_with("erofs: /bin/a has the extended attribute"), "{error}");
            assert!(error.contains(says), "{error}");
        }
    }
}
