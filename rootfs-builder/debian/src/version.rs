//! Versions of Debian packages, and their order (Debian policy, section 5.6.12).

use std::cmp::Ordering;
use std::fmt;

/// `[epoch:]upstream[-revision]`. Two that are spelt differently can be equal in the order: `1.0` and
/// `1.0-0`.
#[derive(Debug, Clone)]
pub struct Version(String);

impl Version {
    /// Reads one; none if a character of it has no place in a version.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, rest) = split_epoch(text);
        let plain = |c: char| c.is_ascii_alphanumeric() || ".+-:~".contains(c);
        let whole = rest.starts_with(|c: char| c.is_ascii_alphanumeric()) && rest.chars().all(plain);
        // As dpkg has it, an epoch is a positive `int`.
        let digits = epoch.bytes().all(|b| b.is_ascii_digit());
        let counted = epoch.is_empty() || digits && epoch.parse::<i32>().is_ok();
        (whole && counted && !text.starts_with(':')).then(|| Version(text.to_owned()))
    }

    /// As it is spelt.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parts(&self) -> (u32, &str, &str) {
        let (epoch, rest) = split_epoch(&self.0);
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch.parse().unwrap_or(0), upstream, revision)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.parts(), other.parts());
        a.0.cmp(&b.0).then_with(|| compare(a.1, b.1)).then_with(|| compare(a.2, b.2))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Digits before the first colon, and the rest.
fn split_epoch(text: &str) -> (&str, &str) {
    text.split_once(':').unwrap_or(("", text))
}

/// Runs of other characters and runs of digits in turn, until two of a kind differ.
fn compare(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let words = (take(&mut a, |c| !c.is_ascii_digit()), take(&mut b, |c| !c.is_ascii_digit()));
        let numbers = (take(&mut a, |c| c.is_ascii_digit()), take(&mut b, |c| c.is_ascii_digit()));
        let order = compare_words(words.0, words.1).then_with(|| compare_numbers(numbers.0, numbers.1));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn take<'a>(text: &mut &'a str, of_kind: impl Fn(char) -> bool) -> &'a str {
    let end = text.find(|c| !of_kind(c)).unwrap_or(text.len());
    let (run, rest) = text.split_at(end);
    *text = rest;
    run
}

/// A tilde comes before the end, the end before letters, letters before all else.
fn compare_words(a: &str, b: &str) -> Ordering {
    let weight = |c: u8| match c {
        b'~' => -1,
        c if c.is_ascii_alphabetic() => i32::from(c),
        c => i32::from(c) + 256,
    };
    let weights = |text: &str| text.bytes().map(weight).chain([0]).collect::<Vec<_>>();
    weights(a).cmp(&weights(b))
}

/// As numbers of any length.
fn compare_numbers(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn the_order_of_the_policy() {
        let ascending = [
            "0~~",
            "0~~a",
            "0~",
            "0",
            "0a",
            "1.0~beta1~svc1",
            "1.0~beta1",
            "1.0",
            "1.0-1~bpo1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1.1",
            "1.0-10",
            "1.0a",
            "1.0+git",
            "1.0.1",
            "1.2",
            "1.10",
            "1:0",
            "1:0.9-2",
            "2:0~",
        ];
        for (index, later) in ascending.iter().enumerate() {
            for earlier in &ascending[..index] {
                assert!(version(earlier) < version(later), "{earlier} < {later}");
            }
        }
    }

    #[test]
    fn spellings_of_one_version_are_equal() {
        for (a, b) in [("1.0", "1.0-0"), ("0:1", "1"), ("1.01", "1.1"), ("1.0", "1.00"), ("1-00", "1-0")] {
            assert_eq!(version(a), version(b), "{a} {b}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", ":1", "a:1", "1:", "-1:2", "+1:2", "3000000000:1", "1 2", "1_2", "~1", "1/2", "ä"] {
            assert!(Version::parse(text).is_none(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in "[0-9a-c.+~:-]{0,8}", b in "[0-9a-c.+~:-]{0,8}", c in "[0-9a-c.+~:-]{0,8}") {
            let all: Option<Vec<_>> = [a, b, c].iter().map(|text| Version::parse(text)).collect();
            let Some(mut all) = all else { return Ok(()) };
            prop_assert_eq!(all[0].cmp(&all[1]), all[1].cmp(&all[0]).reverse());
            all.sort();
            prop_assert!(all[0] <= all[1] && all[1] <= all[2] && all[0] <= all[2]);
        }

        #[test]
        fn no_text_is_too_odd(text in ".{0,20}") {
            if let Some(version) = Version::parse(&text) {
                prop_assert_eq!(version.cmp(&version.clone()), Ordering::Equal);
            }
        }
    }
}
