//! The fixed part of an inode, in the shorter of its two forms.

/// How an inode's content is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// All of it in blocks of its own.
    Plain = 0,
    /// In compressed blocks, with an index of 8 bytes for each 4096 bytes of content behind the inode.
    Compressed = 1,
    /// The whole blocks in blocks; what is left over behind the inode.
    Inline = 2,
}

/// One inode.
#[derive(Debug, Clone)]
pub(super) struct Header {
    /// Counted from 1: what `stat` of a 32-bit program shows.
    pub(super) number: u32,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
    pub(super) size: u64,
    pub(super) time: u64,
    pub(super) layout: Layout,
    pub(super) xattr_count: u16,
    /// The first block, the number of compressed blocks, or the device's number.
    pub(super) place: u32,
}

impl Header {
    /// How long it is on disk.
    pub(super) fn len(&self) -> usize {
        if self.is_compact() { 32 } else { 64 }
    }

    /// As it is on disk.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        let mut put = |field: &[u8]| bytes.extend_from_slice(field);
        let format = (self.layout as u16) << 1 | u16::from(!self.is_compact());
        put(&format.to_le_bytes());
        put(&self.xattr_count.to_le_bytes());
        put(&self.mode.to_le_bytes());
        if self.is_compact() {
            put(&(self.links as u16).to_le_bytes());
            put(&(self.size as u32).to_le_bytes());
            put(&[0; 4]);
            put(&self.place.to_le_bytes());
            put(&self.number.to_le_bytes());
            put(&(self.uid as u16).to_le_bytes());
            put(&(self.gid as u16).to_le_bytes());
            put(&[0; 4]);
        } else {
            put(&[0; 2]);
            put(&self.size.to_le_bytes());
            put(&self.place.to_le_bytes());
            put(&self.number.to_le_bytes());
            put(&self.uid.to_le_bytes());
            put(&self.gid.to_le_bytes());
            put(&self.time.to_le_bytes());
            put(&[0; 4]);
            put(&self.links.to_le_bytes());
            put(&[0; 16]);
        }
        bytes
    }

    /// Whether the shorter form has room for it. Its time is the superblock's, and that is the only one we
    /// have.
    fn is_compact(&self) -> bool {
        let small = |n: u32| u16::try_from(n).is_ok();
        small(self.uid) && small(self.gid) && small(self.links) && u32::try_from(self.size).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            number: 1,
            mode: 0o100644,
            uid: 1000,
            gid: 1000,
            links: 1,
            size: 5,
            time: 77,
            layout: Layout::Inline,
            xattr_count: 0,
            place: u32::MAX,
        }
    }

    #[test]
    fn the_longer_form_is_for_what_needs_it() {
        assert_eq!(header().len(), 32);
        for longer in [
            Header { uid: 65536, ..header() },
            Header { gid: 65536, ..header() },
            Header { links: 65536, ..header() },
            Header { size: 1 << 32, ..header() },
        ] {
            assert_eq!(longer.len(), 64);
            assert_eq!(longer.encode()[0], 5);
        }
    }

    #[test]
    fn both_forms_are_as_long_as_they_say() {
        for header in [header(), Header { size: 1 << 40, ..header() }] {
            assert_eq!(header.encode().len(), header.len());
        }
    }
}
