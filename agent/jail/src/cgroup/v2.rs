//! From OCI resources to the values of cgroup version 2 files. Values in, values out.
//!
//! The wire cannot tell "0" from "not said", so 0 means not said wherever a limit of 0 makes no sense; -1 means no limit,
//! also when an earlier limit is being lifted.

use crate::oci::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::Result;
use super::settings::{Now, Setting, Settings, list, page_size, refused, word};

/// The files to write, in this order.
pub(super) fn settings(resources: &LinuxResources, now: Now<'_>) -> Result<Vec<Setting>> {
    let mut out = Settings::default();
    if let Some(cpu) = resources.cpu() {
        set_cpu(&mut out, cpu, now)?;
    }
    if let Some(memory) = resources.memory() {
        set_memory(&mut out, memory, now)?;
    }
    if let Some(limit) = resources.pids().as_ref().map(|pids| pids.limit()).filter(|&limit| limit != 0) {
        out.set("pids.max", or_max(limit));
    }
    if let Some(block) = resources.block_io() {
        set_io(&mut out, block, now)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = page_size(limit)?;
        out.set(&format!("hugetlb.{size}.max"), or_max(limit.limit()));
        // Reservations too, or a mapping that was never touched could take more than the limit. Linux 5.7.
        out.set_if_there(&format!("hugetlb.{size}.rsvd.max"), or_max(limit.limit()));
    }
    set_rdma(&mut out, resources)?;
    set_unified(&mut out, resources)?;
    Ok(out.0)
}

/// What version 2 has no file for, by the specification's names.
pub(super) fn ignored(resources: &LinuxResources) -> Vec<&'static str> {
    let cpu = resources.cpu().as_ref();
    let memory = resources.memory().as_ref();
    let network = resources.network().as_ref();
    let block = resources.block_io().as_ref();
    let nonzero = |value: Option<i64>| value.is_some_and(|value| value != 0);
    let parts = [
        ("cpu.realtimeRuntime", cpu.is_some_and(|cpu| nonzero(cpu.realtime_runtime()))),
        ("cpu.realtimePeriod", cpu.is_some_and(|cpu| cpu.realtime_period().unwrap_or(0) != 0)),
        ("memory.kernel", memory.is_some_and(|memory| nonzero(kernel_limit(memory)))),
        ("memory.kernelTCP", memory.is_some_and(|memory| nonzero(memory.kernel_tcp()))),
        ("memory.swappiness", memory.is_some_and(|memory| memory.swappiness().is_some())),
        ("memory.disableOOMKiller", memory.is_some_and(|memory| memory.disable_oom_killer() == Some(true))),
        ("network.classID", network.is_some_and(|network| network.class_id().unwrap_or(0) != 0)),
        ("network.priorities", network.is_some_and(|network| network.priorities().is_some())),
        ("blockIO.leafWeight", block.is_some_and(|block| block.leaf_weight().unwrap_or(0) != 0)),
    ];
    parts.into_iter().filter(|(_, asked)| *asked).map(|(part, _)| part).collect()
}

/// The specification calls this field deprecated, and so does the type. It is looked at only to say that it is ignored.
#[allow(deprecated)]
fn kernel_limit(memory: &LinuxMemory) -> Option<i64> {
    memory.kernel()
}

fn set_cpu(out: &mut Settings, cpu: &LinuxCpu, now: Now<'_>) -> Result<()> {
    if let Some(idle) = cpu.idle() {
        out.set("cpu.idle", idle);
    }
    // An idle group has no weight, and the kernel refuses to give it one.
    let idle = cpu.idle().unwrap_or_else(|| number(now("cpu.idle")).map_or(0, |idle| idle as i64));
    if let Some(shares) = cpu.shares().filter(|&shares| shares > 0 && idle == 0) {
        out.set("cpu.weight", weight_of(shares));
    }
    let quota = cpu.quota().filter(|&quota| quota != 0);
    let period = cpu.period().filter(|&period| period > 0);
    let bandwidth = match (quota, period) {
        (None, None) => None,
        // The kernel keeps the period if none is written; the quota is ours to keep.
        (Some(quota), None) => Some(or_max(quota)),
        (Some(quota), Some(period)) => Some(format!("{} {period}", or_max(quota))),
        (None, Some(period)) => {
            let now = now("cpu.max").unwrap_or_default();
            Some(format!(
                "{} {period}",
                now.split(' ').next().filter(|word| !word.is_empty()).unwrap_or("max")
            ))
        }
    };
    match (cpu.burst(), bandwidth) {
        (None, None) => {}
        (None, Some(bandwidth)) => out.set("cpu.max", bandwidth),
        (Some(burst), bandwidth) => {
            // A burst above the quota is refused, whichever of the two is written first: so away with the old one.
            if let Some(bandwidth) = bandwidth {
                out.set("cpu.max.burst", 0);
                out.set("cpu.max", bandwidth);
            }
            out.set("cpu.max.burst", burst);
        }
    }
    for (file, text) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
            out.set(file, list("list of processors or memory nodes", text)?);
        }
    }
    Ok(())
}

