//! The image as it is written: from its second block to its end, then the first, which depends on the rest.

use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use sha2::{Digest as _, Sha256};

use super::superblock::seal;
use super::{BLOCK, FORMAT};
use crate::Uuid;
use crate::error::{Error, writing};

const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// An image without its first block.
pub(super) struct Image<W: Write + Seek> {
    out: BufWriter<W>,
    /// Where in `out` the image begins.
    base: u64,
    position: u64,
    digest: Sha256,
}

impl<W: Write + Seek> Image<W> {
    pub(super) fn new(mut out: W) -> Result<Self, Error> {
        let base = out.stream_position().map_err(writing(FORMAT))?;
        let position = BLOCK as u64;
        out.seek(SeekFrom::Start(base + position)).map_err(writing(FORMAT))?;
        Ok(Image { out: BufWriter::with_capacity(1 << 20, out), base, position, digest: Sha256::new() })
    }

    /// The block that is written next. All before it are whole.
    pub(super) fn next_block(&self) -> Result<u32, Error> {
        let block = self.position.div_ceil(BLOCK as u64);
        u32::try_from(block)
            .map_err(|_| Error::Limit { format: FORMAT, what: "an image has less than 16 TiB".to_owned() })
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(writing(FORMAT))?;
        self.digest.update(bytes);
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Zeros up to here.
    pub(super) fn pad_to(&mut self, position: u64) -> Result<(), Error> {
        while self.position < position {
            let n = (position - self.position).min(BLOCK as u64) as usize;
            self.put(&ZEROS[..n])?;
        }
        Ok(())
    }

    /// Zeros up to the end of the block.
    pub(super) fn pad(&mut self) -> Result<(), Error> {
        self.pad_to(self.position.next_multiple_of(BLOCK as u64))
    }

    /// Writes the first block; says how long the image is and what it is called: by the digest of all it has,
    /// in the order it was written in, its first block last.
    pub(super) fn finish(mut self, mut first: [u8; BLOCK]) -> Result<(u64, Uuid), Error> {
        let uuid = Uuid::of(self.digest.chain_update(first));
        seal(&mut first, uuid);
        let mut close = || -> io::Result<()> {
            self.out.seek(SeekFrom::Start(self.base))?;
            self.out.write_all(&first)?;
            self.out.seek(SeekFrom::Start(self.base + self.position))?;
            self.out.flush()
        };
        close().map_err(writing(FORMAT))?;
        Ok((self.position, uuid))
    }
}
