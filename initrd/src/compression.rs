//! How an archive is packed. One thread, one level, no time stamp: the same bytes from the same bytes.

use std::fmt;
use std::io::Write;
use std::str::FromStr;

use crate::Error;

/// The levels above want windows of 32 MiB and more, and gain nothing on an archive this small.
const ZSTD_LEVEL: i32 = 19;

/// What the kernel can unpack, of what Husk writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As it is: what a host with memory to spare boots soonest.
    None,
    /// For kernels and tools that know nothing newer: Husk's own kernels unpack zstd only.
    Gzip,
    /// The smallest of the three, and unpacked faster than gzip.
    #[default]
    Zstd,
}

impl Compression {
    /// Each of them.
    pub const ALL: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

    /// Its name in a recipe.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gz",
            Compression::Zstd => "zst",
        }
    }

    /// What the name of a file that is packed so ends with.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
        }
    }

    /// Packs what `fill` writes, which is `length` bytes.
    pub(crate) fn pack(
        self,
        length: u64,
        out: impl Write,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match self {
            Compression::None => {
                let mut out = std::io::BufWriter::new(out);
                fill(&mut out)?;
                out.flush()?;
            }
            Compression::Gzip => {
                // Its header has no time and no name unless they are set.
                let mut packer = flate2::write::GzEncoder::new(out, flate2::Compression::best());
                fill(&mut packer)?;
                packer.finish()?;
            }
            Compression::Zstd => {
                let mut packer = zstd::Encoder::new(out, ZSTD_LEVEL)?;
                // The kernel sets aside a window as large as the header says: for a small archive that is its
                // length, not the level's 8 MiB.
                packer.set_pledged_src_size(Some(length))?;
                fill(&mut packer)?;
                packer.finish()?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, UnknownCompression> {
        Compression::ALL
            .into_iter()
            .find(|known| known.name() == name)
            .ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}

/// A name that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {0:?}; known are none gz zst")]
pub struct UnknownCompression(String);
