//! What is in a regular file: bytes in memory, or a file of the cache that is read when an image is written.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The content of a file. A copy of it shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content(Source);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Memory(Arc<[u8]>),
    File { path: Arc<Path>, length: u64 },
}

impl Content {
    /// What is in a file now. It must stay as it is until the image is written: so nothing but the cache's entries.
    pub fn of_file(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let length = path.metadata()?.len();
        Ok(Content(Source::File { path: path.into(), length }))
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.0 {
            Source::Memory(bytes) => bytes.len() as u64,
            Source::File { length, .. } => *length,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, one after the other. A file that has changed its length since is an error at its end.
    pub fn reader(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(match &self.0 {
            Source::Memory(bytes) => Box::new(Cursor::new(bytes)),
            Source::File { path, length } => Box::new(Exactly { file: File::open(path)?, left: *length }),
        })
    }

    /// The bytes, all at once.
    pub fn bytes(&self) -> io::Result<Arc<[u8]>> {
        if let Source::Memory(bytes) = &self.0 {
            return Ok(bytes.clone());
        }
        let mut bytes = Vec::new();
        self.reader()?.read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Content(Source::Memory(bytes.into()))
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        text.as_bytes().to_vec().into()
    }
}

/// A file of a known length: sizes were laid out before it is read.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        let n = self.file.read(into)? as u64;
        let changed = || io::Error::other("the file changed while the image was made");
        match self.left.checked_sub(n) {
            Some(left) if n > 0 || left == 0 => self.left = left,
            _ => return Err(changed()),
        }
        Ok(n as usize)
    }
}
