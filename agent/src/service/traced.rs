//! A span for each call, around whatever answers it.

use std::collections::HashMap;
use std::time::SystemTime;

use async_trait::async_trait;
use ttrpc::r#async::{MethodHandler, Service, TtrpcContext};
use ttrpc::proto::{Request, Response};

use crate::spans::{Call, Parent, Spans};

/// Wraps every method that answers once. A stream has no end that would make a span.
pub(super) fn trace(services: HashMap<String, Service>, spans: &Spans) -> HashMap<String, Service> {
    let service = |(name, mut service): (String, Service)| {
        let methods = service.methods.into_iter().map(|(method, handler)| {
            let traced = Traced { handler, spans: spans.clone() };
            (method, Box::new(traced) as Box<dyn MethodHandler + Send + Sync>)
        });
        service.methods = methods.collect();
        (name, service)
    };
    services.into_iter().map(service).collect()
}

struct Traced {
    handler: Box<dyn MethodHandler + Send + Sync>,
    spans: Spans,
}

#[async_trait]
impl MethodHandler for Traced {
    async fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let parent = Parent::of(&context.metadata);
        let (service, method) = (request.service.clone(), request.method.clone());
        let begun = SystemTime::now();
        let answer = self.handler.handler(context, request).await;
        let code =
            answer.as_ref().map_or(ttrpc::Code::UNKNOWN as i32, |answer| answer.status().code() as i32);
        let call = Call { service: &service, method: &method, code, begun, ended: SystemTime::now() };
        self.spans.send(&call, parent.as_ref());
        answer
    }
}
