//! What can be wrong with a recipe.

use std::{io, path::PathBuf};

use super::Place;

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of that name, and no file at that path.
    #[error("recipe {which}: there is none; known are {}, or say the path of a file (./mine.toml)", known.join(" "))]
    Unknown {
        /// What was asked for.
        which: String,
        /// The recipes that have a name.
        known: Vec<String>,
    },
    /// The file cannot be read.
    #[error("recipe {}: cannot read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no TOML, or has a key that recipes do not have, or a value of another type.
    #[error("recipe {file}, line {line}: {what}")]
    Form {
        /// The file.
        file: String,
        /// The line.
        line: usize,
        /// What is wrong there; it names the key.
        what: String,
    },
    /// A value makes no sense.
    #[error("recipe {place}: {what}")]
    Value {
        /// File, line and key.
        place: Place,
        /// What is wrong with it.
        what: String,
    },
}
