//! The gate before every handler: a request that the policy does not allow does not get there.

use std::collections::HashMap;
use std::sync::Arc;

use agent_api::agent::ReadStreamResponse;
use agent_api::fields::{self, Message};
use async_trait::async_trait;
use protobuf::Message as _;
use ttrpc::Code;
use ttrpc::r#async::{MethodHandler, Service, TtrpcContext};
use ttrpc::proto::{Request, Response, ResponseInit as _};

use super::status;
use crate::policy::{Error, Policy};

/// Methods whose refusal looks like silence: callers stop at an error, and a workload must not hang because nobody may
/// read what it writes.
const SILENCED: [&str; 2] = ["ReadStdout", "ReadStderr"];

/// Puts every method behind the policy, and takes streams away: a policy decides about single requests.
pub(super) fn gate(services: HashMap<String, Service>, policy: &Policy) -> HashMap<String, Service> {
    let service = |(name, service): (String, Service)| {
        let methods = service.methods.into_iter().map(|(method, handler)| {
            let gated = Gated {
                policy: policy.clone(),
                request: fields::request_of(&name, &method),
                silenced: SILENCED.contains(&method.as_str()),
                handler: Arc::from(handler),
            };
            (method, Box::new(gated) as Box<dyn MethodHandler + Send + Sync>)
        });
        let methods = methods.collect();
        (name, Service { methods, streams: HashMap::new() })
    };
    services.into_iter().map(service).collect()
}

struct Gated {
    policy: Policy,
    /// `None` if nobody knows what the method's requests look like. Nothing passes then.
    request: Option<&'static Message>,
    silenced: bool,
    handler: Arc<dyn MethodHandler + Send + Sync>,
}

#[async_trait]
impl MethodHandler for Gated {
    async fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let admitted = match self.request {
            Some(message) => self.policy.admit(message, &request.payload).await,
            None => {
                Err(Error::Denied { rule: request.method.clone(), reason: "it has no description".into() })
            }
        };
        match admitted {
            Ok(()) => self.handler.handler(context, request).await,
            Err(Error::Denied { .. }) if self.silenced => self.silence(context, request).await,
            Err(error) => {
                let ttrpc::Error::RpcStatus(status) = status::policy(error) else {
                    return Err(ttrpc::Error::Others("the policy's answer has no status".into()));
                };
                Ok(Response::init_status(status))
            }
        }
    }
}

impl Gated {
    /// Reads a stream to its end for nobody, and answers that it has ended.
    async fn silence(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        loop {
            let context = TtrpcContext {
                mh: context.mh,
                metadata: context.metadata.clone(),
                timeout_nano: context.timeout_nano,
                connection_data: context.connection_data.clone(),
            };
            let answer = self.handler.handler(context, request.clone()).await?;
            let failed = answer.status.as_ref().is_some_and(|status| status.code() != Code::OK);
            let read = ReadStreamResponse::parse_from_bytes(&answer.payload);
            // An answer that is not understood is not passed on either: it may be output.
            let read = read.map_err(|error| ttrpc::Error::Others(error.to_string()))?;
            if failed || read.data.is_empty() {
                return Ok(answer);
            }
        }
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
