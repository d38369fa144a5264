//! Version 1's files.

use std::collections::BTreeMap;

use super::{Cpu, Hugetlb, Io, IoEntry, Memory, Stats, Usage, field, fields, number, page_sizes, pids, text};
use crate::cgroup::{Cgroup, Result};

/// What the kernel says where there is no limit: the largest multiple of a page, whatever a page is.
const UNLIMITED: u64 = i64::MAX as u64 - 0xf_ffff;

pub(in crate::cgroup) fn read(cgroup: &Cgroup) -> Result<Stats> {
    // The cgroup is gone if its directory is, whatever controllers there are: zeroes would be a lie.
    Cgroup::open(cgroup.path())?;
    Ok(Stats {
        cpu: cpu(cgroup)?,
        memory: memory(cgroup)?,
        pids: pids(cgroup)?,
        io: io(cgroup)?,
        hugetlb: hugetlb(cgroup)?,
    })
}

fn cpu(cgroup: &Cgroup) -> Result<Cpu> {
    let read = |file: &str| text(cgroup, file);
    let stat = read("cpu.stat")?;
    let each = read("cpuacct.usage_percpu")?;
    Ok(Cpu {
        usage: number(&read("cpuacct.usage")?),
        user: number(&read("cpuacct.usage_user")?),
        system: number(&read("cpuacct.usage_sys")?),
        per_processor: each.split_whitespace().filter_map(|word| word.parse().ok()).collect(),
        periods: field(&stat, "nr_periods").unwrap_or(0),
        throttled_periods: field(&stat, "nr_throttled").unwrap_or(0),
        throttled_time: field(&stat, "throttled_time").unwrap_or(0),
    })
}

fn memory(cgroup: &Cgroup) -> Result<Memory> {
    let read = |file: &str| text(cgroup, file);
    let usage = |kind: &str| -> Result<Usage> {
        let limit = number(&read(&format!("memory.{kind}limit_in_bytes"))?);
        Ok(Usage {
            now: number(&read(&format!("memory.{kind}usage_in_bytes"))?),
            peak: number(&read(&format!("memory.{kind}max_usage_in_bytes"))?),
            limit: if limit >= UNLIMITED { u64::MAX } else { limit },
            failures: number(&read(&format!("memory.{kind}failcnt"))?),
        })
    };
    Ok(Memory {
        all: usage("")?,
        swap: usage("memsw.")?,
        kernel: usage("kmem.")?,
        oom_kills: field(&read("memory.oom_control")?, "oom_kill").unwrap_or(0),
        hierarchical: number(&read("memory.use_hierarchy")?) == 1,
        stat: fields(&read("memory.stat")?),
    })
}

/// From the scheduler that counts most where it is at work, or else from the throttle.
fn io(cgroup: &Cgroup) -> Result<Io> {
    let list = |names: &[&str]| -> Result<Vec<IoEntry>> {
        for name in names {
            let entries = entries(&text(cgroup, &format!("blkio.{name}_recursive"))?);
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    };
    Ok(Io {
        service_bytes: list(&["bfq.io_service_bytes", "throttle.io_service_bytes"])?,
        serviced: list(&["bfq.io_serviced", "throttle.io_serviced"])?,
        queued: list(&["bfq.io_queued"])?,
        service_time: list(&["bfq.io_service_time"])?,
        wait_time: list(&["bfq.io_wait_time"])?,
        merged: list(&["bfq.io_merged"])?,
        time: list(&["bfq.time"])?,
        sectors: list(&["bfq.sectors"])?,
    })
}

/// Lines of `8:0 Read 4096`, of `8:0 12` where there is nothing to tell apart, and a last one of `Total 4096`.
fn entries(text: &str) -> Vec<IoEntry> {
    let entry = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let (op, value) = rest.split_once(' ').unwrap_or(("", rest));
        Some(IoEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: value.trim().parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

fn hugetlb(cgroup: &Cgroup) -> Result<BTreeMap<String, Hugetlb>> {
    let one = |size: String| {
        let read = |what: &str| Ok(number(&text(cgroup, &format!("hugetlb.{size}.{what}"))?));
        let counts = Hugetlb {
            usage: read("usage_in_bytes")?,
            peak: read("max_usage_in_bytes")?,
            failures: read("failcnt")?,
        };
        Ok((size, counts))
    };
    let directory = cgroup.tree.file(&cgroup.path, "hugetlb.x").ok();
    let directory = directory.and_then(|file| file.parent().map(ToOwned::to_owned));
    page_sizes(directory, ".usage_in_bytes").into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_block_devices() {
        let got = entries("8:0 Read 4096\n8:0 Write 0\n8:16 12\nTotal 4096\n");
        let got: Vec<_> = got.iter().map(|entry| (entry.minor, entry.op.as_str(), entry.value)).collect();
        assert_eq!(got, [(0, "Read", 4096), (0, "Write", 0), (16, "", 12)]);
    }
}
