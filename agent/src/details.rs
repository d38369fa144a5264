//! What the guest says of itself: `GetGuestDetails`.

use std::fs;
use std::path::Path;

use agent_api::agent::{AgentDetails, GuestDetailsRequest, GuestDetailsResponse};

const MEMORY: &str = "/sys/devices/system/memory";

/// Answers what was asked for.
pub(crate) fn describe(request: &GuestDetailsRequest, is_init: bool) -> GuestDetailsResponse {
    let memory = Path::new(MEMORY);
    let details = AgentDetails {
        version: env!("CARGO_PKG_VERSION").to_string(),
        init_daemon: is_init,
        storage_handlers: crate::storage::DRIVERS.iter().map(|driver| driver.to_string()).collect(),
        supports_seccomp: false,
        ..Default::default()
    };
    GuestDetailsResponse {
        mem_block_size_bytes: if request.mem_block_size { memory_block_size(memory) } else { 0 },
        support_mem_hotplug_probe: request.mem_hotplug_probe && memory.join("probe").exists(),
        agent_details: Some(details).into(),
        ..Default::default()
    }
}

/// The size of a block of memory that can be plugged, in bytes; 0 in a guest that cannot
/// (Documentation/admin-guide/mm/memory-hotplug.rst: hexadecimal, without a prefix).
fn memory_block_size(memory: &Path) -> u64 {
    let text = fs::read_to_string(memory.join("block_size_bytes")).unwrap_or_default();
    u64::from_str_radix(text.trim(), 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_size_is_hexadecimal_and_0_without_one() {
        let dir = std::env::temp_dir().join(format!("husk-memory-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        assert_eq!(memory_block_size(&dir), 0);
        fs::write(dir.join("block_size_bytes"), "8000000\n").unwrap();
        assert_eq!(memory_block_size(&dir), 128 << 20);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn only_what_was_asked_for_is_looked_up() {
        let answer = describe(&GuestDetailsRequest::default(), true);
        assert_eq!((answer.mem_block_size_bytes, answer.support_mem_hotplug_probe), (0, false));
        assert!(answer.agent_details.init_daemon);
        assert!(answer.agent_details.storage_handlers.contains(&"virtio-fs".to_string()));
    }
}
