//! When each step of the boot was done.
//!
//! A list for the whole program, because the first steps are done before there is anything that could hold it. It is
//! bounded: a step that is done over and over cannot fill the memory.

use std::sync::Mutex;

use nix::time::{ClockId, clock_gettime};

/// More stamps than a boot has steps.
const MOST: usize = 64;

static STAMPS: Mutex<Vec<Stamp>> = Mutex::new(Vec::new());

/// A step that was done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) step: &'static str,
    /// Of the monotonic clock, which begins with the kernel.
    pub(crate) nanoseconds: u64,
}

/// Notes that a step has just been done.
pub(crate) fn stamp(step: &'static str) {
    let nanoseconds = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(|now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
        .unwrap_or_default();
    let mut stamps = STAMPS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if stamps.len() < MOST {
        stamps.push(Stamp { step, nanoseconds });
    }
}

/// The steps so far, in the order in which they were done.
pub(crate) fn stamps() -> Vec<Stamp> {
    STAMPS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_in_order_and_bounded() {
        for _ in 0..MOST + 5 {
            stamp("again");
        }
        let stamps = stamps();
        assert_eq!(stamps.len(), MOST);
        assert!(stamps[0].nanoseconds > 0);
        assert!(stamps.is_sorted_by_key(|stamp| stamp.nanoseconds), "{stamps:?}");
        assert_eq!(stamps[0].step, "again");
    }
}
