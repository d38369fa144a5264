//! From OCI resources to the values of cgroup version 1 files. Values in, values out; what 0 and -1 mean is said in
//! [`super::v2`].

use crate::oci::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources};

use super::Result;
use super::settings::{Now, Setting, Settings, list, page_size, refused, word};
use super::v2::{number, or_max, set_rdma};

/// Above this a limit of memory is none: the kernel says the largest multiple of a page.
const UNLIMITED: u64 = i64::MAX as u64 - 0xf_ffff;

/// The files to write, in this order.
pub(super) fn settings(resources: &LinuxResources, now: Now<'_>) -> Result<Vec<Setting>> {
    let mut out = Settings::default();
    if let Some(cpu) = resources.cpu() {
        set_cpu(&mut out, cpu)?;
    }
    if let Some(memory) = resources.memory() {
        set_memory(&mut out, memory, now)?;
    }
    if let Some(limit) = resources.pids().as_ref().map(|pids| pids.limit()).filter(|&limit| limit != 0) {
        out.set("pids.max", or_max(limit));
    }
    if let Some(block) = resources.block_io() {
        set_block(&mut out, block, now)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = page_size(limit)?;
        out.set(&format!("hugetlb.{size}.limit_in_bytes"), limit.limit().max(-1));
        out.set_if_there(&format!("hugetlb.{size}.rsvd.limit_in_bytes"), limit.limit().max(-1));
    }
    set_rdma(&mut out, resources)?;
    if let Some(network) = resources.network() {
        set_network(&mut out, network)?;
    }
    match resources.unified().iter().flatten().next() {
        None => Ok(out.0),
        Some((file, _)) => refused("unified resource with cgroup version 1", format!("{file:?}")),
    }
}

fn set_cpu(out: &mut Settings, cpu: &LinuxCpu) -> Result<()> {
    if let Some(idle) = cpu.idle() {
        out.set("cpu.idle", idle);
    }
    if let Some(shares) = cpu.shares().filter(|&shares| shares > 0 && cpu.idle().unwrap_or(0) == 0) {
        out.set("cpu.shares", shares);
    }
    let quota = cpu.quota().filter(|&quota| quota != 0);
    if cpu.burst().is_some() && quota.is_some() {
        out.set("cpu.cfs_burst_us", 0);
    }
    // No quota first, if that is what is wanted: then any period goes with it.
    if let Some(quota) = quota.filter(|&quota| quota < 0) {
        out.set("cpu.cfs_quota_us", quota.max(-1));
    }
    if let Some(period) = cpu.period().filter(|&period| period > 0) {
        out.set("cpu.cfs_period_us", period);
    }
    if let Some(quota) = quota.filter(|&quota| quota > 0) {
        out.set("cpu.cfs_quota_us", quota);
    }
    if let Some(burst) = cpu.burst() {
        out.set("cpu.cfs_burst_us", burst);
    }
    if let Some(period) = cpu.realtime_period().filter(|&period| period > 0) {
        out.set("cpu.rt_period_us", period);
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|&runtime| runtime != 0) {
        out.set("cpu.rt_runtime_us", runtime.max(-1));
    }
    for (file, text) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
            out.set(file, list("list of processors or memory nodes", text)?);
        }
    }
    Ok(())
}

