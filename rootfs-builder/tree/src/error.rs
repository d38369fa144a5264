//! Why something cannot be put into a tree.

use std::path::PathBuf;

use crate::Origin;

/// What is wrong with which path.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A path that climbs.
    #[error("tree: {path:?} has .. in it")]
    Parent {
        /// As it was given.
        path: PathBuf,
    },
    /// Links that lead to each other.
    #[error("tree: {path:?} leads through too many symbolic links")]
    Links {
        /// As it was given.
        path: PathBuf,
    },
    /// Two sources want the same path.
    #[error("tree: /{} is there already: of {by}, and wanted by {wanted}", path.display())]
    Taken {
        /// Without its leading slash.
        path: PathBuf,
        /// Whose it is.
        by: Origin,
        /// Who came later.
        wanted: Origin,
    },
    /// Something that is not a directory stands above the path.
    #[error("tree: /{} is not a directory, so nothing can be in it", path.display())]
    NotADirectory {
        /// Without its leading slash.
        path: PathBuf,
    },
    /// A directory with something in it cannot become a file.
    #[error("tree: /{} is a directory with something in it", path.display())]
    NotEmpty {
        /// Without its leading slash.
        path: PathBuf,
    },
}
