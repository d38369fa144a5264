//! What can go wrong between a list of packages and a root file system. Each variant is a step; each message
//! names the object.

use std::{io, path::PathBuf};

/// Why a Debian root file system could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An input could not be had, or is not what it should be.
    #[error(transparent)]
    Inputs(#[from] guest_inputs::Error),
    /// Two packages, or a package and a step of ours, want the same path, or a path climbs.
    #[error(transparent)]
    Tree(#[from] guest_tree::Error),
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
    /// The keyring, or a certificate in it, is of no use.
    #[error("keyring: {what}")]
    Keyring {
        /// What is wrong.
        what: String,
    },
    /// No signature of a Release file is good.
    #[error("suite {suite}: signature of InRelease: {what}")]
    Signature {
        /// The suite.
        suite: String,
        /// What is wrong with it.
        what: String,
    },
    /// A Release file, signed as it may be, is not what was asked for.
    #[error("suite {suite}: Release: {what}")]
    Release {
        /// The suite.
        suite: String,
        /// What is wrong with it.
        what: String,
    },
    /// A list of packages cannot be read.
    #[error("suite {suite}: Packages: {what}")]
    Packages {
        /// The suite.
        suite: String,
        /// What is wrong where.
        what: String,
    },
    /// A package that was asked for, or that another one needs, cannot be had.
    #[error("package {wanted}: {what}{}", chain(by))]
    Unresolved {
        /// The dependency as it is spelt.
        wanted: String,
        /// Who asked for it, and who for that one, up to the recipe.
        by: Vec<String>,
        /// Why it cannot be had.
        what: String,
    },
    /// A pinned package has left the mirror.
    #[error("package {package}: no suite of the mirror has it any more; looked in {}", tried.join(", "))]
    Gone {
        /// Name, version and digest.
        package: String,
        /// Each suite, or why it could not be looked into.
        tried: Vec<String>,
    },
    /// A package holds what no package should.
    #[error("package {package}: {what}")]
    Package {
        /// Name and version.
        package: String,
        /// What is wrong with it.
        what: String,
    },
    /// A step after unpacking failed.
    #[error("finish: {step}: {what}")]
    Finish {
        /// The step.
        step: &'static str,
        /// What is wrong with what.
        what: String,
    },
}

/// Shorthand for `map_err`: a failed step on a path.
pub(crate) fn at(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { step, path, source }
}

fn chain(by: &[String]) -> String {
    by.iter().map(|one| format!(", wanted by {one}")).collect()
}
