//! A tree on its way into an image: what each inode is, what it takes, where it goes.

use std::cmp::Reverse;
use std::io::{Seek, Write};
use std::os::unix::ffi::OsStrExt;

use guest_tree::{Kind, Tree};

use super::data::{Data, File};
use super::dirent::{self, Dirent};
use super::image::Image;
use super::inode::{Header, Layout};
use super::places::{Places, SLOT};
use super::xattr::{self, Xattrs};
use super::{BLOCK, FORMAT, Options, superblock};
use crate::contents;
use crate::error::Error;
use crate::inodes::{Inode, inodes};

/// The tree as inodes, with all that is known before anything is written.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    options: Options,
    inodes: Vec<Inode<'a>>,
    /// For each inode the first with its content.
    firsts: Vec<usize>,
    /// For each content, by its first inode, how much of its end may stay behind the inodes that have it.
    tail_rooms: Vec<usize>,
    xattrs: Xattrs,
}

impl<'a> Plan<'a> {
    pub(super) fn new(tree: &'a Tree, options: Options) -> Result<Self, Error> {
        let inodes = inodes(tree, FORMAT)?;
        let firsts = contents::firsts(&inodes, FORMAT)?;
        let xattrs = xattr::encode(&inodes)?;
        let mut plan = Plan { options, inodes, firsts, tail_rooms: Vec::new(), xattrs };
        plan.tail_rooms = plan.tail_rooms();
        Ok(plan)
    }

    pub(super) fn len(&self) -> usize {
        self.inodes.len()
    }

    /// How many bytes of files are there already, in files with the same content.
    pub(super) fn shared(&self) -> u64 {
        (0..self.len()).filter(|&number| self.firsts[number] != number).map(|number| self.size(number)).sum()
    }

    pub(super) fn shared_xattrs(&self) -> &[u8] {
        &self.xattrs.shared
    }

    /// Writes the contents of files, and of links that are too long to stand behind their inodes. Directories
    /// get the room they will take.
    pub(super) fn store_contents(&self, image: &mut Image<impl Write + Seek>) -> Result<Vec<Data>, Error> {
        let mut data: Vec<Data> = Vec::with_capacity(self.len());
        for (number, inode) in self.inodes.iter().enumerate() {
            let tail_room = self.tail_rooms[number];
            data.push(match inode.kind {
                Kind::File(_) if self.firsts[number] != number => data[self.firsts[number]].clone(),
                Kind::File(content) => {
                    File { path: inode.path, content, tail_room }.store(image, self.options.compression)?
                }
                Kind::Symlink(target) => {
                    let target = target.as_os_str().as_bytes();
                    if target.len() <= tail_room {
                        Data::inline(0, target.to_vec())
                    } else {
                        let place = image.next_block()?;
                        image.put(target)?;
                        image.pad()?;
                        Data::none(place)
                    }
                }
                Kind::Directory => match (self.size(number) % BLOCK as u64) as usize {
                    tail if tail > 0 && tail <= tail_room => Data::inline(0, vec![0; tail]),
                    _ => Data::none(0),
                },
                Kind::CharDevice { .. } | Kind::Fifo => {
                    Data::none(inode.device_number(FORMAT)?.unwrap_or_default())
                }
            });
        }
        Ok(data)
    }

    /// Where each inode stands in the image. The longest are placed first, so that the short ones fill what
    /// they leave; but before all the root, which has to be in the first block.
    pub(super) fn place_inodes(&self, data: &[Data], places: &mut Places) -> Vec<u64> {
        let len = |number: usize| self.before_data(number, data[number].layout) + data[number].behind.len();
        let mut order: Vec<usize> = (1..self.len()).collect();
        order.sort_by_cached_key(|&number| Reverse(len(number)));
        let mut positions = vec![0; self.len()];
        for number in std::iter::once(0).chain(order) {
            positions[number] = places.take(len(number));
        }
        positions
    }

