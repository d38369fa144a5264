//! What can go wrong with an input. Each variant is a step; each message names the object.

use std::{io, path::PathBuf};

/// Why an input could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No directory for the cache can be told from the environment.
    #[error("cache: neither XDG_CACHE_HOME nor HOME is set")]
    NoCacheHome,
    /// A step on a file or directory of this machine failed.
    #[error("cannot {step} {}", path.display())]
    File {
        /// What was tried, as a verb.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The machine's apt sources name no mirror that has this archive.
    #[error(
        "mirror: the apt sources of this machine (/etc/apt/sources.list, sources.list.d) name no {archive} archive"
    )]
    NoMirror {
        /// The archive that was looked for.
        archive: crate::Archive,
    },
    /// A setting of this program's makes no sense.
    #[error("{variable}={}: is not a number of seconds", value.to_string_lossy())]
    Timeout {
        /// The environment variable.
        variable: &'static str,
        /// What it says.
        value: std::ffi::OsString,
    },
    /// A file would have to be downloaded, and must not be.
    #[error("offline: {what} is not in the cache: build once without --offline")]
    Offline {
        /// What is missing, by name and version.
        what: String,
    },
    /// A pinned file could not be downloaded.
    #[error("download {pin}: /{path} from the {archive} mirror: {cause}")]
    Download {
        /// The pin's name and version.
        pin: String,
        /// Path below the mirror's base.
        path: String,
        /// Which archive.
        archive: crate::Archive,
        /// What the mirror, or the network, said.
        cause: String,
        /// Whether it said that there is no such file, or not any more.
        absent: bool,
    },
    /// A downloaded file is not the pinned one.
    #[error("download {pin}: /{path}: {what} is {actual}, the pin says {expected}")]
    Mismatch {
        /// The pin's name and version.
        pin: String,
        /// Path below the mirror's base.
        path: String,
        /// "size" or "sha256".
        what: &'static str,
        /// What arrived.
        actual: String,
        /// What was asked for.
        expected: String,
    },
    /// A package is not an `ar` archive with a `data.tar` in it.
    #[error("package {}: {what}", path.display())]
    Package {
        /// The package.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// An entry of an archive would leave the directory it is unpacked into, or is of a kind that is not wanted.
    #[error("archive {}: entry {entry:?}: {what}", path.display())]
    Entry {
        /// The archive.
        path: PathBuf,
        /// The entry's name.
        entry: String,
        /// What is wrong with it.
        what: String,
    },
}

/// Shorthand for `map_err`: a failed step on a path.
pub(crate) fn at(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { step, path, source }
}
