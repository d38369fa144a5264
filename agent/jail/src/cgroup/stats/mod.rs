//! What a cgroup uses, read from its files.
//!
//! A controller that is not there gives zeroes: a guest kernel may be built without one.

pub(super) mod v1;
pub(super) mod v2;

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Cgroup, Result};

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
    pub io: Io,
    /// Huge pages, by their size as in `2MB`.
    pub hugetlb: BTreeMap<String, Hugetlb>,
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
    /// On each processor. Version 2 does not count that.
    pub per_processor: Vec<u64>,
    /// Enforcement periods that passed.
    pub periods: u64,
    /// Periods in which the limit was hit.
    pub throttled_periods: u64,
    /// How long it was held back.
    pub throttled_time: u64,
}

/// Memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// All of it.
    pub all: Usage,
    /// Swap; with version 1, memory and swap together.
    pub swap: Usage,
    /// The kernel's own.
    pub kernel: Usage,
    /// How many processes the kernel killed for lack of memory.
    pub oom_kills: u64,
    /// Whether cgroups below count here too.
    pub hierarchical: bool,
    /// `memory.stat` as it is.
    pub stat: BTreeMap<String, u64>,
}

/// One kind of memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Now.
    pub now: u64,
    /// The most so far.
    pub peak: u64,
    /// `u64::MAX` without a limit.
    pub limit: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

/// Number of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pids {
    /// Now.
    pub current: u64,
    /// 0 without a limit.
    pub limit: u64,
}

/// Block devices, by what is counted. Version 2 has one list, which goes by the name of the first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Io {
    /// Bytes moved; with version 2 everything.
    pub service_bytes: Vec<IoEntry>,
    /// Requests done.
    pub serviced: Vec<IoEntry>,
    /// Requests that wait.
    pub queued: Vec<IoEntry>,
    /// Time in the device.
    pub service_time: Vec<IoEntry>,
    /// Time in the queue.
    pub wait_time: Vec<IoEntry>,
    /// Requests joined with another.
    pub merged: Vec<IoEntry>,
    /// Time the device was this cgroup's.
    pub time: Vec<IoEntry>,
    /// Sectors moved.
    pub sectors: Vec<IoEntry>,
}

/// One count of one block device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IoEntry {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// What is counted: `read`, `Write` and so on. Empty where there is nothing to tell apart.
    pub op: String,
    /// The count.
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hugetlb {
    /// Now.
    pub usage: u64,
    /// The most so far. Version 2 does not count that.
    pub peak: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

/// The value behind `name` in a file of `name value` lines.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A file's text; none where its controller is not there.
fn text(cgroup: &Cgroup, file: &str) -> Result<String> {
    match cgroup.read(file) {
        Err(error) if error.is_missing() => Ok(String::new()),
        other => other,
    }
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

fn pids(cgroup: &Cgroup) -> Result<Pids> {
    let limit = number(&text(cgroup, "pids.max")?);
    Ok(Pids {
        current: number(&text(cgroup, "pids.current")?),
        limit: if limit == u64::MAX { 0 } else { limit },
    })
}

/// The sizes of huge pages that a cgroup counts: the middle of the names of files in `directory` that end in `suffix`.
fn page_sizes(directory: Option<PathBuf>, suffix: &str) -> Vec<String> {
    let names =
        directory.and_then(|directory| std::fs::read_dir(directory).ok()).into_iter().flatten().flatten();
    let size = |name: &str| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
        (!size.contains('.')).then(|| size.to_owned())
    };
    names.filter_map(|entry| size(entry.file_name().to_str()?)).collect()
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
}