fn set_memory(out: &mut Settings, memory: &LinuxMemory, now: Now<'_>) -> Result<()> {
    let limit = memory.limit().filter(|&limit| limit != 0);
    let swap = memory.swap().filter(|&swap| swap != 0);
    if let Some(limit) = limit.filter(|&limit| limit > 0 && memory.check_before_update() == Some(true))
        && let Some(usage) = number(now("memory.current")).filter(|&usage| usage > limit as u64)
    {
        return refused("memory limit below what is in use", format!("{limit} < {usage}"));
    }
    // Swap first: where both go down, what has to leave memory may still use what swap is left to it.
    if let Some(value) = swap_max(limit, swap, || number(now("memory.max")))? {
        out.set_if_there("memory.swap.max", value);
    }
    if let Some(limit) = limit {
        out.set("memory.max", or_max(limit));
    }
    if let Some(reservation) = memory.reservation().filter(|&reservation| reservation != 0) {
        out.set("memory.low", or_max(reservation));
    }
    Ok(())
}

/// Version 1 counted memory and swap together, version 2 counts swap alone. `held` is the limit that holds now.
fn swap_max(
    limit: Option<i64>,
    swap: Option<i64>,
    held: impl FnOnce() -> Option<u64>,
) -> Result<Option<String>> {
    let total = match (limit, swap) {
        (Some(..0), None) | (_, Some(..0)) => return Ok(Some("max".to_owned())),
        (_, None) => return Ok(None),
        (_, Some(swap)) => swap as u64,
    };
    let limit = match limit {
        Some(limit) => u64::try_from(limit).ok(),
        None => held(),
    };
    match limit {
        None => refused("memory and swap without a limit on memory", total),
        Some(limit) if total >= limit => Ok(Some((total - limit).to_string())),
        Some(limit) => refused("memory and swap below memory", format!("{total} < {limit}")),
    }
}

fn set_io(out: &mut Settings, block: &LinuxBlockIo, now: Now<'_>) -> Result<()> {
    // The scheduler that takes weights, or else the controller that models the cost of each request.
    let bfq = now("io.bfq.weight").is_some();
    let (file, scale): (_, fn(u16) -> u32) =
        if bfq { ("io.bfq.weight", u32::from) } else { ("io.weight", io_weight_of) };
    let checked = |weight: u16| match weight {
        10..=1000 => Ok(scale(weight)),
        other => refused("block I/O weight, which is 10 to 1000", other),
    };
    if let Some(weight) = block.weight().filter(|&weight| weight != 0) {
        out.set(file, checked(weight)?);
    }
    for device in block.weight_device().iter().flatten() {
        if let Some(weight) = device.weight().filter(|&weight| weight != 0) {
            out.set(file, format!("{}:{} {}", device.major(), device.minor(), checked(weight)?));
        }
    }
    let throttles = [
        ("rbps", block.throttle_read_bps_device()),
        ("wbps", block.throttle_write_bps_device()),
        ("riops", block.throttle_read_iops_device()),
        ("wiops", block.throttle_write_iops_device()),
    ];
    for (key, devices) in throttles {
        for device in devices.iter().flatten() {
            out.set("io.max", throttle(key, device));
        }
    }
    Ok(())
}

/// A rate of 0 would be a device that never answers: it lifts the limit, as it does with version 1.
fn throttle(key: &str, device: &LinuxThrottleDevice) -> String {
    let rate = match device.rate() {
        0 => "max".to_owned(),
        rate => rate.to_string(),
    };
    format!("{}:{} {key}={rate}", device.major(), device.minor())
}

pub(super) fn set_rdma(out: &mut Settings, resources: &LinuxResources) -> Result<()> {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by_key(|(name, _)| *name);
    for (name, limit) in devices {
        let mut line = word("rdma device", name)?.to_owned();
        for (key, value) in [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())] {
            if let Some(value) = value {
                line += &format!(" {key}={value}");
            }
        }
        out.set("rdma.max", line);
    }
    Ok(())
}

