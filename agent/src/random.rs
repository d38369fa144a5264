//! Random numbers, which the host adds to where the guest may have another's.

use std::io;

use crate::sys;

/// The random numbers are what they were.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("data: it is empty")]
    Empty,
    #[error("reseed /dev/urandom: {0}")]
    Reseed(#[from] io::Error),
}

/// Mixes bytes into the kernel's random numbers and has the next ones depend on them.
pub(crate) fn reseed(bytes: &[u8]) -> Result<(), Error> {
    if bytes.is_empty() {
        return Err(Error::Empty);
    }
    Ok(sys::add_entropy(bytes)?)
}
