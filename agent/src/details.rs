//! What the guest says of itself: `GetGuestDetails`.

use std::path::Path;

use agent_api::agent::{AgentDetails, GuestDetailsRequest, GuestDetailsResponse};

use crate::resources;

/// Answers what was asked for.
pub(crate) fn describe(request: &GuestDetailsRequest, is_init: bool) -> GuestDetailsResponse {
    let system = Path::new(resources::SYSTEM);
    let details = AgentDetails {
        version: env!("CARGO_PKG_VERSION").to_string(),
        init_daemon: is_init,
        device_handlers: crate::devices::TYPES.iter().map(|kind| kind.to_string()).collect(),
        storage_handlers: crate::storage::DRIVERS.iter().map(|driver| driver.to_string()).collect(),
        supports_seccomp: jail::filters_system_calls(),
        extra_features: extra_features(),
        ..Default::default()
    };
    GuestDetailsResponse {
        mem_block_size_bytes: if request.mem_block_size { resources::block_size(system) } else { 0 },
        support_mem_hotplug_probe: request.mem_hotplug_probe && resources::can_probe(system),
        agent_details: Some(details).into(),
        ..Default::default()
    }
}

/// Peers look for the first ones by name; the rest describes the jail.
fn extra_features() -> Vec<String> {
    let peers = [("seccomp", jail::filters_system_calls()), ("agent-policy", cfg!(feature = "policy"))];
    let peers = peers.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.to_string());
    peers.chain(jail::features()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_looked_up() {
        let answer = describe(&GuestDetailsRequest::default(), true);
        assert_eq!((answer.mem_block_size_bytes, answer.support_mem_hotplug_probe), (0, false));
        assert!(answer.agent_details.init_daemon && answer.agent_details.supports_seccomp);
        assert_eq!(answer.agent_details.extra_features[0], "seccomp");
        assert!(answer.agent_details.device_handlers.contains(&"vfio-pci".to_string()));
        assert!(answer.agent_details.storage_handlers.contains(&"virtio-fs".to_string()));
    }
}
