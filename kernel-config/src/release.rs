//! Releases of Linux, and ranges of them: an exception that holds for one release is looked at again for the next.

use std::{fmt, str::FromStr};

use serde::Deserialize;

/// A release of Linux, as far as its features go: 6.12 of 6.12.117.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Release {
    major: u32,
    minor: u32,
}

impl Release {
    /// Whether this release is none before `since`, and one before `before`. A bound that is absent binds nothing.
    pub(crate) fn is_within(self, since: Option<Release>, before: Option<Release>) -> bool {
        since.is_none_or(|since| self >= since) && before.is_none_or(|before| self < before)
    }
}

impl FromStr for Release {
    type Err = String;

    /// "6.12", "6.12.117", "6.13-rc1".
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no release of Linux, such as 6.12");
        let mut parts = text.split(['.', '-']);
        let mut number = || {
            let part = parts.next().filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
            part.and_then(|part| part.parse().ok()).ok_or_else(bad)
        };
        Ok(Release { major: number()?, minor: number()? })
    }
}

impl TryFrom<String> for Release {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_numbers_and_are_ordered_as_such() {
        let release = |text: &str| text.parse::<Release>().unwrap();
        assert!(release("6.9") < release("6.12.117") && release("6.13-rc1") < release("7.0"));
        assert_eq!(release("6.12.117"), release("6.12"));
        for bad in ["", "6", "6.", "six.12", "6.+1", "v6.12"] {
            assert!(bad.parse::<Release>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_range_holds_its_first_and_not_its_last() {
        let release = |text: &str| text.parse::<Release>().ok();
        let ours = release("6.12.1").unwrap();
        assert!(ours.is_within(None, None) && ours.is_within(release("6.12"), release("6.13")));
        assert!(!ours.is_within(release("6.13"), None) && !ours.is_within(None, release("6.12")));
    }
}
