//! How much may be on its way in a stream of [`husk`](crate::husk): both sides count alike.

/// What a message with `size` bytes of data takes of the credit.
pub fn cost(size: usize) -> usize {
    size.max(MIN_COST)
}

/// The least a message costs, in bytes.
pub const MIN_COST: usize = 1024;

/// The most data of one message, in bytes: what a pipe of the kernel's usual size holds.
///
/// All streams of a connection take turns, message by message, so this is also how long the others wait.
pub const MAX_CHUNK: usize = 64 << 10;

/// The credit a client begins an output with, in bytes: what the host may have to hold of one stream.
pub const OUTPUT_CREDIT: u32 = 1 << 20;

/// The credit the agent begins an input with, in bytes: what the guest may have to hold of one stream.
pub const INPUT_CREDIT: u32 = 256 << 10;

/// The build metadata of an agent's version, behind its `+`, that says it serves `husk.agent.v1`.
pub const ANNOUNCEMENT: &str = "husk.agent.v1";

/// Whether an agent with this version serves `husk.agent.v1`.
pub fn is_announced(agent_version: &str) -> bool {
    agent_version.split_once('+').is_some_and(|(_, metadata)| metadata == ANNOUNCEMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_agents_announce_it() {
        assert!(is_announced("0.1.0+husk.agent.v1"));
        for other in ["", "4.1.0", "4.1.0+husk", "4.1.0+dirty.husk.agent.v1", "husk.agent.v1"] {
            assert!(!is_announced(other), "{other:?}");
        }
    }
}
