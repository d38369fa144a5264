//! A container's figures in the shape peers read: its cgroup's, and those of the guest's network interfaces, which are
//! the pod's.

use agent_api::agent::{
    BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, CpuUsage, HugetlbStats, MemoryData, MemoryStats,
    NetworkStats, PidsStats, StatsContainerResponse, ThrottlingData,
};
use jail::cgroup::{Cpu, Io, IoEntry, Memory, Stats, Usage};

/// The guest's interfaces, all but the loopback: `/proc/net/dev` (proc_pid_net(5)).
pub(crate) fn interfaces() -> Vec<NetworkStats> {
    // Without the file there is no network to tell of.
    interfaces_in(&std::fs::read_to_string("/proc/net/dev").unwrap_or_default())
}

/// The answer to `StatsContainer`.
pub(crate) fn to_wire(stats: Stats, network_stats: Vec<NetworkStats>) -> StatsContainerResponse {
    let hugetlb = stats.hugetlb.into_iter().map(|(size, pages)| {
        let (usage, max_usage, failcnt) = (pages.usage, pages.peak, pages.failures);
        (size, HugetlbStats { usage, max_usage, failcnt, ..Default::default() })
    });
    let cgroup = CgroupStats {
        cpu_stats: Some(cpu(stats.cpu)).into(),
        memory_stats: Some(memory(stats.memory)).into(),
        pids_stats: Some(PidsStats {
            current: stats.pids.current,
            limit: stats.pids.limit,
            ..Default::default()
        })
        .into(),
        blkio_stats: Some(block(stats.io)).into(),
        hugetlb_stats: hugetlb.collect(),
        ..Default::default()
    };
    StatsContainerResponse { cgroup_stats: Some(cgroup).into(), network_stats, ..Default::default() }
}

fn cpu(cpu: Cpu) -> CpuStats {
    CpuStats {
        cpu_usage: Some(CpuUsage {
            total_usage: cpu.usage,
            percpu_usage: cpu.per_processor,
            usage_in_kernelmode: cpu.system,
            usage_in_usermode: cpu.user,
            ..Default::default()
        })
        .into(),
        throttling_data: Some(ThrottlingData {
            periods: cpu.periods,
            throttled_periods: cpu.throttled_periods,
            throttled_time: cpu.throttled_time,
            ..Default::default()
        })
        .into(),
        ..Default::default()
    }
}

fn memory(memory: Memory) -> MemoryStats {
    let data = |usage: Usage| {
        Some(MemoryData {
            usage: usage.now,
            max_usage: usage.peak,
            failcnt: usage.failures,
            limit: usage.limit,
            ..Default::default()
        })
    };
    // Version 2 and version 1 name it differently.
    let cache = memory.stat.get("file").or_else(|| memory.stat.get("cache")).copied().unwrap_or_default();
    MemoryStats {
        cache,
        usage: data(memory.all).into(),
        swap_usage: data(memory.swap).into(),
        kernel_usage: data(memory.kernel).into(),
        use_hierarchy: memory.hierarchical,
        stats: memory.stat.into_iter().collect(),
        ..Default::default()
    }
}

fn block(io: Io) -> BlkioStats {
    let list = |entries: Vec<IoEntry>| {
        let entry = |entry: IoEntry| BlkioStatsEntry {
            major: entry.major,
            minor: entry.minor,
            op: entry.op,
            value: entry.value,
            ..Default::default()
        };
        entries.into_iter().map(entry).collect()
    };
    BlkioStats {
        io_service_bytes_recursive: list(io.service_bytes),
        io_serviced_recursive: list(io.serviced),
        io_queued_recursive: list(io.queued),
        io_service_time_recursive: list(io.service_time),
        io_wait_time_recursive: list(io.wait_time),
        io_merged_recursive: list(io.merged),
        io_time_recursive: list(io.time),
        sectors_recursive: list(io.sectors),
        ..Default::default()
    }
}

/// Lines of a name and sixteen counters, eight received and eight sent, under two lines of headings.
fn interfaces_in(text: &str) -> Vec<NetworkStats> {
    let interface = |line: &str| {
        let (name, counters) = line.trim_start().split_once(':')?;
        let counters: Vec<u64> = counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let &[
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..,
        ] = counters.as_slice()
        else {
            return None;
        };
        Some(NetworkStats {
            name: name.to_string(),
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..Default::default()
        })
    };
    text.lines().filter_map(interface).filter(|interface| interface.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jail::cgroup::{Hugetlb, Pids};

    use super::*;

    #[test]
    fn every_figure_lands_where_peers_look() {
        let usage = |base: u64| Usage { now: base, peak: base + 1, limit: base + 2, failures: base + 3 };
        let entry = |op: &str, value| IoEntry { major: 254, minor: 0, op: op.to_string(), value };
        let stats = Stats {
            cpu: Cpu { throttled_time: 7_000, per_processor: vec![3, 4], ..Cpu::default() },
            memory: Memory {
                all: usage(10),
                swap: usage(20),
                kernel: usage(30),
                stat: BTreeMap::from([("file".to_string(), 4096), ("anon".to_string(), 8192)]),
                ..Memory::default()
            },
            pids: Pids { current: 1, limit: 10 },
            io: Io {
                service_bytes: vec![entry("read", 1), entry("write", 512)],
                serviced: vec![entry("Total", 9)],
                ..Io::default()
            },
            hugetlb: BTreeMap::from([("2MB".to_string(), Hugetlb { usage: 5, peak: 6, failures: 7 })]),
        };
        let wire = to_wire(stats, Vec::new()).cgroup_stats.unwrap();
        assert_eq!(wire.cpu_stats.throttling_data.throttled_time, 7_000);
        assert_eq!(wire.cpu_stats.cpu_usage.percpu_usage, [3, 4]);
        let memory = wire.memory_stats;
        for (data, base) in [(&memory.usage, 10), (&memory.swap_usage, 20), (&memory.kernel_usage, 30)] {
            let got = [data.usage, data.max_usage, data.limit, data.failcnt];
            assert_eq!(got, [base, base + 1, base + 2, base + 3]);
        }
        assert_eq!((memory.cache, memory.stats["anon"]), (4096, 8192));
        assert_eq!(wire.pids_stats.limit, 10);
        let written = &wire.blkio_stats.io_service_bytes_recursive[1];
        assert_eq!((written.major, written.op.as_str(), written.value), (254, "write", 512));
        assert_eq!(wire.blkio_stats.io_serviced_recursive[0].value, 9);
        let huge = &wire.hugetlb_stats["2MB"];
        assert_eq!((huge.usage, huge.max_usage, huge.failcnt), (5, 6, 7));
    }

    #[test]
    fn the_guests_interfaces() {
        let text = "Inter-|   Receive                            |  Transmit\n \
            face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed\n    \
            lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  \
            eth0:1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0\n";
        let all = interfaces_in(text);
        assert_eq!(all.len(), 1, "{all:?}");
        let eth0 = &all[0];
        assert_eq!((eth0.name.as_str(), eth0.rx_bytes, eth0.rx_packets), ("eth0", 1000, 10));
        assert_eq!((eth0.rx_errors, eth0.rx_dropped), (1, 2));
        assert_eq!((eth0.tx_bytes, eth0.tx_packets, eth0.tx_errors, eth0.tx_dropped), (2000, 20, 3, 4));
        assert!(interfaces_in("").is_empty());
    }
}
