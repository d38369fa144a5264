//! What a cgroup uses, read from its files.
//!
//! A controller that is not there gives zeroes: a guest kernel may be built without one.

use std::collections::BTreeMap;

use super::{Cgroup, CgroupError, Result};

/// Everything at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Number of tasks.
    pub pids: Pids,
    /// Block devices.
    pub io: Vec<Io>,
}

/// Processor time, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cpu {
    /// In all.
    pub usage: u64,
    /// In programs.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// Enforcement periods that passed.
    pub periods: u64,
    /// Periods in which the limit was hit.
    pub throttled_periods: u64,
    /// How long it was held back.
    pub throttled_time: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// Now.
    pub usage: u64,
    /// The most so far.
    pub peak: u64,
    /// `u64::MAX` without a limit.
    pub limit: u64,
    /// Swap, now.
    pub swap_usage: u64,
    /// The most swap so far.
    pub swap_peak: u64,
    /// `u64::MAX` without a limit.
    pub swap_limit: u64,
    /// How often the limit was hit.
    pub max_events: u64,
    /// How many processes the kernel killed for lack of memory.
    pub oom_kills: u64,
    /// `memory.stat` as it is.
    pub stat: BTreeMap<String, u64>,
}

/// Number of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pids {
    /// Now.
    pub current: u64,
    /// 0 without a limit.
    pub limit: u64,
}

/// One block device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Io {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// `rbytes`, `wios` and so on.
    pub counters: BTreeMap<String, u64>,
}

pub(super) fn read(cgroup: &Cgroup) -> Result<Stats> {
    let text = |file: &str| match cgroup.read(file) {
        Err(CgroupError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(String::new())
        }
        other => other,
    };
    // The one file every cgroup has: if it is gone, so is the cgroup, and zeroes would be a lie.
    let cpu = cgroup.read("cpu.stat")?;
    let events = text("memory.events")?;
    Ok(Stats {
        cpu: Cpu {
            usage: field(&cpu, "usage_usec").unwrap_or(0) * 1000,
            user: field(&cpu, "user_usec").unwrap_or(0) * 1000,
            system: field(&cpu, "system_usec").unwrap_or(0) * 1000,
            periods: field(&cpu, "nr_periods").unwrap_or(0),
            throttled_periods: field(&cpu, "nr_throttled").unwrap_or(0),
            throttled_time: field(&cpu, "throttled_usec").unwrap_or(0) * 1000,
        },
        memory: Memory {
            usage: number(&text("memory.current")?),
            peak: number(&text("memory.peak")?),
            limit: number(&text("memory.max")?),
            swap_usage: number(&text("memory.swap.current")?),
            swap_peak: number(&text("memory.swap.peak")?),
            swap_limit: number(&text("memory.swap.max")?),
            max_events: field(&events, "max").unwrap_or(0),
            oom_kills: field(&events, "oom_kill").unwrap_or(0),
            stat: fields(&text("memory.stat")?),
        },
        pids: Pids {
            current: number(&text("pids.current")?),
            limit: Some(number(&text("pids.max")?)).filter(|&limit| limit != u64::MAX).unwrap_or(0),
        },
        io: text("io.stat")?.lines().filter_map(device).collect(),
    })
}

/// The value behind `name` in a file of `name value` lines.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn fields(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        line.split_once(' ').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
    };
    text.lines().filter_map(pair).collect()
}

/// A file with one number, or with `max`.
fn number(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

/// `8:0 rbytes=1 wbytes=2 ...`
fn device(line: &str) -> Option<Io> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let pair = |word: &str| {
        word.split_once('=').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
    };
    Some(Io {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        counters: words.filter_map(pair).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "usage_usec 12\nusage 7\n";
        assert_eq!(field(text, "usage"), Some(7));
        assert_eq!(field(text, "usage_usec"), Some(12));
        assert_eq!(field(text, "us"), None);
    }

    #[test]
    fn max_is_no_limit() {
        assert_eq!(number("max\n"), u64::MAX);
        assert_eq!(number("4096\n"), 4096);
        assert_eq!(number(""), 0);
    }

    #[test]
    fn a_line_of_io_stat() {
        let io = device("253:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0").unwrap();
        assert_eq!((io.major, io.minor, io.counters["rbytes"], io.counters.len()), (253, 0, 4096, 6));
        assert!(device("").is_none());
    }
}
