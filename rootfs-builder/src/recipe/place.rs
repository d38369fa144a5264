//! Where something stands in a recipe: what an error has to say so that a person can put it right.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::{Error, Said};

/// A key in a line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    file: String,
    line: usize,
    key: String,
}

impl Place {
    /// The error that says what is wrong here.
    pub(crate) fn wrong(&self, what: impl Into<String>) -> Error {
        Error::Value { place: self.clone(), what: what.into() }
    }

    /// Whether it is in this file, and not in one that it extends.
    pub(crate) fn is_in(&self, file: &Path) -> bool {
        self.file == file.display().to_string()
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Place {
        Place { file: "test.toml".to_owned(), line: 1, key: "key".to_owned() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}, {}", self.file, self.line, self.key)
    }
}

/// A recipe's file.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// What relative paths in it are relative to.
    pub(super) directory: PathBuf,
    /// Its name without `.toml`.
    pub(super) name: String,
    pub(super) text: String,
}

impl Source {
    pub(super) fn new(path: &Path, text: String) -> Self {
        let absolute = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let directory = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Source { path: absolute, directory, name, text }
    }

    /// The place of a value by its bytes in the text.
    pub(super) fn place(&self, key: &str, span: Range<usize>) -> Place {
        Place { file: self.path.display().to_string(), line: self.line(span.start), key: key.to_owned() }
    }

    /// The place of what is not there at all.
    pub(super) fn whole(&self, key: &str) -> Place {
        self.place(key, 0..0)
    }

    /// The values of a list, each with its place.
    pub(super) fn all(&self, key: &str, values: &[Spanned<String>]) -> Vec<Said<String>> {
        let said = |value: &Spanned<String>| Said {
            value: value.get_ref().clone(),
            place: self.place(key, value.span()),
        };
        values.iter().map(said).collect()
    }

    pub(super) fn line(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|b| *b == b'\n').count()
    }
}
