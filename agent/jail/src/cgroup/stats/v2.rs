//! Version 2's files.

use std::collections::BTreeMap;

use super::{Cpu, Hugetlb, Io, IoEntry, Memory, Stats, Usage, field, fields, number, page_sizes, pids, text};
use crate::cgroup::{Cgroup, Result};

pub(in crate::cgroup) fn read(cgroup: &Cgroup) -> Result<Stats> {
    Ok(Stats {
        // The one file every cgroup has: if it is gone, so is the cgroup, and zeroes would be a lie.
        cpu: cpu(&cgroup.read("cpu.stat")?),
        memory: memory(cgroup)?,
        pids: pids(cgroup)?,
        io: Io { service_bytes: io(&text(cgroup, "io.stat")?), ..Io::default() },
        hugetlb: hugetlb(cgroup)?,
    })
}

fn cpu(text: &str) -> Cpu {
    let nanoseconds = |name: &str| field(text, name).unwrap_or(0).saturating_mul(1000);
    Cpu {
        usage: nanoseconds("usage_usec"),
        user: nanoseconds("user_usec"),
        system: nanoseconds("system_usec"),
        per_processor: Vec::new(),
        periods: field(text, "nr_periods").unwrap_or(0),
        throttled_periods: field(text, "nr_throttled").unwrap_or(0),
        throttled_time: nanoseconds("throttled_usec"),
    }
}

fn memory(cgroup: &Cgroup) -> Result<Memory> {
    let read = |file: &str| text(cgroup, file);
    let events = read("memory.events")?;
    let stat = fields(&read("memory.stat")?);
    Ok(Memory {
        all: Usage {
            now: number(&read("memory.current")?),
            peak: number(&read("memory.peak")?),
            limit: number(&read("memory.max")?),
            failures: field(&events, "max").unwrap_or(0),
        },
        swap: Usage {
            now: number(&read("memory.swap.current")?),
            peak: number(&read("memory.swap.peak")?),
            limit: number(&read("memory.swap.max")?),
            failures: field(&read("memory.swap.events")?, "max").unwrap_or(0),
        },
        kernel: Usage {
            now: stat.get("kernel").copied().unwrap_or(0),
            limit: if stat.is_empty() { 0 } else { u64::MAX },
            ..Usage::default()
        },
        oom_kills: field(&events, "oom_kill").unwrap_or(0),
        hierarchical: true,
        stat,
    })
}

/// Lines of `8:0 rbytes=1 wbytes=2 ...`. Peers read bytes as `read` and `write`, and the rest by the kernel's names.
fn io(text: &str) -> Vec<IoEntry> {
    const COUNTERS: [(&str, &str); 6] = [
        ("rbytes", "read"),
        ("wbytes", "write"),
        ("rios", "rios"),
        ("wios", "wios"),
        ("dbytes", "dbytes"),
        ("dios", "dios"),
    ];
    let device = |line: &str| {
        let (number, counters) = line.split_once(' ')?;
        let (major, minor) = number.split_once(':')?;
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        let counters: BTreeMap<_, _> =
            counters.split_whitespace().filter_map(|word| word.split_once('=')).collect();
        let entry = |(counter, op): (&str, &str)| IoEntry {
            major,
            minor,
            op: op.to_owned(),
            value: counters.get(counter).and_then(|value| value.parse().ok()).unwrap_or(0),
        };
        Some(COUNTERS.map(entry))
    };
    text.lines().filter_map(device).flatten().collect()
}

fn hugetlb(cgroup: &Cgroup) -> Result<BTreeMap<String, Hugetlb>> {
    let one = |size: String| {
        let usage = number(&text(cgroup, &format!("hugetlb.{size}.current"))?);
        let failures = field(&text(cgroup, &format!("hugetlb.{size}.events"))?, "max").unwrap_or(0);
        Ok((size, Hugetlb { usage, peak: 0, failures }))
    };
    page_sizes(Some(cgroup.path().to_owned()), ".current").into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_io_stat() {
        let entries = io("253:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=7\n8:0 \n");
        let got: Vec<_> = entries.iter().map(|entry| (entry.major, entry.op.as_str(), entry.value)).collect();
        assert_eq!(got[..3], [(253, "read", 4096), (253, "write", 0), (253, "rios", 1)]);
        assert_eq!((got[5], got.len()), ((253, "dios", 7), 12));
        assert!(io("").is_empty() && io("8 rbytes=1\n").is_empty());
    }

    #[test]
    fn time_held_back_is_counted() {
        let cpu = cpu("usage_usec 5\nnr_periods 9\nnr_throttled 3\nthrottled_usec 1234\n");
        let got = (cpu.usage, cpu.periods, cpu.throttled_periods, cpu.throttled_time);
        assert_eq!(got, (5_000, 9, 3, 1_234_000));
    }
}