/// Files by their own names: those of a controller, in this directory. `cgroup.procs` and its like move processes.
fn set_unified(out: &mut Settings, resources: &LinuxResources) -> Result<()> {
    const CONTROLLERS: [&str; 8] = ["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"];
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        let known = file.split_once('.').is_some_and(|(controller, name)| {
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte));
            CONTROLLERS.contains(&controller) && !name.is_empty() && plain && !name.contains("..")
        });
        if !known {
            return refused("unified resource", format!("{file:?}"));
        }
        out.set(file, value);
    }
    Ok(())
}

pub(super) fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// A file with one number. `None` where it says `max`, or is not there.
pub(super) fn number(text: Option<String>) -> Option<u64> {
    text?.trim().parse().ok()
}

/// 2..=262144 shares to a weight of 1..=10000, along a straight line as every runtime does.
fn weight_of(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + ((shares - 2) * 9_999) / 262_142
}

/// 10..=1000 of version 1 to 1..=10000, likewise.
fn io_weight_of(weight: u16) -> u32 {
    1 + (u32::from(weight.clamp(10, 1000)) - 10) * 9_999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_written(json: &str, now: &[(&str, &str)]) -> Result<Vec<(String, String)>> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let now =
            |file: &str| now.iter().find(|(name, _)| *name == file).map(|(_, value)| (*value).to_owned());
        let settings = settings(&resources, &now)?;
        Ok(settings.into_iter().map(|setting| (setting.file, setting.value)).collect())
    }

    fn written(json: &str, now: &[(&str, &str)]) -> Vec<(String, String)> {
        try_written(json, now).unwrap()
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn nothing_said_is_nothing_written() {
        assert!(written("{}", &[]).is_empty());
        let zeroes = r#"{"memory":{"limit":0,"swap":0,"reservation":0},"cpu":{"shares":0,"quota":0,"period":0,"cpus":""},"pids":{"limit":0},"blockIO":{"weight":0}}"#;
        assert!(written(zeroes, &[]).is_empty());
    }

    #[test]
    fn memory() {
        let got = written(r#"{"memory":{"limit":1000,"swap":1500,"reservation":200}}"#, &[]);
        assert_eq!(got, pairs(&[("memory.swap.max", "500"), ("memory.max", "1000"), ("memory.low", "200")]));
        let unlimited = pairs(&[("memory.swap.max", "max"), ("memory.max", "max")]);
        assert_eq!(written(r#"{"memory":{"limit":-1,"swap":-1}}"#, &[]), unlimited);
        assert_eq!(
            written(r#"{"memory":{"limit":-1}}"#, &[]),
            unlimited,
            "no limit on memory alone would swap"
        );
        assert_eq!(written(r#"{"memory":{"swap":-1}}"#, &[]), pairs(&[("memory.swap.max", "max")]));
        assert!(try_written(r#"{"memory":{"limit":2,"swap":1}}"#, &[]).is_err());
    }

    #[test]
    fn swap_alone_is_counted_from_the_limit_that_holds() {
        let swap = r#"{"memory":{"swap":1500}}"#;
        assert_eq!(written(swap, &[("memory.max", "1000")]), pairs(&[("memory.swap.max", "500")]));
        let error = try_written(swap, &[("memory.max", "max")]).unwrap_err().to_string();
        assert!(error.contains("without a limit on memory"), "{error}");
    }

    #[test]
    fn a_limit_below_the_usage_is_refused_where_that_is_asked_for() {
        let asked = r#"{"memory":{"limit":1000,"checkBeforeUpdate":true}}"#;
        assert!(try_written(asked, &[("memory.current", "1001")]).is_err());
        assert!(try_written(asked, &[("memory.current", "1000")]).is_ok());
        assert!(try_written(r#"{"memory":{"limit":1000}}"#, &[("memory.current", "1001")]).is_ok());
    }

    #[test]
    fn cpu() {
        assert_eq!([2, 1024, 262_144].map(weight_of), [1, 39, 10_000]);
        let got = written(r#"{"cpu":{"shares":1024,"quota":50000,"period":20000,"cpus":"0-1"}}"#, &[]);
        assert_eq!(got, pairs(&[("cpu.weight", "39"), ("cpu.max", "50000 20000"), ("cpuset.cpus", "0-1")]));
        assert_eq!(written(r#"{"cpu":{"quota":-1}}"#, &[]), pairs(&[("cpu.max", "max")]), "the period stays");
        let period = r#"{"cpu":{"period":50000}}"#;
        assert_eq!(written(period, &[("cpu.max", "max 100000")]), pairs(&[("cpu.max", "max 50000")]));
        assert_eq!(written(period, &[("cpu.max", "7000 100000")]), pairs(&[("cpu.max", "7000 50000")]));
        assert!(try_written(r#"{"cpu":{"cpus":"0\n1"}}"#, &[]).is_err());
    }

    #[test]
    fn a_burst_is_never_above_the_quota_on_the_way() {
        let got = written(r#"{"cpu":{"quota":5000,"burst":4000}}"#, &[]);
        assert_eq!(got, pairs(&[("cpu.max.burst", "0"), ("cpu.max", "5000"), ("cpu.max.burst", "4000")]));
        assert_eq!(written(r#"{"cpu":{"burst":9}}"#, &[]), pairs(&[("cpu.max.burst", "9")]));
    }

    #[test]
    fn an_idle_group_gets_no_weight() {
        assert_eq!(written(r#"{"cpu":{"idle":1,"shares":1024}}"#, &[]), pairs(&[("cpu.idle", "1")]));
        assert_eq!(written(r#"{"cpu":{"shares":1024}}"#, &[("cpu.idle", "1")]), []);
        let back = written(r#"{"cpu":{"idle":0,"shares":1024}}"#, &[("cpu.idle", "1")]);
        assert_eq!(back, pairs(&[("cpu.idle", "0"), ("cpu.weight", "39")]));
    }

    #[test]
    fn pids_and_unified() {
        assert_eq!(written(r#"{"pids":{"limit":64}}"#, &[]), pairs(&[("pids.max", "64")]));
        assert_eq!(written(r#"{"pids":{"limit":-1}}"#, &[]), pairs(&[("pids.max", "max")]));
        assert_eq!(written(r#"{"unified":{"memory.high":"5"}}"#, &[]), pairs(&[("memory.high", "5")]));
        let bad = [
            "../x.y",
            "cgroup.procs",
            "x",
            "memory.",
            "memory./../cgroup.procs",
            "memory.a..b",
            ".max",
            "foo.max",
        ];
        for file in bad {
            assert!(try_written(&format!(r#"{{"unified":{{"{file}":"1"}}}}"#), &[]).is_err(), "{file}");
        }
    }

    #[test]
    fn block_io() {
        assert_eq!([10, 500, 1000].map(io_weight_of), [1, 4950, 10_000]);
        let weight = r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":100}]}}"#;
        let bfq = written(weight, &[("io.bfq.weight", "default 100")]);
        assert_eq!(bfq, pairs(&[("io.bfq.weight", "500"), ("io.bfq.weight", "8:0 100")]));
        assert_eq!(written(weight, &[]), pairs(&[("io.weight", "4950"), ("io.weight", "8:0 910")]));
        assert!(try_written(r#"{"blockIO":{"weight":9}}"#, &[]).is_err());
        let throttle = r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":1,"rate":1048576}],
                                      "throttleWriteIOPSDevice":[{"major":8,"minor":1,"rate":0}]}}"#;
        assert_eq!(
            written(throttle, &[]),
            pairs(&[("io.max", "8:1 rbps=1048576"), ("io.max", "8:1 wiops=max")])
        );
    }

    #[test]
    fn huge_pages_and_rdma() {
        let got = written(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#, &[]);
        assert_eq!(got, pairs(&[("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")]));
        let got = written(r#"{"hugepageLimits":[{"pageSize":"1GB","limit":0}]}"#, &[]);
        assert_eq!(got[0], ("hugetlb.1GB.max".to_owned(), "0".to_owned()), "none at all is a limit");
        let got = written(r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000}}}"#, &[]);
        assert_eq!(got, pairs(&[("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000")]));
        assert!(try_written(r#"{"rdma":{"a b":{"hcaHandles":3}}}"#, &[]).is_err());
    }

    #[test]
    fn what_version_2_has_no_file_for_is_named() {
        let json = r#"{"cpu":{"realtimeRuntime":5},"memory":{"swappiness":3,"disableOOMKiller":true},"network":{"classID":1}}"#;
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let wanted =
            ["cpu.realtimeRuntime", "memory.swappiness", "memory.disableOOMKiller", "network.classID"];
        assert_eq!(ignored(&resources), wanted);
        assert!(ignored(&LinuxResources::default()).is_empty());
    }
}