    /// Gives directories their content, now that it is known where inodes stand: what goes behind the inodes,
    /// and, in the order of the tree, the blocks that begin at `first_block`.
    pub(super) fn fill_directories(&self, data: &mut [Data], positions: &[u64], first_block: u64) -> Vec<u8> {
        let mut blocks: Vec<u8> = Vec::new();
        for (number, inode) in self.inodes.iter().enumerate() {
            if *inode.kind != Kind::Directory {
                continue;
            }
            let content = self.directory(number, positions);
            let (whole, tail) = content.split_at(content.len() - data[number].behind.len());
            data[number].place = (first_block + (blocks.len() / BLOCK) as u64) as u32;
            data[number].behind = tail.to_vec();
            blocks.extend_from_slice(whole);
            blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
        }
        blocks
    }

    /// Writes the inodes, those of the first block into it.
    pub(super) fn put_inodes(
        &self,
        data: &[Data],
        positions: &[u64],
        first: &mut [u8; BLOCK],
        image: &mut Image<impl Write + Seek>,
    ) -> Result<(), Error> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_unstable_by_key(|&number| positions[number]);
        for number in order {
            let (data, position) = (&data[number], positions[number]);
            let mut bytes = self.header(number, data).encode();
            bytes.extend_from_slice(&self.xattrs.bodies[number]);
            bytes.resize(self.before_data(number, data.layout), 0);
            bytes.extend_from_slice(&data.behind);
            if position < BLOCK as u64 {
                first[position as usize..][..bytes.len()].copy_from_slice(&bytes);
            } else {
                image.pad_to(position)?;
                image.put(&bytes)?;
            }
        }
        Ok(())
    }

    /// How long the content is.
    fn size(&self, number: usize) -> u64 {
        let inode = &self.inodes[number];
        match inode.kind {
            Kind::File(content) => content.len(),
            Kind::Symlink(target) => target.as_os_str().len() as u64,
            Kind::Directory => dirent::size(self.names(number).iter().map(|(name, _)| *name)),
            Kind::CharDevice { .. } | Kind::Fifo => 0,
        }
    }

    /// A directory's names with the inodes they lead to, sorted: `.` and `..` stand among the others.
    fn names(&self, number: usize) -> Vec<(&'a [u8], usize)> {
        let inode = &self.inodes[number];
        let mut names = inode.entries.clone();
        names.extend_from_slice(&[(b".", number), (b"..", inode.parent)]);
        names.sort_unstable();
        names
    }

    fn directory(&self, number: usize, positions: &[u64]) -> Vec<u8> {
        let entry = |(name, leads_to): (&'a [u8], usize)| {
            let kind = self.inodes[leads_to].kind;
            Dirent { name, nid: nid(positions[leads_to]), kind }
        };
        let entries: Vec<_> = self.names(number).into_iter().map(entry).collect();
        dirent::encode(&entries)
    }

    fn header(&self, number: usize, data: &Data) -> Header {
        let inode = &self.inodes[number];
        Header {
            number: number as u32 + 1,
            mode: inode.mode(),
            uid: inode.attributes.uid,
            gid: inode.attributes.gid,
            links: inode.links(&self.inodes),
            size: self.size(number),
            time: self.options.time,
            layout: data.layout,
            xattr_count: xattr::count(&self.xattrs.bodies[number]),
            place: data.place,
        }
    }

    /// How much of an inode is before what follows of its content; an index wants to stand at a multiple of
    /// 8.
    fn before_data(&self, number: usize, layout: Layout) -> usize {
        let len = self.header(number, &Data::none(0)).len() + self.xattrs.bodies[number].len();
        if layout == Layout::Compressed { len.next_multiple_of(8) } else { len }
    }

    /// An inode with what follows it stays in one block; the root is in the first, behind the superblock. A
    /// tail that several inodes share stands behind each of them, unless a block for all is less.
    fn tail_rooms(&self) -> Vec<usize> {
        let mut copies = vec![0; self.len()];
        self.firsts.iter().for_each(|&first| copies[first] += 1);
        let mut rooms: Vec<usize> = copies.iter().map(|&copies| BLOCK / usize::max(copies, 1)).collect();
        for (number, &first) in self.firsts.iter().enumerate() {
            let block = if number == 0 { BLOCK - superblock::END } else { BLOCK };
            rooms[first] = rooms[first].min(block - self.before_data(number, Layout::Inline));
        }
        rooms
    }
}

/// The kernel's number of the inode that stands here.
pub(super) fn nid(position: u64) -> u64 {
    position / SLOT as u64
}
