//! The ttrpc services. A handler decodes, calls one domain function, encodes.

mod agent;
mod guard;
mod health;
mod husk;
#[cfg(feature = "policy")]
mod policy;
pub(crate) mod status;
#[cfg(test)]
mod tests;
#[cfg(feature = "tracing-spans")]
mod traced;

use std::collections::HashMap;
use std::sync::Arc;

use agent_api::{agent_ttrpc, health_ttrpc, husk_ttrpc};
use ttrpc::r#async::{Server, Service};

use crate::guest::Guest;
use crate::transport::{self, Incoming};

/// Serves all services on the connections that come in.
pub(crate) async fn serve(guest: Arc<Guest>, incoming: Incoming) -> ttrpc::Result<Server> {
    let mut services = agent_ttrpc::create_agent_service(Arc::new(agent::AgentService::new(guest.clone())));
    services.extend(husk_ttrpc::create_agent(Arc::new(husk::HuskService::new(guest.clone()))));
    #[cfg(feature = "policy")]
    let mut services = policy::gate(services, &guest.policy);
    // Health is no request: it is answered whatever the policy says.
    services.extend(health_ttrpc::create_health(Arc::new(health::Health)));
    let services = guard::guard(services);
    #[cfg(feature = "tracing-spans")]
    let services =
        if guest.config.trace { traced::trace(services, &crate::spans::Spans::start()) } else { services };
    start(services, incoming).await
}

async fn start(services: HashMap<String, Service>, incoming: Incoming) -> ttrpc::Result<Server> {
    let mut server = Server::new().add_listener(transport::listener(incoming)).register_service(services);
    server.start().await?;
    Ok(server)
}
