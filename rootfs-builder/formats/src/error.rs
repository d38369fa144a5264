//! What can go wrong while an image is written. Each variant is a step; each message names the format and the
//! object.

use std::io;
use std::path::{Path, PathBuf};

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The content of a file could not be read.
    #[error("{format}: cannot read what is to be /{}", path.display())]
    Content {
        /// The image's.
        format: &'static str,
        /// Of the file in the tree, without its leading slash.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The image could not be written.
    #[error("{format}: cannot write the image")]
    Write {
        /// The image's.
        format: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Something in the tree that the format has no place for.
    #[error("{format}: /{} {what}", path.display())]
    Unsupported {
        /// The image's.
        format: &'static str,
        /// Of the node in the tree, without its leading slash.
        path: PathBuf,
        /// What about it, as the rest of a sentence: "has a name of more than 255 bytes".
        what: String,
    },
    /// The image as a whole is more than the format can describe.
    #[error("{format}: {what}")]
    Limit {
        /// The image's.
        format: &'static str,
        /// Which limit, as a sentence.
        what: String,
    },
    /// An image could not be read back.
    #[error("{format}: cannot read the image")]
    Read {
        /// What was to be made of it.
        format: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Something that was read is not what it has to be.
    #[error("{format}: {what}")]
    Corrupt {
        /// Of what.
        format: &'static str,
        /// Where and how, as a sentence.
        what: String,
    },
}

/// Shorthand for `map_err`: the image of this format could not be written.
pub(crate) fn writing(format: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Write { format, source }
}

/// Shorthand for `map_err`: an image could not be read.
pub(crate) fn reading_image(format: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Read { format, source }
}

/// Shorthand for `map_err`: the content of a file could not be read.
pub(crate) fn reading(format: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Content { format, path: path.to_owned(), source }
}

/// A node that the format has no place for.
pub(crate) fn unsupported(format: &'static str, path: &Path, what: impl Into<String>) -> Error {
    Error::Unsupported { format, path: path.to_owned(), what: what.into() }
}
