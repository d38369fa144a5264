//! What can be wrong with a bill of materials, or go wrong while one is collected. Each message names the
//! component.

use std::{io, path::PathBuf, process::ExitStatus};

use crate::Id;

/// Why there is no bill of materials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Text that is not a sha256 digest.
    #[error("sbom: {0:?} is not a sha256 digest: 64 digits of 0-9 and a-f")]
    Digest(String),
    /// A name, version or other part that cannot be in a package URL.
    #[error("sbom: no package URL can be made of {name:?}: {source}")]
    Purl {
        /// The package's name.
        name: String,
        /// What is wrong with it.
        source: packageurl::Error,
    },
    /// A document or component without a name.
    #[error("sbom: {0} has no name")]
    NoName(String),
    /// Two different components say that they are the same.
    #[error("sbom: {0} is listed twice, with different contents")]
    Twice(Id),
    /// A component depends on something that is not listed.
    #[error("sbom: {from} depends on {on}, which is not listed")]
    Dangling {
        /// The component.
        from: Id,
        /// What it depends on.
        on: Id,
    },
    /// The origin of a component is not an archive and a path below it.
    #[error("sbom: {id}: {text:?} is not {expected}")]
    Origin {
        /// The component.
        id: Id,
        /// What it says.
        text: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A statement about nothing.
    #[error("provenance: no artefact is named")]
    NoArtefact,
    /// Two artefacts, or two inputs, have one name and different digests.
    #[error("provenance: {0:?} is named twice, with different contents")]
    Ambiguous(String),
    /// cargo could not be started.
    #[error("crates: cannot run {program}")]
    Start {
        /// Its name.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// cargo failed.
    #[error("crates: {command} failed ({status}):\n{output}")]
    Cargo {
        /// What was asked of it.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to standard error.
        output: String,
    },
    /// cargo said something that we do not understand.
    #[error("crates: cargo {command}: {what}")]
    Output {
        /// Which of its commands.
        command: &'static str,
        /// What is odd.
        what: String,
    },
    /// A crate is neither ours nor from crates.io, so that no digest of it is in Cargo.lock.
    #[error("crates: {name} {version} comes from {from:?}: only crates.io and the workspace are known here")]
    Source {
        /// The crate.
        name: String,
        /// Its version.
        version: String,
        /// Where it comes from.
        from: String,
    },
    /// A crate that cargo resolved is not in Cargo.lock, or has no digest there.
    #[error("crates: Cargo.lock has no digest of {name} {version}")]
    NotLocked {
        /// The crate.
        name: String,
        /// Its version.
        version: String,
    },
    /// Cargo.lock is not one.
    #[error("crates: {}: {source}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Where it stops making sense.
        source: Box<toml::de::Error>,
    },
    /// A file or directory of a crate could not be read.
    #[error("crates: cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of a crate has a name that cannot be in a list of digests.
    #[error("crates: {path:?}: a name that is not plain UTF-8 text on one line")]
    FileName {
        /// Which.
        path: PathBuf,
    },
}
