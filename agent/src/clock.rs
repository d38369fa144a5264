//! The time of day, which the host sets where the guest cannot know it.

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

/// The clock was not set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("Sec: {0} is before 1970")]
    Seconds(i64),
    #[error("Usec: {0} is not within a second")]
    Microseconds(i64),
    #[error("set the clock to {seconds} s: {source}")]
    Set { seconds: i64, source: nix::Error },
}

/// Sets the clock to so much after the beginning of 1970.
pub(crate) fn set(seconds: i64, microseconds: i64) -> Result<(), Error> {
    let time = time(seconds, microseconds)?;
    clock_settime(ClockId::CLOCK_REALTIME, time).map_err(|source| Error::Set { seconds, source })
}

fn time(seconds: i64, microseconds: i64) -> Result<TimeSpec, Error> {
    if seconds < 0 {
        return Err(Error::Seconds(seconds));
    }
    if !(0..1_000_000).contains(&microseconds) {
        return Err(Error::Microseconds(microseconds));
    }
    Ok(TimeSpec::new(seconds, microseconds * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_after_1970_and_has_less_than_a_second_beside_its_seconds() {
        assert_eq!(time(1_800_000_000, 999_999).unwrap(), TimeSpec::new(1_800_000_000, 999_999_000));
        assert!(time(0, 0).is_ok() && time(i64::MAX, 0).is_ok(), "the kernel knows its own limits");
        for (seconds, microseconds) in [(-1, 0), (i64::MIN, 0), (0, -1), (0, 1_000_000), (0, i64::MAX)] {
            let error = set(seconds, microseconds).unwrap_err();
            assert!(!matches!(error, Error::Set { .. }), "{error}");
        }
    }
}
