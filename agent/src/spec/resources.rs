//! The limits of a container.
//!
//! The wire has no way to say "absent": 0 is that, wherever a limit of 0 would be a container that cannot run. -1 is "no
//! limit", and stays, since it may lift one that holds.

use agent_api::oci as wire;
use jail::oci;

use super::{COMPLETE, Error, given, list, nonzero, try_list, unknown};

/// The limits of a container, or new ones for it.
pub(crate) fn of_wire(resources: &wire::LinuxResources) -> Result<oci::LinuxResources, Error> {
    let mut out = oci::LinuxResources::default();
    out.set_devices(try_list(&resources.Devices, device)?);
    out.set_memory(resources.Memory.as_ref().map(memory));
    out.set_cpu(resources.CPU.as_ref().map(cpu));
    out.set_pids(resources.Pids.as_ref().filter(|pids| pids.Limit != 0).map(|pids| {
        let mut out = oci::LinuxPids::default();
        out.set_limit(pids.Limit);
        out
    }));
    out.set_block_io(resources.BlockIO.as_ref().map(block_io).transpose()?);
    out.set_hugepage_limits(list(&resources.HugepageLimits, |limit| {
        let mut out = oci::LinuxHugepageLimit::default();
        // A limit that the type cannot hold limits nothing.
        out.set_page_size(limit.Pagesize.clone()).set_limit(i64::try_from(limit.Limit).unwrap_or(-1));
        out
    }));
    out.set_network(resources.Network.as_ref().map(|network| {
        let mut out = oci::LinuxNetwork::default();
        out.set_class_id(nonzero(network.ClassID));
        out.set_priorities(list(&network.Priorities, |priority| {
            let mut out = oci::LinuxInterfacePriority::default();
            out.set_name(priority.Name.clone()).set_priority(priority.Priority);
            out
        }));
        out
    }));
    Ok(out)
}

fn memory(memory: &wire::LinuxMemory) -> oci::LinuxMemory {
    let mut out = oci::LinuxMemory::default();
    out.set_limit(nonzero(memory.Limit)).set_reservation(nonzero(memory.Reservation));
    out.set_swap(nonzero(memory.Swap)).set_kernel_tcp(nonzero(memory.KernelTCP));
    out.set_swappiness(nonzero(memory.Swappiness));
    out.set_disable_oom_killer(memory.DisableOOMKiller.then_some(true));
    out
}

fn cpu(cpu: &wire::LinuxCPU) -> oci::LinuxCpu {
    let mut out = oci::LinuxCpu::default();
    out.set_shares(nonzero(cpu.Shares)).set_quota(nonzero(cpu.Quota)).set_period(nonzero(cpu.Period));
    out.set_realtime_runtime(nonzero(cpu.RealtimeRuntime)).set_realtime_period(nonzero(cpu.RealtimePeriod));
    out.set_cpus(given(&cpu.Cpus)).set_mems(given(&cpu.Mems));
    out
}

/// A rule about "any device" has no numbers, and one without a major number none that is real, since no device has 0
/// for it. After a major number 0 is a minor number like any other: the first disk's.
fn device(rule: &wire::LinuxDeviceCgroup) -> Result<oci::LinuxDeviceCgroup, Error> {
    let kind = match rule.Type.as_str() {
        "" | "a" => oci::LinuxDeviceType::A,
        "b" => oci::LinuxDeviceType::B,
        "c" => oci::LinuxDeviceType::C,
        "u" => oci::LinuxDeviceType::U,
        "p" => oci::LinuxDeviceType::P,
        other => return Err(unknown("resources.devices type", other)),
    };
    let numbered = rule.Major != 0 && kind != oci::LinuxDeviceType::A;
    let mut out = oci::LinuxDeviceCgroup::default();
    out.set_allow(rule.Allow).set_typ(Some(kind)).set_access(given(&rule.Access));
    out.set_major(numbered.then_some(rule.Major)).set_minor(numbered.then_some(rule.Minor));
    Ok(out)
}

