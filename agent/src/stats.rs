//! A cgroup's figures in the shape peers read.

use std::collections::BTreeMap;

use agent_api::agent::{
    BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, CpuUsage, MemoryData, MemoryStats, PidsStats,
    StatsContainerResponse, ThrottlingData,
};
use jail::cgroup::{Io, Stats};

/// The answer to `StatsContainer`. Version 2 of cgroups has no per-processor times, which stay empty.
pub(crate) fn to_wire(stats: Stats) -> StatsContainerResponse {
    let cpu = CpuStats {
        cpu_usage: Some(CpuUsage {
            total_usage: stats.cpu.usage,
            usage_in_kernelmode: stats.cpu.system,
            usage_in_usermode: stats.cpu.user,
            ..Default::default()
        })
        .into(),
        throttling_data: Some(ThrottlingData {
            periods: stats.cpu.periods,
            throttled_periods: stats.cpu.throttled_periods,
            throttled_time: stats.cpu.throttled_time,
            ..Default::default()
        })
        .into(),
        ..Default::default()
    };
    let memory = MemoryStats {
        cache: stats.memory.stat.get("file").copied().unwrap_or_default(),
        usage: Some(MemoryData {
            usage: stats.memory.usage,
            max_usage: stats.memory.peak,
            failcnt: stats.memory.max_events,
            limit: stats.memory.limit,
            ..Default::default()
        })
        .into(),
        swap_usage: Some(MemoryData {
            usage: stats.memory.swap_usage,
            max_usage: stats.memory.swap_peak,
            limit: stats.memory.swap_limit,
            ..Default::default()
        })
        .into(),
        use_hierarchy: true,
        stats: stats.memory.stat.into_iter().collect(),
        ..Default::default()
    };
    let pids = PidsStats { current: stats.pids.current, limit: stats.pids.limit, ..Default::default() };
    let blkio = BlkioStats {
        io_service_bytes_recursive: stats.io.iter().flat_map(io_entries).collect(),
        ..Default::default()
    };
    let cgroup = CgroupStats {
        cpu_stats: Some(cpu).into(),
        memory_stats: Some(memory).into(),
        pids_stats: Some(pids).into(),
        blkio_stats: Some(blkio).into(),
        ..Default::default()
    };
    StatsContainerResponse { cgroup_stats: Some(cgroup).into(), ..Default::default() }
}

/// Peers expect the operations by these names, all in the one list.
fn io_entries(device: &Io) -> impl Iterator<Item = BlkioStatsEntry> + use<> {
    const OPERATIONS: [(&str, &str); 6] = [
        ("rbytes", "read"),
        ("wbytes", "write"),
        ("rios", "rios"),
        ("wios", "wios"),
        ("dbytes", "dbytes"),
        ("dios", "dios"),
    ];
    let (major, minor) = (device.major, device.minor);
    let counters: BTreeMap<String, u64> = device.counters.clone();
    OPERATIONS.into_iter().map(move |(counter, operation)| BlkioStatsEntry {
        major,
        minor,
        op: operation.to_string(),
        value: counters.get(counter).copied().unwrap_or_default(),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_lands_where_peers_look() {
        let mut stats = Stats::default();
        stats.cpu.throttled_time = 7_000;
        stats.memory.limit = 64 << 20;
        stats.memory.stat = BTreeMap::from([("file".to_string(), 4096), ("anon".to_string(), 8192)]);
        stats.pids.limit = 10;
        stats.io = vec![Io { major: 254, minor: 0, counters: BTreeMap::from([("wbytes".to_string(), 512)]) }];
        let wire = to_wire(stats).cgroup_stats.unwrap();
        assert_eq!(wire.cpu_stats.throttling_data.throttled_time, 7_000);
        assert_eq!((wire.memory_stats.usage.limit, wire.memory_stats.cache), (64 << 20, 4096));
        assert_eq!(wire.memory_stats.stats["anon"], 8192);
        assert_eq!(wire.pids_stats.limit, 10);
        let written =
            wire.blkio_stats.io_service_bytes_recursive.iter().find(|entry| entry.op == "write").unwrap();
        assert_eq!((written.major, written.value), (254, 512));
    }
}
