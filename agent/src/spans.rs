//! Spans for a tracer on the host: one for each call, sent over vsock.
//!
//! On the wire a span is its length, 64 bits and big-endian, and that many bytes of JSON: a span object of
//! OpenTelemetry's own JSON encoding (OTLP). Sending never holds a call up: what the host does not take is dropped and
//! counted.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_vsock::{VsockAddr, VsockStream};

/// Where a forwarder listens, on the host.
const FORWARDER: (u32, u32) = (2, 10240);

/// Spans on their way.
const QUEUE: usize = 256;

/// Between two tries to reach the forwarder.
const RETRY: Duration = Duration::from_secs(1);

/// What a caller says of the trace that its call is part of (W3C Trace Context, `traceparent`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parent {
    trace: String,
    span: String,
    sampled: bool,
}

impl Parent {
    /// Reads the caller's metadata. What is no `traceparent` is as good as none.
    pub(crate) fn of(metadata: &HashMap<String, Vec<String>>) -> Option<Self> {
        let mut parts = metadata.get("traceparent")?.first()?.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, length| {
            text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_id = |text: &str, length| is_hex(text, length) && text.bytes().any(|byte| byte != b'0');
        // Later versions may have more parts; this one has not, and the last is not a version.
        let known = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
        if !known || !is_id(trace, 32) || !is_id(span, 16) || !is_hex(flags, 2) {
            return None;
        }
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(Self { trace: trace.to_string(), span: span.to_string(), sampled })
    }
}

/// A call that has ended.
pub(crate) struct Call<'a> {
    pub(crate) service: &'a str,
    pub(crate) method: &'a str,
    /// ttrpc's code, 0 for success.
    pub(crate) code: i32,
    pub(crate) begun: SystemTime,
    pub(crate) ended: SystemTime,
}

/// Where spans go.
#[derive(Clone)]
pub(crate) struct Spans {
    queue: mpsc::Sender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl Spans {
    /// Starts sending to the host.
    pub(crate) fn start() -> Self {
        let (spans, mut queue) = Self::new();
        let dropped = spans.dropped.clone();
        tokio::spawn(async move {
            let (cid, port) = FORWARDER;
            loop {
                match VsockStream::connect(VsockAddr::new(cid, port)).await {
                    Ok(mut host) => match forward(&mut queue, &mut host).await {
                        Ok(()) => return,
                        Err(error) => tracing::debug!(%error, "the forwarder of spans left"),
                    },
                    Err(error) => tracing::debug!(%error, "no forwarder of spans on the host"),
                }
                let dropped = dropped.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    tracing::warn!(dropped, "spans were dropped");
                }
                tokio::time::sleep(RETRY).await;
            }
        });
        spans
    }

