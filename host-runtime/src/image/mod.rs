//! Images in an OCI layout (a directory as skopeo, buildah or umoci write it), unpacked into a root file system.
//!
//! A layout is input from outside: every blob's size and digest is checked while it is read, and no entry of a layer
//! can reach a path outside the tree it is unpacked into; see [`tree`].

mod blob;
mod layer;
mod layout;
mod tree;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::AtomicBool;

use blob::Blobs;
use guest_arch::Arch;
use tree::Tree;

/// An image by where it is: `oci:DIR` or `oci:DIR:REF`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The layout.
    pub dir: PathBuf,
    /// The name of one image in it.
    pub name: Option<String>,
}

/// What an image says about the process it is made for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// Entrypoint and command.
    pub command: Vec<String>,
    /// Environment.
    pub env: Vec<String>,
    /// Working directory, may be empty.
    pub workdir: String,
    /// User, may be empty.
    pub user: String,
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the layout.
    #[error("{}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// A document of the layout that is not what it should be.
    #[error("{}: {cause}", .path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// No image of that name, or no telling which.
    #[error("{reference}: {cause}")]
    NoSuchImage {
        /// The image asked for.
        reference: String,
        /// What there is instead.
        cause: String,
    },
    /// A blob that is not what its digest says.
    #[error("{digest}: digest does not match: the blob's is {found}")]
    Digest {
        /// As the manifest has it.
        digest: String,
        /// As computed.
        found: String,
    },
    /// A blob shorter or longer than its descriptor says.
    #[error("{digest}: size does not match: {found} bytes, expected {expected}")]
    Size {
        /// The blob.
        digest: String,
        /// Its size.
        found: u64,
        /// The size it should have.
        expected: u64,
    },
    /// A compression or digest nobody here can read.
    #[error("{digest}: {kind} is not supported")]
    Unsupported {
        /// The blob.
        digest: String,
        /// What it would take.
        kind: String,
    },
    /// An entry of a layer.
    #[error("layer {layer}: {entry}")]
    Entry {
        /// The layer's digest.
        layer: String,
        /// The path in it.
        entry: String,
        /// What went wrong.
        source: io::Error,
    },
    /// Somebody asked to stop.
    #[error("unpacking stopped")]
    Stopped,
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Reference, String> {
        let rest = text.strip_prefix("oci:").ok_or("expected oci:DIR or oci:DIR:REF")?;
        let (dir, name) = match rest.split_once(':') {
            Some((dir, name)) => (dir, Some(name.to_string())),
            None => (rest, None),
        };
        if dir.is_empty() || name.as_deref() == Some("") {
            return Err("expected oci:DIR or oci:DIR:REF".into());
        }
        Ok(Reference { dir: dir.into(), name })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}", self.dir.display())?;
        self.name.iter().try_for_each(|name| write!(f, ":{name}"))
    }
}

/// Unpacks an image, of several for different machines the one for `arch`, into the new directory `rootfs`. Gives up soon
/// after `stop` is set.
pub fn unpack(
    reference: &Reference,
    arch: Arch,
    rootfs: &Path,
    stop: &AtomicBool,
) -> Result<ImageConfig, Error> {
    let blobs = Blobs::new(&reference.dir);
    let image = layout::find(reference, arch, &blobs)?;
    let cannot = |e| Error::File(rootfs.to_path_buf(), e);
    std::fs::create_dir(rootfs).map_err(cannot)?;
    let mut tree = Tree::open(rootfs).map_err(cannot)?;
    for layer in &image.layers {
        layer::apply(layer, &blobs, &mut tree, stop)?;
    }
    Ok(image.config)
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
