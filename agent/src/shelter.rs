//! What keeps the agent alive and quick while workloads take all they can: when memory runs out the kernel looks for
//! somebody else first, and when every processor is busy the agent is next.
//!
//! Under another init system the cgroup is that system's business, and only the score is set.

use jail::cgroup::{Cgroup, CgroupError, agent_path};

/// What peers give the agent: the last to be killed, but for those that never are.
const SCORE: &str = "-997";

/// Memory that is not taken from the agent for others' sake: a few times what it needs.
const MEMORY: u64 = 16 << 20;

/// Takes shelter. A guest that cannot give it runs all the same.
pub(crate) fn take(is_init: bool) {
    // Processes of containers get a score of their own before they run.
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", SCORE) {
        tracing::warn!(%error, "oom_score_adj: the agent is killed as soon as anybody");
    }
    if is_init && let Err(error) = enter_cgroup() {
        tracing::warn!(%error, "the agent has no cgroup of its own");
    }
}

fn enter_cgroup() -> Result<(), CgroupError> {
    let cgroup = Cgroup::create(&agent_path())?;
    cgroup.enter(std::process::id() as i32)?;
    let shares = if cgroup.is_v2() {
        cgroup.write("memory.min", &MEMORY.to_string())?;
        ("cpu.weight", "10000")
    } else {
        ("cpu.shares", "262144")
    };
    cgroup.write(shares.0, shares.1)
}
