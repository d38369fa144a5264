//! Dates of a Release file: `Sat, 11 Jul 2026 10:16:37 UTC` (RFC 822 with a year of four digits, always UTC).

use std::time::{Duration, SystemTime};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The moment; none for what is no such date. The day of the week is not looked at.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let (_, date) = text.split_once(',')?;
    let mut words = date.split_ascii_whitespace();
    let day = number(words.next()?, 1..=31)?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let year = number(words.next()?, 1970..=9999)?;
    let mut clock = words.next()?.split(':');
    let hour = number(clock.next()?, 0..=23)?;
    let minute = number(clock.next()?, 0..=59)?;
    let second = number(clock.next()?, 0..=60)?;
    let utc = matches!(words.next()?, "UTC" | "GMT" | "Z" | "+0000");
    let seconds = ((days_before(year, month) + day - 1) * 24 + hour) * 3600 + minute * 60 + second;
    (utc && words.next().is_none() && clock.next().is_none())
        .then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn number(text: &str, among: std::ops::RangeInclusive<u64>) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?.filter(|n| among.contains(n))
}

/// Days from 1970 to the first of a month.
fn days_before(year: u64, month: u64) -> u64 {
    let leap_years = |through: u64| through / 4 - through / 100 + through / 400;
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let february = if leap { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30];
    let in_year: u64 = lengths.iter().take(month as usize - 1).sum();
    (year - 1970) * 365 + leap_years(year - 1) - leap_years(1969) + in_year
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds_since_1970() {
        // As `date -u -d '...' +%s` has them.
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", 0),
            ("Sat, 11 Jul 2026 10:16:37 UTC", 1_783_764_997),
            ("Thu, 29 Feb 2024 23:59:59 UTC", 1_709_251_199),
            ("Fri, 01 Mar 2024 00:00:00 UTC", 1_709_251_200),
            ("Wed, 1 Mar 2100 00:00:00 +0000", 4_107_542_400),
        ] {
            assert_eq!(parse(text), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_dates() {
        for text in [
            "",
            "Sat",
            "Sat, 32 Jul 2026 10:16:37 UTC",
            "Sat, 11 Jul 2026 10:16:37 CEST",
            "Sat, 11 jul 2026 10:16:37 UTC",
            "Sat, 11 Jul 26 10:16:37 UTC",
            "Sat, 11 Jul 2026 10:16 UTC",
            "Sat, 11 Jul 2026 10:16:37:00 UTC",
            "Sat, +1 Jul 2026 10:16:37 UTC",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
