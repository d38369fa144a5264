//! One block's compression. Each block is on its own, so what is short already gains little.

use std::io::{self, Read};

use liblzma::stream::{Check, Filters, LzmaOptions, Stream};

/// What an image is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Quick to read (`CONFIG_SQUASHFS_ZSTD`).
    #[default]
    Zstd,
    /// Shorter, and several times slower to read (`CONFIG_SQUASHFS_XZ`).
    Xz,
}

/// `mksquashfs`'s default too: the levels above take several times as long for less than a hundredth.
const ZSTD_LEVEL: i32 = 15;

const XZ_LEVEL: u32 = 6;

pub(super) enum Compressor {
    Zstd(zstd::bulk::Compressor<'static>),
    Xz {
        /// As large as a block: the kernel has no room for more.
        dictionary: u32,
    },
}

impl Compressor {
    pub(super) fn new(compression: Compression, block_size: usize) -> io::Result<Self> {
        Ok(match compression {
            Compression::Zstd => Compressor::Zstd(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
            Compression::Xz => Compressor::Xz { dictionary: block_size as u32 },
        })
    }

    /// A block's shorter form; none if it has none.
    pub(super) fn compress(&mut self, block: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let compressed = match self {
            Compressor::Zstd(zstd) => zstd.compress(block)?,
            Compressor::Xz { dictionary } => xz(block, *dictionary)?,
        };
        Ok(Some(compressed).filter(|compressed| compressed.len() < block.len()))
    }
}

fn xz(block: &[u8], dictionary: u32) -> io::Result<Vec<u8>> {
    let mut options = LzmaOptions::new_preset(XZ_LEVEL)?;
    options.dict_size(dictionary);
    let mut filters = Filters::new();
    filters.lzma2(&options);
    // The only check that the kernel's decompressor knows.
    let stream = Stream::new_stream_encoder(&filters, Check::Crc32)?;
    let mut compressed = Vec::new();
    liblzma::read::XzEncoder::new_stream(block, stream).read_to_end(&mut compressed)?;
    Ok(compressed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_gets_shorter_is_compressed() {
        for compression in [Compression::Zstd, Compression::Xz] {
            let mut compressor = Compressor::new(compression, 8192).unwrap();
            assert!(compressor.compress(&[7; 8192]).unwrap().unwrap().len() < 200);
            assert_eq!(compressor.compress(b"abc").unwrap(), None);
        }
    }
}