fn set_memory(out: &mut Settings, memory: &LinuxMemory, now: Now<'_>) -> Result<()> {
    const LIMIT: &str = "memory.limit_in_bytes";
    const TOTAL: &str = "memory.memsw.limit_in_bytes";
    let held = |file: &str| number(now(file)).filter(|&bytes| bytes < UNLIMITED);
    let limit = memory.limit().filter(|&limit| limit != 0).map(|limit| limit.max(-1));
    if let Some(limit) = limit.filter(|&limit| limit > 0 && memory.check_before_update() == Some(true))
        && let Some(usage) = number(now("memory.usage_in_bytes")).filter(|&usage| usage > limit as u64)
    {
        return refused("memory limit below what is in use", format!("{limit} < {usage}"));
    }
    let total = match (memory.swap().filter(|&swap| swap != 0), limit) {
        (Some(total), _) => Some(total.max(-1)),
        (None, Some(-1)) => Some(-1),
        // What may be swapped stays what it was, as with version 2, where it is counted by itself.
        (None, Some(limit)) => match (held(LIMIT), held(TOTAL)) {
            (Some(old), Some(total)) => Some(limit.saturating_add(total.saturating_sub(old) as i64)),
            _ => None,
        },
        (None, None) => None,
    };
    if let (Some(limit @ 0..), Some(total @ 0..)) = (limit, total)
        && total < limit
    {
        return refused("memory and swap below memory", format!("{total} < {limit}"));
    }
    // The kernel holds limit <= total at every moment: upwards the total goes first, downwards the limit.
    let upwards = total.is_some_and(|total| total < 0 || held(TOTAL).is_some_and(|held| held < total as u64));
    let mut writes = [limit.map(|value| (LIMIT, value)), total.map(|value| (TOTAL, value))];
    if upwards {
        writes.reverse();
    }
    for (file, value) in writes.into_iter().flatten() {
        if file == TOTAL { out.set_if_there(file, value) } else { out.set(file, value) }
    }
    if let Some(reservation) = memory.reservation().filter(|&reservation| reservation != 0) {
        out.set("memory.soft_limit_in_bytes", reservation.max(-1));
    }
    if let Some(bytes) = memory.kernel_tcp().filter(|&bytes| bytes != 0) {
        out.set("memory.kmem.tcp.limit_in_bytes", bytes.max(-1));
    }
    match memory.swappiness() {
        None => {}
        Some(percent @ 0..=100) => out.set("memory.swappiness", percent),
        Some(percent) => return refused("swappiness, which is 0 to 100", percent),
    }
    if let Some(disabled) = memory.disable_oom_killer() {
        out.set("memory.oom_control", u8::from(disabled));
    }
    Ok(())
}

fn set_block(out: &mut Settings, block: &LinuxBlockIo, now: Now<'_>) -> Result<()> {
    let file = if now("blkio.bfq.weight").is_some() { "blkio.bfq.weight" } else { "blkio.weight" };
    let device_file = format!("{file}_device");
    let checked = |weight: u16| match weight {
        10..=1000 => Ok(weight),
        other => refused("block I/O weight, which is 10 to 1000", other),
    };
    if let Some(weight) = block.weight().filter(|&weight| weight != 0) {
        out.set(file, checked(weight)?);
    }
    for device in block.weight_device().iter().flatten() {
        if let Some(weight) = device.weight().filter(|&weight| weight != 0) {
            out.set(&device_file, format!("{}:{} {}", device.major(), device.minor(), checked(weight)?));
        }
    }
    let throttles = [
        ("read_bps", block.throttle_read_bps_device()),
        ("write_bps", block.throttle_write_bps_device()),
        ("read_iops", block.throttle_read_iops_device()),
        ("write_iops", block.throttle_write_iops_device()),
    ];
    for (key, devices) in throttles {
        for device in devices.iter().flatten() {
            let line = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            out.set(&format!("blkio.throttle.{key}_device"), line);
        }
    }
    Ok(())
}

