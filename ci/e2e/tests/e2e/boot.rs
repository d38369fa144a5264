//! The way up and the way down of a VM: Health, Version, details, logs, power-off.

use std::time::Duration;

use agent_api::agent::{DestroySandboxRequest, GuestDetailsRequest};
use agent_api::health::CheckRequest;
use agent_api::health::health_check_response::ServingStatus;
use agent_api::{API_VERSION, ports};
use e2e::{Boot, test};
use tokio::io::AsyncReadExt;
use ttrpc::context;

#[test]
fn the_agent_is_healthy_and_tells_its_version() {
    Boot::new().bare().test(async |guest| {
        let agent = guest.agent();
        let (ctx, request) = (context::with_duration(Duration::from_secs(10)), CheckRequest::new());
        let health = agent.health().check(ctx.clone(), &request).await.unwrap();
        assert_eq!(health.status.enum_value(), Ok(ServingStatus::SERVING));
        let version = agent.health().version(ctx, &request).await.unwrap();
        assert_eq!(version.grpc_version, API_VERSION);
        assert!(!version.agent_version.is_empty());
    });
}
