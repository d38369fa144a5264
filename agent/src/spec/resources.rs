//! The limits of a container.

use agent_api::oci as wire;
use jail::oci;

use super::{given, nonzero};

pub(super) fn of_wire(resources: &wire::LinuxResources) -> oci::LinuxResources {
    let mut out = oci::LinuxResources::default();
    out.set_memory(resources.Memory.as_ref().map(|memory| {
        let mut out = oci::LinuxMemory::default();
        out.set_limit(nonzero(memory.Limit)).set_reservation(nonzero(memory.Reservation));
        out.set_swap(nonzero(memory.Swap));
        out
    }));
    out.set_cpu(resources.CPU.as_ref().map(|cpu| {
        let mut out = oci::LinuxCpu::default();
        out.set_shares(nonzero(cpu.Shares)).set_quota(nonzero(cpu.Quota)).set_period(nonzero(cpu.Period));
        out.set_cpus(given(&cpu.Cpus)).set_mems(given(&cpu.Mems));
        out
    }));
    // A limit of 0 tasks would be a container that cannot run: not given.
    out.set_pids(resources.Pids.as_ref().filter(|pids| pids.Limit != 0).map(|pids| {
        let mut out = oci::LinuxPids::default();
        out.set_limit(pids.Limit);
        out
    }));
    out
}