fn set_network(out: &mut Settings, network: &LinuxNetwork) -> Result<()> {
    if let Some(class) = network.class_id().filter(|&class| class != 0) {
        out.set("net_cls.classid", class);
    }
    for priority in network.priorities().iter().flatten() {
        let name = word("network interface", priority.name())?;
        out.set("net_prio.ifpriomap", format!("{name} {}", priority.priority()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: &str, now: &[(&str, &str)]) -> Vec<String> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let now =
            |file: &str| now.iter().find(|(name, _)| *name == file).map(|(_, value)| (*value).to_owned());
        let settings = settings(&resources, &now).unwrap();
        settings.into_iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
    }

    const NONE: &str = "9223372036854771712";

    fn memory(limit: &'static str, total: &'static str) -> [(&'static str, &'static str); 2] {
        [("memory.limit_in_bytes", limit), ("memory.memsw.limit_in_bytes", total)]
    }

    #[test]
    fn the_total_goes_first_upwards_and_last_downwards() {
        let both = r#"{"memory":{"limit":1000,"swap":1500}}"#;
        let (limit, total) = ("memory.limit_in_bytes=1000", "memory.memsw.limit_in_bytes=1500");
        assert_eq!(written(both, &memory(NONE, NONE)), [limit, total], "down from no limit");
        assert_eq!(written(both, &memory("2000", "3000")), [limit, total]);
        assert_eq!(written(both, &memory("500", "600")), [total, limit]);
        let none = r#"{"memory":{"limit":-1,"swap":-1}}"#;
        let (limit, total) = ("memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1");
        assert_eq!(written(none, &memory("500", "600")), [total, limit]);
        assert_eq!(written(r#"{"memory":{"limit":-1}}"#, &memory("500", "600")), [total, limit]);
    }

    #[test]
    fn a_limit_alone_leaves_the_swap_as_it_is() {
        let alone = r#"{"memory":{"limit":1000}}"#;
        let got = written(alone, &memory("500", "700"));
        assert_eq!(got, ["memory.memsw.limit_in_bytes=1200", "memory.limit_in_bytes=1000"]);
        assert_eq!(written(alone, &memory("500", NONE)), ["memory.limit_in_bytes=1000"]);
        assert_eq!(written(alone, &memory(NONE, NONE)), ["memory.limit_in_bytes=1000"]);
        assert_eq!(written(alone, &[]), ["memory.limit_in_bytes=1000"], "a kernel without swap accounting");
    }

    #[test]
    fn the_rest_of_memory() {
        let json = r#"{"memory":{"reservation":5,"swappiness":30,"disableOOMKiller":true,"kernelTCP":7}}"#;
        let wanted = [
            "memory.soft_limit_in_bytes=5",
            "memory.kmem.tcp.limit_in_bytes=7",
            "memory.swappiness=30",
            "memory.oom_control=1",
        ];
        assert_eq!(written(json, &[]), wanted);
        let bad: LinuxResources = serde_json::from_str(r#"{"memory":{"swappiness":101}}"#).unwrap();
        assert!(settings(&bad, &|_| None).is_err());
    }

    #[test]
    fn cpu() {
        let json = r#"{"cpu":{"shares":512,"quota":5000,"period":20000,"burst":100,"realtimeRuntime":9,"cpus":"0"}}"#;
        let wanted = [
            "cpu.shares=512",
            "cpu.cfs_burst_us=0",
            "cpu.cfs_period_us=20000",
            "cpu.cfs_quota_us=5000",
            "cpu.cfs_burst_us=100",
            "cpu.rt_runtime_us=9",
            "cpuset.cpus=0",
        ];
        assert_eq!(written(json, &[]), wanted);
        let lifted = written(r#"{"cpu":{"quota":-1,"period":20000}}"#, &[]);
        assert_eq!(lifted, ["cpu.cfs_quota_us=-1", "cpu.cfs_period_us=20000"]);
    }

    #[test]
    fn block_io_network_and_huge_pages() {
        let json = r#"{"blockIO":{"weight":20,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":7}]},
                       "network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]},
                       "hugepageLimits":[{"pageSize":"2MB","limit":0}],"pids":{"limit":-1}}"#;
        let wanted = [
            "pids.max=max",
            "blkio.bfq.weight=20",
            "blkio.throttle.read_bps_device=8:0 7",
            "hugetlb.2MB.limit_in_bytes=0",
            "hugetlb.2MB.rsvd.limit_in_bytes=0",
            "net_cls.classid=1048577",
            "net_prio.ifpriomap=eth0 5",
        ];
        assert_eq!(written(json, &[("blkio.bfq.weight", "100")]), wanted);
        let unified: LinuxResources = serde_json::from_str(r#"{"unified":{"memory.high":"1"}}"#).unwrap();
        assert!(settings(&unified, &|_| None).is_err());
    }
}