fn block_io(block: &wire::LinuxBlockIO) -> Result<oci::LinuxBlockIo, Error> {
    let mut out = oci::LinuxBlockIo::default();
    out.set_weight(nonzero(weight(block.Weight)?)).set_leaf_weight(nonzero(weight(block.LeafWeight)?));
    out.set_weight_device(try_list(&block.WeightDevice, |device| {
        let out = oci::LinuxWeightDeviceBuilder::default().major(device.Major).minor(device.Minor);
        let out = out.weight(weight(device.Weight)?).leaf_weight(weight(device.LeafWeight)?);
        Ok(out.build().expect(COMPLETE))
    })?);
    let throttle = |device: &wire::LinuxThrottleDevice| {
        let out = oci::LinuxThrottleDeviceBuilder::default().major(device.Major).minor(device.Minor);
        out.rate(device.Rate).build().expect(COMPLETE)
    };
    out.set_throttle_read_bps_device(list(&block.ThrottleReadBpsDevice, throttle));
    out.set_throttle_write_bps_device(list(&block.ThrottleWriteBpsDevice, throttle));
    out.set_throttle_read_iops_device(list(&block.ThrottleReadIOPSDevice, throttle));
    out.set_throttle_write_iops_device(list(&block.ThrottleWriteIOPSDevice, throttle));
    Ok(out)
}

fn weight(value: u32) -> Result<u16, Error> {
    u16::try_from(value).map_err(|_| unknown("resources.blockIO weight", &value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_is_nothing_and_no_limit_is_no_limit() {
        let empty = of_wire(&wire::LinuxResources::new()).unwrap();
        assert!(empty.memory().is_none() && empty.pids().is_none() && empty.devices().is_none());
        let zero = wire::LinuxResources {
            Memory: Some(wire::LinuxMemory::new()).into(),
            Pids: Some(wire::LinuxPids::new()).into(),
            ..Default::default()
        };
        let zero = of_wire(&zero).unwrap();
        assert!(zero.pids().is_none(), "no tasks at all would be no container");
        let memory = zero.memory().unwrap();
        assert_eq!((memory.limit(), memory.swap(), memory.swappiness()), (None, None, None));
        let lifted = wire::LinuxResources {
            Memory: Some(wire::LinuxMemory { Limit: -1, Swap: -1, ..Default::default() }).into(),
            CPU: Some(wire::LinuxCPU { Quota: -1, ..Default::default() }).into(),
            Pids: Some(wire::LinuxPids { Limit: -1, ..Default::default() }).into(),
            ..Default::default()
        };
        let lifted = of_wire(&lifted).unwrap();
        let memory = lifted.memory().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(-1), Some(-1)));
        assert_eq!(lifted.cpu().as_ref().unwrap().quota(), Some(-1));
        assert_eq!(lifted.pids().as_ref().unwrap().limit(), -1);
    }

    #[test]
    fn a_device_rules_zeroes_are_told_apart() {
        let rule = |kind: &str, major, minor| {
            let rule = wire::LinuxDeviceCgroup {
                Type: kind.into(),
                Major: major,
                Minor: minor,
                ..Default::default()
            };
            device(&rule).map(|rule| (rule.major(), rule.minor()))
        };
        assert_eq!(rule("a", 0, 0).unwrap(), (None, None));
        assert_eq!(rule("", 0, 0).unwrap(), (None, None));
        assert_eq!(rule("c", 0, 0).unwrap(), (None, None));
        assert_eq!(rule("b", 254, 0).unwrap(), (Some(254), Some(0)));
        assert_eq!(rule("c", 136, -1).unwrap(), (Some(136), Some(-1)));
        assert!(rule("x", 0, 0).is_err());
    }

    #[test]
    fn block_io_and_huge_pages_are_read() {
        let throttle = wire::LinuxThrottleDevice { Major: 8, Minor: 0, Rate: 5, ..Default::default() };
        let resources = wire::LinuxResources {
            BlockIO: Some(wire::LinuxBlockIO {
                Weight: 100,
                ThrottleReadBpsDevice: vec![throttle],
                ..Default::default()
            })
            .into(),
            HugepageLimits: vec![wire::LinuxHugepageLimit {
                Pagesize: "2MB".into(),
                Limit: u64::MAX,
                ..Default::default()
            }],
            ..Default::default()
        };
        let read = of_wire(&resources).unwrap();
        let block = read.block_io().as_ref().unwrap();
        assert_eq!((block.weight(), block.leaf_weight()), (Some(100), None));
        assert_eq!(block.throttle_read_bps_device().as_ref().unwrap()[0].rate(), 5);
        assert_eq!(read.hugepage_limits().as_ref().unwrap()[0].limit(), -1);
        let heavy = wire::LinuxBlockIO { Weight: 70_000, ..Default::default() };
        assert!(block_io(&heavy).is_err());
    }
}
