//! Blobs of a layout: read once, hashed on the way, refused at their end if they are not what was promised.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, DigestAlgorithm};
use sha2::{Digest, Sha256};

use super::Error;

/// The largest JSON document we read.
const MAX_DOCUMENT: u64 = 4 << 20;

/// The blobs of one layout.
#[derive(Clone, Debug)]
pub(super) struct Blobs(PathBuf);

impl Blobs {
    pub(super) fn new(layout: &Path) -> Blobs {
        Blobs(layout.join("blobs"))
    }

    /// A JSON document, whole and checked.
    pub(super) fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let mut blob = self.open(descriptor)?;
        if descriptor.size() > MAX_DOCUMENT {
            let kind = format!("a document of {} bytes", descriptor.size());
            return Err(Error::Unsupported { digest: descriptor.digest().to_string(), kind });
        }
        let mut bytes = Vec::new();
        blob.read_to_end(&mut bytes).map_err(|e| Error::File(self.path(descriptor), e))?;
        blob.finish()?;
        Ok(bytes)
    }

    /// A blob to be read; [`Blob::finish`] tells whether it was the right one.
    pub(super) fn open(&self, descriptor: &Descriptor) -> Result<Blob, Error> {
        let digest = descriptor.digest().to_string();
        if *descriptor.digest().algorithm() != DigestAlgorithm::Sha256 {
            let kind = format!("digest algorithm {}", descriptor.digest().algorithm());
            return Err(Error::Unsupported { digest, kind });
        }
        let path = self.path(descriptor);
        let file = File::open(&path).map_err(|e| Error::File(path.clone(), e))?;
        let found = file.metadata().map_err(|e| Error::File(path.clone(), e))?.len();
        if found != descriptor.size() {
            return Err(Error::Size { digest, found, expected: descriptor.size() });
        }
        Ok(Blob { path, source: Hashing::new(file), size: descriptor.size(), digest })
    }

    /// oci-spec has checked that a digest is an algorithm and hex, so this is a path below `blobs`.
    fn path(&self, descriptor: &Descriptor) -> PathBuf {
        self.0.join(descriptor.digest().algorithm().as_ref()).join(descriptor.digest().digest())
    }
}

/// A blob being read.
pub(super) struct Blob {
    path: PathBuf,
    source: Hashing<File>,
    size: u64,
    digest: String,
}

impl Blob {
    /// Reads what is left and compares.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        let rest = io::copy(&mut self.source, &mut io::sink());
        rest.map_err(|e| Error::File(self.path.clone(), e))?;
        let (found, hash) = self.source.finish();
        if found != self.size {
            return Err(Error::Size { digest: self.digest, found, expected: self.size });
        }
        if hash != self.digest {
            return Err(Error::Digest { digest: self.digest, found: hash });
        }
        Ok(())
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.source.read(buffer)
    }
}

/// A reader that counts and hashes.
pub(super) struct Hashing<R> {
    inner: R,
    hash: Sha256,
    read: u64,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R) -> Hashing<R> {
        Hashing { inner, hash: Sha256::new(), read: 0 }
    }

    /// How much was read, and its digest.
    pub(super) fn finish(self) -> (u64, String) {
        let hex: String = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        (self.read, format!("sha256:{hex}"))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.read += read as u64;
        Ok(read)
    }
}
