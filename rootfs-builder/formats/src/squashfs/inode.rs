//! One inode, in the shorter of its two forms.

use std::os::unix::ffi::OsStrExt;

use guest_tree::Kind;

use super::archive::Place;
use super::data::Data;
use super::directory::kind_number;
use super::xattr::NO_SET;

/// What an inode has beside what the tree says of it.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) kind: &'a Kind,
    /// Permissions: the type is said by the inode's own.
    pub(super) permissions: u16,
    /// Owner and group, as places in the table of ids.
    pub(super) ids: [u16; 2],
    pub(super) time: u32,
    pub(super) number: u32,
    pub(super) links: u32,
    /// The set of its extended attributes, or [`NO_SET`].
    pub(super) xattrs: u32,
    /// A file's content.
    pub(super) data: &'a Data,
    /// A directory's listing: where it is, how long it is, and the number of the directory above.
    pub(super) listing: (Place, u32),
    pub(super) parent: u32,
    pub(super) device: u32,
}

/// The length that a directory says it has is that of its listing and of `.` and `..`, one byte for each and
/// one more.
const DOTS: u32 = 3;

/// In place of a fragment's number.
const NO_FRAGMENT: u32 = u32::MAX;

impl Facts<'_> {
    /// As it stands in the table of inodes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let long = self.is_long();
        let mut bytes = Vec::new();
        let kind = kind_number(self.kind) + if long { 7 } else { 0 };
        for half in [kind, self.permissions, self.ids[0], self.ids[1]] {
            bytes.extend_from_slice(&half.to_le_bytes());
        }
        let mut words = vec![self.time, self.number];
        let mut behind = Vec::new();
        match self.kind {
            Kind::Directory => {
                let (place, size) = (self.listing.0, self.listing.1 + DOTS);
                if long {
                    // The half that is zero: it has no index, and is read from its start.
                    let offset = u32::from(place.offset) << 16;
                    words.extend([self.links, size, place.block, self.parent, offset, self.xattrs]);
                } else {
                    let size_and_offset = size | u32::from(place.offset) << 16;
                    words.extend([place.block, self.links, size_and_offset, self.parent]);
                }
            }
            Kind::File(content) => {
                let (fragment, offset) = self.data.tail.unwrap_or((NO_FRAGMENT, 0));
                if long {
                    for double in [self.data.start, content.len(), 0] {
                        words.extend([double as u32, (double >> 32) as u32]);
                    }
                    words.extend([self.links, fragment, offset, self.xattrs]);
                } else {
                    words.extend([self.data.start as u32, fragment, offset, content.len() as u32]);
                }
                words.extend_from_slice(&self.data.blocks);
            }
            Kind::Symlink(target) => {
                let target = target.as_os_str().as_bytes();
                words.extend([self.links, target.len() as u32]);
                behind.extend_from_slice(target);
                if long {
                    behind.extend_from_slice(&self.xattrs.to_le_bytes());
                }
            }
            Kind::CharDevice { .. } => {
                words.extend([self.links, self.device]);
                words.extend(long.then_some(self.xattrs));
            }
            Kind::Fifo => {
                words.push(self.links);
                words.extend(long.then_some(self.xattrs));
            }
        }
        words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        bytes.extend_from_slice(&behind);
        bytes
    }

    fn is_long(&self) -> bool {
        let large = match self.kind {
            Kind::Directory => self.listing.1 + DOTS > u32::from(u16::MAX),
            Kind::File(content) => content.len().max(self.data.start) > u64::from(u32::MAX),
            _ => false,
        };
        large || self.xattrs != NO_SET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts<'a>(kind: &'a Kind, data: &'a Data) -> Facts<'a> {
        Facts {
            kind,
            permissions: 0o644,
            ids: [0, 1],
            time: 0,
            number: 1,
            links: 1,
            xattrs: NO_SET,
            data,
            listing: (Place::default(), 0),
            parent: 2,
            device: 0,
        }
    }

    #[test]
    fn forms_have_the_lengths_that_the_kernel_reads() {
        let data = Data { blocks: vec![1, 2], ..Data::default() };
        let cases = [
            (Kind::Directory, 32, 40),
            (Kind::File("x".into()), 32 + 8, 56 + 8),
            (Kind::Symlink("abc".into()), 24 + 3, 28 + 3),
            (Kind::CharDevice { major: 1, minor: 3 }, 24, 28),
            (Kind::Fifo, 20, 24),
        ];
        for (kind, short, long) in &cases {
            let inode = facts(kind, &data);
            assert_eq!(inode.encode().len(), *short, "{kind:?}");
            let inode = Facts { xattrs: 0, ..inode };
            assert_eq!(inode.encode().len(), *long, "{kind:?}");
            assert_eq!(inode.encode()[0], kind_number(kind) as u8 + 7);
        }
    }

    #[test]
    fn large_directories_and_files_far_away_have_the_longer_form() {
        let (far, near) = (Data { start: 1 << 32, ..Data::default() }, Data::default());
        assert_eq!(facts(&Kind::File("x".into()), &far).encode()[0], 9);
        let directory = |size| Facts { listing: (Place::default(), size), ..facts(&Kind::Directory, &near) };
        assert_eq!((directory(65532).encode()[0], directory(65533).encode()[0]), (1, 8));
    }
}
