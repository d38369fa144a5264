//! From the files of a cgroup and what is to be in them to the properties that tell systemd of it. Values in, values out.
//!
//! systemd writes these files too: whenever it has a reason to look at a unit anew, from what it holds for the unit's
//! properties. What it was not told of is then back at its default. It knows nothing of huge pages, rdma and the
//! other files without a property here, and leaves them alone.

use super::message::{Property, Value};
use crate::cgroup::settings::{Now, Setting};

/// No limit, as a property.
const NONE: u64 = u64::MAX;

/// A hundredth of a processor, in microseconds of a second.
const PERCENT: u64 = 10_000;

/// The most processors or memory nodes that a list may name: what the kernel can be built for.
const MOST_BITS: usize = 8192;

/// The properties for these files. `now` reads those that say only a part of what a property takes.
pub(super) fn of(settings: &[Setting], now: Now<'_>) -> Vec<Property> {
    let mut out = Properties(Vec::new());
    let mut bandwidth = Bandwidth::default();
    for Setting { file, value, .. } in settings {
        match file.as_str() {
            // What systemd calls MemoryLimit and CPUShares is what version 1 has.
            "memory.max" => out.above_zero("MemoryMax", value),
            "memory.high" => out.above_zero("MemoryHigh", value),
            "memory.limit_in_bytes" => out.above_zero("MemoryLimit", value),
            "memory.low" => out.number("MemoryLow", value),
            "memory.min" => out.number("MemoryMin", value),
            "memory.swap.max" => out.number("MemorySwapMax", value),
            "pids.max" => out.above_zero("TasksMax", value),
            "cpu.weight" => out.above_zero("CPUWeight", value),
            "cpu.shares" => out.above_zero("CPUShares", value),
            "cpu.idle" => out.set("CPUWeight", Value::Number(if value == "0" { 100 } else { 0 })),
            "cpu.max" => bandwidth.both(value, now),
            "cpu.cfs_quota_us" => bandwidth.quota = Some(value.clone()),
            "cpu.cfs_period_us" => bandwidth.period = Some(value.clone()),
            "cpuset.cpus" => out.bits("AllowedCPUs", value),
            "cpuset.mems" => out.bits("AllowedMemoryNodes", value),
            "io.weight" => out.weight(value, "IOWeight", "IODeviceWeight", |weight| weight),
            "io.bfq.weight" => out.weight(value, "IOWeight", "IODeviceWeight", before_bfq),
            "blkio.weight" => out.weight(value, "BlockIOWeight", "BlockIODeviceWeight", |weight| weight),
            "io.max" => out.rates(value),
            "blkio.throttle.read_bps_device" => out.rate("BlockIOReadBandwidth", value),
            "blkio.throttle.write_bps_device" => out.rate("BlockIOWriteBandwidth", value),
            _ => {}
        }
    }
    bandwidth.tell(&mut out, now);
    out.0
}

struct Properties(Vec<Property>);

impl Properties {
    /// The last word on a property counts, but rates of several devices are one value.
    fn set(&mut self, name: &'static str, value: Value) {
        match (self.0.iter_mut().find(|(known, _)| *known == name), value) {
            (None, value) => self.0.push((name, value)),
            (Some((_, Value::Rates(all))), Value::Rates(more)) => all.extend(more),
            (Some((_, held)), value) => *held = value,
        }
    }

    fn number(&mut self, name: &'static str, text: &str) {
        if let Some(number) = number(text) {
            self.set(name, Value::Number(number));
        }
    }

    /// systemd has no value for none at all of these.
    fn above_zero(&mut self, name: &'static str, text: &str) {
        if let Some(number) = number(text).filter(|&number| number > 0) {
            self.set(name, Value::Number(number));
        }
    }

    fn bits(&mut self, name: &'static str, list: &str) {
        if let Some(bits) = bits(list) {
            self.set(name, Value::Bytes(bits));
        }
    }

    /// `100`, or `8:0 100` for one device.
    fn weight(&mut self, text: &str, for_all: &'static str, for_one: &'static str, scale: fn(u64) -> u64) {
        match text.trim_start_matches("default ").split_once(' ') {
            None => {
                if let Some(weight) = number(text.trim_start_matches("default ")) {
                    self.set(for_all, Value::Number(scale(weight)));
                }
            }
            Some((device, weight)) => {
                if let Some(weight) = number(weight) {
                    self.set(for_one, Value::Rates(vec![(node(device), scale(weight))]));
                }
            }
        }
    }

