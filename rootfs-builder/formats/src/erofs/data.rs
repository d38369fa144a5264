//! The content of a file, a bit at a time: what of it goes into blocks, and what stays behind its inode.

use std::io::{Read, Seek, Write};
use std::path::Path;

use guest_tree::Content;

use super::cluster::{self, MAX_STRETCH};
use super::image::Image;
use super::inode::Layout;
use super::{BLOCK, Compression, FORMAT};
use crate::contents::fill;
use crate::error::{Error, reading};

/// As much of a file is compressed before it is decided whether the file is worth it.
const SAMPLE: u64 = 1 << 20;

/// Where an inode's content is.
#[derive(Debug, Clone)]
pub(super) struct Data {
    pub(super) layout: Layout,
    /// The first block; with compression how many there are.
    pub(super) place: u32,
    /// What follows the inode: the end of the content, or the index of a compressed one.
    pub(super) behind: Vec<u8>,
}

impl Data {
    /// No content, or only what a device has instead.
    pub(super) fn none(place: u32) -> Self {
        Data { layout: Layout::Plain, place, behind: Vec::new() }
    }

    /// Content whose whole blocks begin at `place`, with its end behind the inode.
    pub(super) fn inline(place: u32, tail: Vec<u8>) -> Self {
        Data { layout: Layout::Inline, place, behind: tail }
    }
}

/// A file that is about to be written.
#[derive(Debug)]
pub(super) struct File<'a> {
    /// In the tree: for errors.
    pub(super) path: &'a Path,
    pub(super) content: &'a Content,
    /// How much of the file's end there is room for behind its inode.
    pub(super) tail_room: usize,
}

impl File<'_> {
    /// Writes what goes into blocks.
    pub(super) fn store(
        &self,
        image: &mut Image<impl Write + Seek>,
        compression: Compression,
    ) -> Result<Data, Error> {
        if compression == Compression::Lz4
            && self.content.len() > BLOCK as u64
            && let Some(compressed) = self.store_compressed(image)?
        {
            return Ok(compressed);
        }
        self.store_plain(image)
    }

    fn store_plain(&self, image: &mut Image<impl Write + Seek>) -> Result<Data, Error> {
        let place = image.next_block()?;
        let mut reader = self.reader()?;
        let mut buffer = vec![0; 16 * BLOCK];
        loop {
            let n = fill(&mut reader, &mut buffer).map_err(reading(FORMAT, self.path))?;
            let (blocks, tail) = buffer[..n].split_at(n - n % BLOCK);
            image.put(blocks)?;
            if n == buffer.len() {
                continue;
            }
            if !tail.is_empty() && tail.len() <= self.tail_room {
                return Ok(Data::inline(place, tail.to_vec()));
            }
            image.put(tail)?;
            image.pad()?;
            return Ok(Data::none(place));
        }
    }

    /// Nothing is written if it would take no less room than the file as it is.
    fn store_compressed(&self, image: &mut Image<impl Write + Seek>) -> Result<Option<Data>, Error> {
        let first = image.next_block()?;
        let mut window = Window::new(self.reader()?);
        let (mut stretches, mut sample, mut done) = (Vec::new(), Some(Vec::new()), 0);
        loop {
            let ahead = window.ahead().map_err(reading(FORMAT, self.path))?;
            let at_end = ahead.is_empty();
            if let Some(blocks) = sample.take_if(|_| at_end || done >= SAMPLE) {
                if !self.is_worth_it(done, stretches.len()) {
                    return Ok(None);
                }
                image.put(&blocks)?;
            }
            if at_end {
                break;
            }
            let (stretch, length, block) = cluster::next(done, ahead);
            stretches.push(stretch);
            done += length as u64;
            window.pass(length);
            match &mut sample {
                Some(blocks) => blocks.extend_from_slice(&block),
                None => image.put(&block)?,
            }
        }
        let behind = cluster::index(&stretches, done, first);
        Ok(Some(Data { layout: Layout::Compressed, place: stretches.len() as u32, behind }))
    }

    /// Whether a file of this length is shorter in so many blocks.
    fn is_worth_it(&self, length: u64, blocks: usize) -> bool {
        let tail = (length % BLOCK as u64) as usize;
        let tail = if tail > self.tail_room { BLOCK } else { tail };
        let plain = length / BLOCK as u64 * BLOCK as u64 + tail as u64;
        ((blocks * BLOCK + cluster::index_len(length)) as u64) < plain
    }

    fn reader(&self) -> Result<Box<dyn Read + '_>, Error> {
        self.content.reader().map_err(reading(FORMAT, self.path))
    }
}

/// What of a file is ahead: enough for one stretch.
struct Window<R> {
    reader: R,
    bytes: Vec<u8>,
    at: usize,
    at_end: bool,
}

impl<R: Read> Window<R> {
    fn new(reader: R) -> Self {
        Window { reader, bytes: Vec::new(), at: 0, at_end: false }
    }

    /// The rest of the file, or at least [`MAX_STRETCH`] of it.
    fn ahead(&mut self) -> std::io::Result<&[u8]> {
        if !self.at_end && self.bytes.len() - self.at < MAX_STRETCH {
            self.bytes.drain(..self.at);
            self.at = 0;
            let there = self.bytes.len();
            self.bytes.resize(4 * MAX_STRETCH, 0);
            let n = fill(&mut self.reader, &mut self.bytes[there..])?;
            self.bytes.truncate(there + n);
            self.at_end = there + n < 4 * MAX_STRETCH;
        }
        Ok(&self.bytes[self.at..])
    }

    fn pass(&mut self, n: usize) {
        self.at += n;
    }
}
