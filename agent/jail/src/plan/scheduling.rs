//! When a process runs, where, and on which memory: what the kernel calls scheduling.

use serde::{Deserialize, Serialize};

use super::PlanError;
use crate::oci::{
    self, IOPriorityClass, Linux, LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType,
    MemoryPolicyModeType,
};

/// What differs from the agent's own. Nothing, for most containers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Scheduling {
    /// Class and level of input and output, as `ioprio_set(2)` takes them.
    pub io_priority: Option<u32>,
    /// Policy and its numbers.
    pub scheduler: Option<Scheduler>,
    /// The processors an exec runs on, as bits.
    pub processors: Option<Vec<u64>>,
    /// The memory nodes.
    pub memory: Option<MemoryPolicy>,
    /// The execution domain, as `personality(2)` takes it.
    pub personality: Option<u32>,
}

/// A scheduling policy, in the terms of `sched_setattr(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For the ordinary policies.
    pub nice: i32,
    /// For the real-time policies.
    pub priority: u32,
    /// For deadlines: how long, in nanoseconds.
    pub runtime: u64,
    /// Until when.
    pub deadline: u64,
    /// How often.
    pub period: u64,
}

/// A memory policy, in the terms of `set_mempolicy(2)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// `MPOL_*` with its flags.
    pub mode: u32,
    /// The nodes, as bits.
    pub nodes: Vec<u64>,
}

/// The highest processor or node that is believed in; the kernel's own limit is lower.
const MOST: usize = 8192;

pub(super) fn of_process(process: &oci::Process, linux: Option<&Linux>) -> Result<Scheduling, PlanError> {
    let io_priority = process.io_priority().as_ref().map(io_priority).transpose()?;
    let scheduler = process.scheduler().as_ref().map(scheduler).transpose()?;
    let memory = linux.and_then(|linux| linux.memory_policy().as_ref()).map(memory_policy).transpose()?;
    let personality = linux.and_then(|linux| linux.personality().as_ref()).map(personality).transpose()?;
    Ok(Scheduling { io_priority, scheduler, processors: None, memory, personality })
}

/// An exec's own, and what its container gives to all of its processes.
pub(super) fn of_exec(process: &oci::Process, container: &Scheduling) -> Result<Scheduling, PlanError> {
    let mut out = of_process(process, None)?;
    out.memory = container.memory.clone();
    out.personality = container.personality;
    if let Some(affinity) = process.exec_cpu_affinity() {
        // A process of ours is born in its cgroup: there is no time before in which the other list would count.
        bits("initial CPU affinity", affinity.initial().as_deref())?;
        out.processors = bits("final CPU affinity", affinity.cpu_affinity_final().as_deref())?;
    }
    Ok(out)
}

fn io_priority(wanted: &oci::LinuxIOPriority) -> Result<u32, PlanError> {
    const CLASS_SHIFT: u32 = 13;
    let class: u32 = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u32::try_from(wanted.priority()) {
        Ok(level) if level < 8 => Ok(class << CLASS_SHIFT | level),
        _ => Err(PlanError::Unsupported { what: "I/O priority", value: wanted.priority().to_string() }),
    }
}

fn scheduler(wanted: &oci::Scheduler) -> Result<Scheduler, PlanError> {
    let policy = match wanted.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flags = wanted.flags().iter().flatten().fold(0, |flags, flag| flags | scheduler_flag(*flag));
    let nice = wanted.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(PlanError::Unsupported { what: "nice value", value: nice.to_string() });
    }
    let priority = wanted.priority().unwrap_or(0);
    let priority = u32::try_from(priority)
        .map_err(|_| PlanError::Unsupported { what: "scheduler priority", value: priority.to_string() })?;
    Ok(Scheduler {
        policy,
        flags,
        nice,
        priority,
        runtime: wanted.runtime().unwrap_or(0),
        deadline: wanted.deadline().unwrap_or(0),
        period: wanted.period().unwrap_or(0),
    })
}

fn scheduler_flag(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

fn memory_policy(wanted: &oci::LinuxMemoryPolicy) -> Result<MemoryPolicy, PlanError> {
    let mode: u32 = match wanted.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = wanted.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
                MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            }
    });
    let nodes = bits("memory policy nodes", wanted.nodes().as_deref())?.unwrap_or_default();
    Ok(MemoryPolicy { mode: mode | flags, nodes })
}

