//! The memory agent of peers: reclaim and compaction inside the guest. Husk has none; what would be on is logged.

use crate::config::Config;

/// There is nothing whose settings could be changed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "memory agent: it is off, and agent.mem_agent_enable does not turn it on: this agent reclaims no memory by itself"
)]
pub(crate) struct Off;

/// Logs what somebody asked for and does not get.
pub(crate) fn announce(config: &Config) {
    if config.mem_agent {
        tracing::warn!(
            memcg = !config.mem_agent_memcg_disable,
            memcg_period_secs = config.mem_agent_memcg_period_secs,
            memcg_swap = config.mem_agent_memcg_swap,
            compact = !config.mem_agent_compact_disable,
            compact_period_secs = config.mem_agent_compact_period_secs,
            "mem_agent_enable has no effect"
        );
    }
}

/// Changes its settings.
pub(crate) fn set() -> Result<(), Off> {
    Err(Off)
}
