//! One-line errors: an error followed by its causes.

use std::error::Error as StdError;
use std::fmt;

/// An error whose text is its own and that of every cause behind it, joined by colons. It says all itself, so it has
/// no source.
#[derive(Debug)]
pub struct Chained<E>(pub E);

impl<E: StdError> fmt::Display for Chained<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {}", plain(error))?;
            cause = error.source();
        }
        Ok(())
    }
}

impl<E: StdError> StdError for Chained<E> {}

impl<E> From<E> for Chained<E> {
    fn from(error: E) -> Chained<E> {
        Chained(error)
    }
}

/// An error's text without the number the standard library puts behind the system's words, which begin in lower case
/// like those of every other tool that ends a line with them.
pub(crate) fn plain(error: &(impl fmt::Display + ?Sized)) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((words, _)) => {
            let mut letters = words.chars();
            letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("/x")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_follow_in_plain_words() {
        let error = Chained(Outer(std::io::Error::from_raw_os_error(2)));
        assert_eq!(error.to_string(), "/x: no such file or directory");
    }
}
