//! A panic in a handler fails one call and nothing else.
//!
//! ttrpc runs each call in a task of its own. A panic there would end that task without an answer, and its caller
//! would wait until its deadline. Every method is wrapped, so that none can be forgotten.

use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt as _;
use ttrpc::r#async::{MethodHandler, Service, StreamHandler, StreamInner, TtrpcContext};
use ttrpc::proto::{Request, Response, ResponseInit as _};

use super::status;

/// Wraps every method of the services.
pub(super) fn guard(services: HashMap<String, Service>) -> HashMap<String, Service> {
    let service = |(name, service): (String, Service)| {
        let methods = service.methods.into_iter().map(|(method, handler)| {
            let guarded = Guarded { method: method.clone(), handler };
            (method, Box::new(guarded) as Box<dyn MethodHandler + Send + Sync>)
        });
        let streams = service.streams.into_iter().map(|(method, handler)| {
            let guarded = Guarded { method: method.clone(), handler };
            (method, Arc::new(guarded) as Arc<dyn StreamHandler + Send + Sync>)
        });
        (name, Service { methods: methods.collect(), streams: streams.collect() })
    };
    services.into_iter().map(service).collect()
}

struct Guarded<H> {
    method: String,
    handler: H,
}

/// What a handler held when it panicked is dropped with it. What it shared is behind locks, which survive a panic
/// (each is taken by a function that does not mind poison), so that nobody sees what is half done.
#[async_trait]
impl MethodHandler for Guarded<Box<dyn MethodHandler + Send + Sync>> {
    async fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        match AssertUnwindSafe(self.handler.handler(context, request)).catch_unwind().await {
            Ok(answer) => answer,
            Err(panic) => Ok(self.answer(panic)),
        }
    }
}

#[async_trait]
impl StreamHandler for Guarded<Arc<dyn StreamHandler + Send + Sync>> {
    async fn handler(&self, context: TtrpcContext, stream: StreamInner) -> ttrpc::Result<Option<Response>> {
        match AssertUnwindSafe(self.handler.handler(context, stream)).catch_unwind().await {
            Ok(answer) => answer,
            Err(panic) => Ok(Some(self.answer(panic))),
        }
    }
}

impl<H> Guarded<H> {
    fn answer(&self, panic: Box<dyn Any + Send>) -> Response {
        let reason = reason(&*panic);
        tracing::error!(method = self.method, reason, "a handler panicked");
        Response::init_status(status::panicked(&self.method, reason))
    }
}

/// What a panic said.
fn reason(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it gave no reason")
}
