//! `grpc.Health`: answers whatever else goes on, because it waits for nothing and takes no lock.

use agent_api::health::health_check_response::ServingStatus;
use agent_api::health::{CheckRequest, HealthCheckResponse, VersionCheckResponse};
use agent_api::health_ttrpc;
use async_trait::async_trait;
use ttrpc::r#async::TtrpcContext;

pub(super) struct Health;

#[async_trait]
impl health_ttrpc::Health for Health {
    async fn check(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<HealthCheckResponse> {
        Ok(HealthCheckResponse { status: ServingStatus::SERVING.into(), ..Default::default() })
    }

    async fn version(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<VersionCheckResponse> {
        Ok(VersionCheckResponse {
            grpc_version: agent_api::API_VERSION.to_string(),
            agent_version: version(),
            ..Default::default()
        })
    }
}

/// Under a policy our own streams are not served, and callers are not told of them.
fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    if cfg!(feature = "policy") {
        version.into()
    } else {
        format!("{version}+{}", agent_api::stdio::ANNOUNCEMENT)
    }
}
