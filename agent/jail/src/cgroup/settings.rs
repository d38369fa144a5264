//! What both versions have in common on the way from OCI resources to files: the list of files to write, and words that
//! go into them.

use crate::oci::LinuxHugepageLimit;

use super::{CgroupError, Result};

/// One file to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) file: String,
    pub(super) value: String,
    /// Whether a kernel may lack the file.
    pub(super) optional: bool,
}

/// The files to write, in this order.
#[derive(Debug, Default)]
pub(super) struct Settings(pub(super) Vec<Setting>);

/// Reads a file of the cgroup, for settings that depend on what holds now. `None`: it is not there.
pub(super) type Now<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Settings {
    pub(super) fn set(&mut self, file: &str, value: impl ToString) {
        self.0.push(Setting { file: file.to_owned(), value: value.to_string(), optional: false });
    }

    pub(super) fn set_if_there(&mut self, file: &str, value: impl ToString) {
        self.0.push(Setting { file: file.to_owned(), value: value.to_string(), optional: true });
    }
}

pub(super) fn refused<T>(what: &'static str, value: impl ToString) -> Result<T> {
    Err(CgroupError::Limit { what, value: value.to_string() })
}

/// The page size of a huge page limit as its files are named, such as `2MB`.
pub(super) fn page_size(limit: &LinuxHugepageLimit) -> Result<&str> {
    let size = limit.page_size().as_str();
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or("");
    let sound =
        !number.is_empty() && !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit());
    if sound { Ok(size) } else { refused("huge page size", format!("{size:?}")) }
}

/// A name that goes into a line of words.
pub(super) fn word<'w>(what: &'static str, name: &'w str) -> Result<&'w str> {
    let sound = !name.is_empty() && !name.contains(|letter: char| letter.is_whitespace() || letter == '\0');
    if sound { Ok(name) } else { refused(what, format!("{name:?}")) }
}

/// A list of processors or memory nodes, such as `0-3,7`.
pub(super) fn list<'l>(what: &'static str, text: &'l str) -> Result<&'l str> {
    let sound = text.bytes().all(|byte| byte.is_ascii_digit() || b"-,".contains(&byte));
    if sound { Ok(text) } else { refused(what, format!("{text:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_file_names_and_nothing_else() {
        let limit = |size: &str| {
            let mut limit = LinuxHugepageLimit::default();
            limit.set_page_size(size.to_owned());
            limit
        };
        for size in ["64KB", "2MB", "1GB"] {
            assert_eq!(page_size(&limit(size)).unwrap(), size);
        }
        for size in ["", "MB", "0MB", "2M", "../2MB", "2 MB", "-2MB", "2mb"] {
            assert!(page_size(&limit(size)).is_err(), "{size:?}");
        }
    }
}