    /// `8:0 rbps=1000 wiops=max`
    fn rates(&mut self, line: &str) {
        let Some((device, rates)) = line.split_once(' ') else { return };
        for (key, rate) in rates.split_whitespace().filter_map(|rate| rate.split_once('=')) {
            let name = match key {
                "rbps" => "IOReadBandwidthMax",
                "wbps" => "IOWriteBandwidthMax",
                "riops" => "IOReadIOPSMax",
                "wiops" => "IOWriteIOPSMax",
                _ => continue,
            };
            self.rate(name, &format!("{device} {rate}"));
        }
    }

    fn rate(&mut self, name: &'static str, line: &str) {
        if let Some((device, rate)) = line.split_once(' ')
            && let Some(rate) = number(rate)
        {
            self.set(name, Value::Rates(vec![(node(device), rate)]));
        }
    }
}

/// How much of each period may be run, of which version 1 has a file for either part.
#[derive(Default)]
struct Bandwidth {
    quota: Option<String>,
    period: Option<String>,
}

impl Bandwidth {
    /// `50000 100000`, or `50000` with the period that holds.
    fn both(&mut self, value: &str, now: Now<'_>) {
        let mut words = value.split_whitespace();
        self.quota = words.next().map(str::to_owned);
        let held = || now("cpu.max").and_then(|held| held.split_whitespace().nth(1).map(str::to_owned));
        self.period = words.next().map(str::to_owned).or_else(held);
    }

    fn tell(self, out: &mut Properties, now: Now<'_>) {
        if self.quota.is_none() && self.period.is_none() {
            return;
        }
        let quota = self.quota.or_else(|| now("cpu.cfs_quota_us"));
        let period = self.period.or_else(|| now("cpu.cfs_period_us"));
        let period = period.and_then(|text| number(&text)).filter(|&period| period > 0).unwrap_or(100_000);
        let per_second = match quota.and_then(|text| number(&text)) {
            None | Some(NONE) => NONE,
            // In whole percents, because that is what systemd keeps over a reload, and rather a little more than was asked
            // for than a little less.
            Some(quota) => {
                let exact = u128::from(quota) * 1_000_000;
                exact.div_ceil(u128::from(period)).next_multiple_of(PERCENT.into()).max(PERCENT.into()) as u64
            }
        };
        out.set("CPUQuotaPerSecUSec", Value::Number(per_second));
        out.set("CPUQuotaPeriodUSec", Value::Number(period));
    }
}

/// What the kernel's files take for a number: `max`, -1, digits, digits with a unit.
fn number(text: &str) -> Option<u64> {
    if ["max", "-1"].contains(&text) {
        return Some(NONE);
    }
    let shift = match text.bytes().last()?.to_ascii_uppercase() {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        b'T' => 40,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A list such as `0-3,7` as bits, the first in the lowest bit of the first byte.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for range in list.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if last >= MOST_BITS {
            return None;
        }
        for bit in first..=last {
            if bits.len() <= bit / 8 {
                bits.resize(bit / 8 + 1, 0);
            }
            bits[bit / 8] |= 1 << (bit % 8);
        }
    }
    Some(bits)
}

/// A weight from which systemd makes this one where the scheduler is bfq: it stretches 100..=10000 to 100..=1000.
fn before_bfq(weight: u64) -> u64 {
    if weight <= 100 { weight } else { 100 + (weight - 100) * 11 }
}