    fn new() -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (queue, spans) = mpsc::channel(QUEUE);
        (Self { queue, dropped: Arc::default() }, spans)
    }

    /// Sends the span of a call, unless its caller does not want it recorded.
    pub(crate) fn send(&self, call: &Call<'_>, parent: Option<&Parent>) {
        if parent.is_some_and(|parent| !parent.sampled) {
            return;
        }
        let sent = frame(call, parent).is_ok_and(|frame| self.queue.try_send(frame).is_ok());
        if !sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn forward(
    queue: &mut mpsc::Receiver<Vec<u8>>,
    host: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    while let Some(frame) = queue.recv().await {
        host.write_all(&frame).await?;
        host.flush().await?;
    }
    Ok(())
}

fn frame(call: &Call<'_>, parent: Option<&Parent>) -> io::Result<Vec<u8>> {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let nanos = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
    let trace = parent.map_or_else(|| random_id(16), |parent| Ok(parent.trace.clone()))?;
    let span: Value = json!({
        "traceId": trace,
        "spanId": random_id(8)?,
        "parentSpanId": parent.map_or("", |parent| parent.span.as_str()),
        "name": format!("{}/{}", call.service, call.method),
        // SPAN_KIND_SERVER
        "kind": 2,
        "startTimeUnixNano": nanos(call.begun),
        "endTimeUnixNano": nanos(call.ended),
        "attributes": [
            text("service.name", "kata-agent"),
            text("rpc.system", "ttrpc"),
            text("rpc.service", call.service),
            text("rpc.method", call.method),
            {"key": "rpc.grpc.status_code", "value": {"intValue": call.code.to_string()}},
        ],
        // STATUS_CODE_ERROR, or unset: success is what the caller makes of it.
        "status": {"code": if call.code == 0 { 0 } else { 2 }},
    });
    let payload = span.to_string();
    let mut frame = (payload.len() as u64).to_be_bytes().to_vec();
    frame.extend(payload.as_bytes());
    Ok(frame)
}

/// A new id of so many bytes, as hexadecimal digits.
fn random_id(bytes: usize) -> io::Result<String> {
    let mut id = vec![0; bytes];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut id)?;
    // All zeroes would mean that there is none.
    id[0] |= 1;
    Ok(id.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(traceparent: &str) -> HashMap<String, Vec<String>> {
        HashMap::from([("traceparent".to_string(), vec![traceparent.to_string()])])
    }

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn a_traceparent_is_read_and_anything_else_is_none() {
        let good = Parent::of(&metadata(&format!("00-{TRACE}-{SPAN}-01"))).unwrap();
        assert_eq!(good, Parent { trace: TRACE.into(), span: SPAN.into(), sampled: true });
        assert!(!Parent::of(&metadata(&format!("00-{TRACE}-{SPAN}-00"))).unwrap().sampled);
        assert!(Parent::of(&metadata(&format!("01-{TRACE}-{SPAN}-03-more"))).unwrap().sampled);
        let (no_trace, no_span) = ("0".repeat(32), "0".repeat(16));
        for bad in [
            "",
            "00",
            &format!("ff-{TRACE}-{SPAN}-01"),
            &format!("00-{TRACE}-{SPAN}-01-more"),
            &format!("00-{no_trace}-{SPAN}-01"),
            &format!("00-{TRACE}-{no_span}-01"),
            &format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            &format!("00-{TRACE}-{SPAN}-é"),
        ] {
            assert_eq!(Parent::of(&metadata(bad)), None, "{bad}");
        }
        assert_eq!(Parent::of(&HashMap::new()), None);
    }

    fn call(code: i32) -> Call<'static> {
        let begun = UNIX_EPOCH + Duration::new(1_700_000_000, 5);
        let ended = begun + Duration::from_micros(7);
        Call { service: "grpc.AgentService", method: "ExecProcess", code, begun, ended }
    }

    #[tokio::test]
    async fn a_span_is_a_length_and_json() {
        let (spans, mut queue) = Spans::new();
        let parent = Parent::of(&metadata(&format!("00-{TRACE}-{SPAN}-01")));
        spans.send(&call(13), parent.as_ref());
        spans.send(&call(0), None);
        drop(spans);
        let mut wire = Vec::new();
        forward(&mut queue, &mut wire).await.unwrap();
        let mut next = || {
            let length = u64::from_be_bytes(wire[..8].try_into().unwrap()) as usize;
            let span: Value = serde_json::from_slice(&wire[8..8 + length]).unwrap();
            wire.drain(..8 + length);
            span
        };
        let (failed, fine) = (next(), next());
        assert!(wire.is_empty());
        assert_eq!((&failed["traceId"], &failed["parentSpanId"]), (&TRACE.into(), &SPAN.into()));
        assert_eq!(failed["name"], "grpc.AgentService/ExecProcess");
        assert_eq!(failed["startTimeUnixNano"], "1700000000000000005");
        assert_eq!(failed["endTimeUnixNano"], "1700000000000007005");
        assert_eq!((&failed["status"]["code"], &fine["status"]["code"]), (&2.into(), &0.into()));
        assert_eq!((fine["traceId"].as_str().unwrap().len(), &fine["parentSpanId"]), (32, &"".into()));
        assert_ne!(fine["spanId"], failed["spanId"]);
    }

    #[tokio::test]
    async fn a_host_that_takes_none_holds_nobody_up() {
        let (spans, _queue) = Spans::new();
        for _ in 0..QUEUE + 3 {
            spans.send(&call(0), None);
        }
        assert_eq!(spans.dropped.load(Ordering::Relaxed), 3);
        let unwanted = Parent::of(&metadata(&format!("00-{TRACE}-{SPAN}-00")));
        spans.send(&call(0), unwanted.as_ref());
        assert_eq!(spans.dropped.load(Ordering::Relaxed), 3);
    }
}