fn personality(wanted: &oci::LinuxPersonality) -> Result<u32, PlanError> {
    if let Some(flag) = wanted.flags().iter().flatten().next() {
        return Err(PlanError::Unsupported { what: "personality flag", value: flag.clone() });
    }
    Ok(match wanted.domain() {
        oci::LinuxPersonalityDomain::PerLinux => 0,
        oci::LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

/// The bits of a list like `0-3,7`; `None` for an empty one.
fn bits(what: &'static str, list: Option<&str>) -> Result<Option<Vec<u64>>, PlanError> {
    let list = list.unwrap_or("").trim();
    if list.is_empty() {
        return Ok(None);
    }
    let mut out = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number < MOST);
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => {
                out.resize(out.len().max(last / 64 + 1), 0_u64);
                (first..=last).for_each(|bit| out[bit / 64] |= 1 << (bit % 64));
            }
            _ => return Err(PlanError::Unsupported { what, value: list.to_owned() }),
        }
    }
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn process(change: Value) -> oci::Process {
        let mut process = json!({ "user": {}, "args": ["sh"], "cwd": "/" });
        process.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(process).unwrap()
    }

    fn made(change: Value) -> Result<Scheduling, PlanError> {
        of_process(&process(change), None)
    }

    #[test]
    fn nothing_is_changed_that_was_not_named() {
        assert_eq!(made(json!({})), Ok(Scheduling::default()));
    }

    #[test]
    fn io_priorities_are_a_class_and_a_level() {
        let got = |class: &str, level: i64| {
            made(json!({ "ioPriority": { "class": class, "priority": level } })).map(|made| made.io_priority)
        };
        assert_eq!(got("IOPRIO_CLASS_RT", 0), Ok(Some(0x2000)));
        assert_eq!(got("IOPRIO_CLASS_BE", 7), Ok(Some(0x4007)));
        assert_eq!(got("IOPRIO_CLASS_IDLE", 0), Ok(Some(0x6000)));
        assert!(got("IOPRIO_CLASS_BE", 8).is_err() && got("IOPRIO_CLASS_BE", -1).is_err());
    }

    #[test]
    fn schedulers_are_numbers() {
        let got = made(json!({ "scheduler": { "policy": "SCHED_DEADLINE", "flags": ["SCHED_RESET_ON_FORK"],
            "runtime": 1_000_000, "deadline": 2_000_000, "period": 3_000_000 } }));
        let got = got.unwrap().scheduler.unwrap();
        assert_eq!((got.policy, got.flags, got.runtime, got.period), (6, 1, 1_000_000, 3_000_000));
        for bad in [json!({ "nice": 20 }), json!({ "nice": -21 }), json!({ "priority": -1 })] {
            let mut scheduler = json!({ "policy": "SCHED_OTHER" });
            scheduler.as_object_mut().unwrap().extend(bad.as_object().unwrap().clone());
            assert!(made(json!({ "scheduler": scheduler })).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_are_bits() {
        assert_eq!(bits("x", Some("0-3,7")), Ok(Some(vec![0x8f])));
        assert_eq!(bits("x", Some("64, 1")), Ok(Some(vec![2, 1])));
        assert_eq!((bits("x", None), bits("x", Some(""))), (Ok(None), Ok(None)));
        for bad in ["3-1", "a", "-1", "1,,2", "99999999999", "8192"] {
            assert!(bits("x", Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_exec_has_its_own_processors_and_its_containers_memory() {
        let linux: Linux = serde_json::from_value(json!({
            "memoryPolicy": { "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] },
            "personality": { "domain": "LINUX32" },
        }))
        .unwrap();
        let container = of_process(&process(json!({})), Some(&linux)).unwrap();
        assert_eq!(container.memory, Some(MemoryPolicy { mode: 2 | 1 << 15, nodes: vec![1] }));
        let affinity = json!({ "execCPUAffinity": { "initial": "0", "final": "1" } });
        let exec = of_exec(&process(affinity), &container).unwrap();
        assert_eq!((exec.processors, exec.personality), (Some(vec![2]), Some(8)));
        assert_eq!(exec.memory, container.memory);
        let flags = json!({ "domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"] });
        let linux = serde_json::from_value(json!({ "personality": flags })).unwrap();
        assert!(of_process(&process(json!({})), Some(&linux)).is_err());
    }
}