/// systemd takes devices by their nodes.
fn node(device: &str) -> String {
    format!("/dev/block/{device}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_with(files: &[(&str, &str)], now: &[(&str, &str)]) -> Vec<Property> {
        let settings: Vec<_> = files
            .iter()
            .map(|(file, value)| Setting {
                file: (*file).to_owned(),
                value: (*value).to_owned(),
                optional: false,
            })
            .collect();
        of(&settings, &|file| now.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned()))
    }

    fn told(files: &[(&str, &str)]) -> Vec<Property> {
        told_with(files, &[])
    }

    fn numbers(of: &[(&'static str, u64)]) -> Vec<Property> {
        of.iter().map(|&(name, value)| (name, Value::Number(value))).collect()
    }

    #[test]
    fn memory_and_tasks() {
        let files =
            [("memory.swap.max", "max"), ("memory.max", "1000"), ("memory.low", "7"), ("pids.max", "5")];
        let wanted = [("MemorySwapMax", NONE), ("MemoryMax", 1000), ("MemoryLow", 7), ("TasksMax", 5)];
        assert_eq!(told(&files), numbers(&wanted));
        let unified = [("memory.high", "2M"), ("memory.min", "0"), ("memory.max", "0"), ("pids.max", "max")];
        let wanted = [("MemoryHigh", 2 << 20), ("MemoryMin", 0), ("TasksMax", NONE)];
        assert_eq!(told(&unified), numbers(&wanted), "no memory at all cannot be said");
        assert_eq!(told(&[("memory.max", "much"), ("hugetlb.2MB.max", "5"), ("misc.max", "a 5")]), []);
    }

    #[test]
    fn processor_time() {
        let quota = |per_second, period| {
            numbers(&[("CPUQuotaPerSecUSec", per_second), ("CPUQuotaPeriodUSec", period)])
        };
        assert_eq!(told(&[("cpu.max", "50000 20000")]), quota(2_500_000, 20_000));
        assert_eq!(told(&[("cpu.max", "10000 30000")]), quota(340_000, 30_000));
        assert_eq!(told_with(&[("cpu.max", "5000")], &[("cpu.max", "max 50000")]), quota(100_000, 50_000));
        assert_eq!(told(&[("cpu.max", "max")]), quota(NONE, 100_000));
        assert_eq!(told(&[("cpu.weight", "39")]), numbers(&[("CPUWeight", 39)]));
        assert_eq!(told(&[("cpu.idle", "1")]), numbers(&[("CPUWeight", 0)]));
        assert_eq!(told(&[("cpu.idle", "0"), ("cpu.weight", "39")]), numbers(&[("CPUWeight", 39)]));
        let v1 = [("cpu.shares", "512"), ("cpu.cfs_period_us", "20000"), ("cpu.cfs_quota_us", "5000")];
        assert_eq!(told(&v1), [numbers(&[("CPUShares", 512)]), quota(250_000, 20_000)].concat());
        let held = [("cpu.cfs_quota_us", "-1"), ("cpu.cfs_period_us", "100000")];
        assert_eq!(told_with(&[("cpu.cfs_quota_us", "10000")], &held), quota(100_000, 100_000));
        assert_eq!(told_with(&[("cpu.cfs_period_us", "10000")], &held), quota(NONE, 10_000));
    }

    #[test]
    fn lists_are_bits() {
        assert_eq!(bits("0-3,9"), Some(vec![0b1111, 0b10]));
        assert_eq!(bits("7"), Some(vec![0x80]));
        assert_eq!(bits(""), Some(vec![]), "any");
        for bad in ["a", "1-", "0-9999", "5000000000"] {
            assert_eq!(bits(bad), None, "{bad}");
        }
        let files = [("cpuset.cpus", "1"), ("cpuset.mems", "0")];
        let wanted = [("AllowedCPUs", Value::Bytes(vec![2])), ("AllowedMemoryNodes", Value::Bytes(vec![1]))];
        assert_eq!(told(&files), wanted);
    }

    #[test]
    fn block_devices() {
        let rates =
            |of: &[(&str, u64)]| Value::Rates(of.iter().map(|&(node, rate)| (node.into(), rate)).collect());
        let files = [("io.max", "8:0 rbps=7"), ("io.max", "8:16 rbps=max"), ("io.max", "8:0 wiops=9")];
        let wanted = [
            ("IOReadBandwidthMax", rates(&[("/dev/block/8:0", 7), ("/dev/block/8:16", NONE)])),
            ("IOWriteIOPSMax", rates(&[("/dev/block/8:0", 9)])),
        ];
        assert_eq!(told(&files), wanted);
        let weights = [("io.weight", "200"), ("io.weight", "8:0 300")];
        let wanted =
            [("IOWeight", Value::Number(200)), ("IODeviceWeight", rates(&[("/dev/block/8:0", 300)]))];
        assert_eq!(told(&weights), wanted);
        assert_eq!(told(&[("io.bfq.weight", "50")]), numbers(&[("IOWeight", 50)]));
        assert_eq!(told(&[("io.bfq.weight", "1000")]), numbers(&[("IOWeight", 10_000)]));
        assert_eq!(told(&[("blkio.weight", "20")]), numbers(&[("BlockIOWeight", 20)]));
        let v1 = told(&[("blkio.throttle.read_bps_device", "8:0 7")]);
        assert_eq!(v1, [("BlockIOReadBandwidth", rates(&[("/dev/block/8:0", 7)]))]);
    }
}
