//! From OCI resources to the values of cgroup version 2 files. Values in, values out.
//!
//! The wire cannot tell "0" from "not said", so 0 means not said everywhere; -1 means no limit, also when an earlier
//! limit is being lifted. Device rules, block I/O and huge page limits are not part of this yet.

use crate::oci::LinuxResources;

use super::{CgroupError, Result};

/// One file to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) file: String,
    pub(super) value: String,
    /// Whether a kernel may lack the file.
    pub(super) optional: bool,
}

/// The files to write, in this order.
pub(super) fn settings(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut out = Vec::new();
    let mut set =
        |file: &str, value: String| out.push(Setting { file: file.to_owned(), value, optional: false });
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|&shares| shares > 0) {
            set("cpu.weight", weight_of(shares).to_string());
        }
        let quota = cpu.quota().filter(|&quota| quota != 0);
        let period = cpu.period().filter(|&period| period > 0);
        match (quota, period) {
            (None, None) => {}
            (None, Some(period)) => set("cpu.max", format!("max {period}")),
            (Some(quota), period) => {
                let quota = if quota < 0 { "max".to_owned() } else { quota.to_string() };
                set("cpu.max", format!("{quota} {}", period.unwrap_or(100_000)));
            }
        }
        for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
                set(file, list.clone());
            }
        }
    }
    if let Some(memory) = resources.memory() {
        let limit = memory.limit().filter(|&limit| limit != 0);
        let swap = memory.swap().filter(|&swap| swap != 0);
        if let Some(value) = swap_max(limit, swap)? {
            out.push(Setting { file: "memory.swap.max".to_owned(), value, optional: true });
        }
        let mut set =
            |file: &str, value: String| out.push(Setting { file: file.to_owned(), value, optional: false });
        if let Some(limit) = limit {
            set("memory.max", or_max(limit));
        }
        if let Some(reservation) = memory.reservation().filter(|&reservation| reservation != 0) {
            set("memory.low", or_max(reservation));
        }
    }
    if let Some(limit) = resources.pids().as_ref().map(|pids| pids.limit()).filter(|&limit| limit != 0) {
        out.push(Setting { file: "pids.max".to_owned(), value: or_max(limit), optional: false });
    }
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        // A file of this directory, and one that sets a limit: `cgroup.procs` and its like move processes.
        if file.contains('/') || !file.contains('.') || file.starts_with("cgroup.") {
            return Err(CgroupError::Limit { what: "unified resource", value: file.clone() });
        }
        out.push(Setting { file: file.clone(), value: value.clone(), optional: false });
    }
    Ok(out)
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// Version 1 counted memory and swap together, version 2 counts swap alone.
fn swap_max(limit: Option<i64>, swap: Option<i64>) -> Result<Option<String>> {
    match (limit, swap) {
        (_, None) => Ok(None),
        (_, Some(swap)) if swap < 0 => Ok(Some("max".to_owned())),
        // "memory and swap" without a bound on memory bounds nothing that version 2 can express.
        (None | Some(..0), Some(_)) => Ok(None),
        (Some(limit), Some(swap)) if swap >= limit => Ok(Some((swap - limit).to_string())),
        (Some(limit), Some(swap)) => Err(CgroupError::Limit {
            what: "memory and swap below memory",
            value: format!("{swap} < {limit}"),
        }),
    }
}

/// 2..=262144 shares to a weight of 1..=10000, along a straight line as every runtime does.
fn weight_of(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + ((shares - 2) * 9_999) / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: &str) -> Vec<(String, String)> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let settings = settings(&resources).unwrap();
        settings.into_iter().map(|setting| (setting.file, setting.value)).collect()
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn nothing_said_is_nothing_written() {
        assert!(written("{}").is_empty());
        let zeroes = r#"{"memory":{"limit":0,"swap":0,"reservation":0},"cpu":{"shares":0,"quota":0,"period":0,"cpus":""},"pids":{"limit":0}}"#;
        assert!(written(zeroes).is_empty());
    }

    #[test]
    fn memory() {
        let got = written(r#"{"memory":{"limit":1000,"swap":1500,"reservation":200}}"#);
        assert_eq!(got, pairs(&[("memory.swap.max", "500"), ("memory.max", "1000"), ("memory.low", "200")]));
        let got = written(r#"{"memory":{"limit":-1,"swap":-1}}"#);
        assert_eq!(got, pairs(&[("memory.swap.max", "max"), ("memory.max", "max")]));
        let less: LinuxResources = serde_json::from_str(r#"{"memory":{"limit":2,"swap":1}}"#).unwrap();
        assert!(settings(&less).is_err());
    }

    #[test]
    fn cpu() {
        assert_eq!([2, 1024, 262_144].map(weight_of), [1, 39, 10_000]);
        let got = written(r#"{"cpu":{"shares":1024,"quota":50000,"period":20000,"cpus":"0-1"}}"#);
        assert_eq!(got, pairs(&[("cpu.weight", "39"), ("cpu.max", "50000 20000"), ("cpuset.cpus", "0-1")]));
        assert_eq!(written(r#"{"cpu":{"quota":-1}}"#), pairs(&[("cpu.max", "max 100000")]));
        assert_eq!(written(r#"{"cpu":{"period":50000}}"#), pairs(&[("cpu.max", "max 50000")]));
    }

    #[test]
    fn pids_and_unified() {
        assert_eq!(written(r#"{"pids":{"limit":64}}"#), pairs(&[("pids.max", "64")]));
        assert_eq!(written(r#"{"pids":{"limit":-1}}"#), pairs(&[("pids.max", "max")]));
        assert_eq!(written(r#"{"unified":{"memory.high":"5"}}"#), pairs(&[("memory.high", "5")]));
        for file in ["../x.y", "cgroup.procs", "x"] {
            let json = format!(r#"{{"unified":{{"{file}":"1"}}}}"#);
            assert!(settings(&serde_json::from_str(&json).unwrap()).is_err(), "{file}");
        }
    }
}
