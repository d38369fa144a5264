//! One-line errors: an error followed by its causes.

use std::error::Error as StdError;
use std::fmt;

/// An error whose text is its own and that of every cause behind it, joined by colons.
#[derive(Debug)]
pub struct Chained<E>(pub E);

impl<E: StdError> fmt::Display for Chained<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl<E: StdError + 'static> StdError for Chained<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

impl<E> From<E> for Chained<E> {
    fn from(error: E) -> Chained<E> {
        Chained(error)
    }
}
