//! The agent's log: one JSON object a line, in the field names that peers' tools read.
//!
//! Records go to the console, or, when a log port is configured, into a bounded ring that one client at a time reads.
//! The ring drops its oldest lines and says how many. It never blocks the agent.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

/// How many bytes of log wait for a client.
const RING_BYTES: usize = 256 << 10;

/// Lines on their way to the client of the log port.
#[derive(Default)]
pub(crate) struct Ring {
    lines: Mutex<Lines>,
    arrived: Notify,
}

#[derive(Default)]
struct Lines {
    queue: VecDeque<String>,
    bytes: usize,
    dropped: u64,
}

impl Ring {
    fn push(&self, line: String) {
        let mut lines = self.lock();
        lines.bytes += line.len();
        lines.queue.push_back(line);
        while lines.bytes > RING_BYTES {
            let Some(oldest) = lines.queue.pop_front() else { break };
            lines.bytes -= oldest.len();
            lines.dropped += 1;
        }
        drop(lines);
        self.arrived.notify_one();
    }

    fn pop(&self) -> Option<String> {
        let mut lines = self.lock();
        if lines.dropped > 0 {
            let dropped = std::mem::take(&mut lines.dropped);
            return Some(record(
                Level::WARN,
                "log",
                &format!("{dropped} records were dropped before a client read them"),
                Map::new(),
            ));
        }
        let line = lines.queue.pop_front()?;
        lines.bytes -= line.len();
        Some(line)
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // A panic while the lock is held leaves at worst a wrong count behind.
        self.lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Sends records to a client until it goes away. The record that was on its way then is lost.
    pub(crate) async fn serve(&self, mut client: impl AsyncWrite + Unpin) -> std::io::Result<()> {
        loop {
            match self.pop() {
                Some(line) => {
                    client.write_all(line.as_bytes()).await?;
                    client.flush().await?;
                }
                None => self.arrived.notified().await,
            }
        }
    }
}

/// Where records go.
enum Sink {
    Console,
    Ring(Arc<Ring>),
}

/// Installs the log. With `ring`, records wait there for a client; without, they go to the console.
pub(crate) fn install(level: Level, ring: Option<Arc<Ring>>) {
    let sink = ring.map_or(Sink::Console, Sink::Ring);
    // Fails only when a subscriber is installed already, which then stays.
    let _ = tracing::subscriber::set_global_default(JsonLines { level, sink });
}

struct JsonLines {
    level: Level,
    sink: Sink,
}

impl Subscriber for JsonLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let subsystem = event.metadata().target().rsplit("::").next().unwrap_or_default();
        let line = record(*event.metadata().level(), subsystem, &fields.message, fields.others);
        match &self.sink {
            // Nobody is left to tell when the console cannot be written.
            Sink::Console => drop(std::io::stderr().write_all(line.as_bytes())),
            Sink::Ring(ring) => ring.push(line),
        }
    }

    // Spans carry nothing yet: each record names its container itself.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string cannot fail.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.others.insert(field.name().to_string(), Value::String(format!("{value:?}")));
        }
    }
}

/// One line of the log. Context values are strings, and a context key never overwrites a key of the record itself.
fn record(level: Level, subsystem: &str, message: &str, context: Map<String, Value>) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut record = context;
    for (key, value) in [
        ("msg", message.to_string()),
        ("level", level_name(level).to_string()),
        ("ts", rfc3339(now)),
        ("name", "kata-agent".to_string()),
        ("source", "agent".to_string()),
        ("pid", std::process::id().to_string()),
        ("version", env!("CARGO_PKG_VERSION").to_string()),
        ("subsystem", subsystem.to_string()),
    ] {
        record.insert(key.to_string(), Value::String(value));
    }
    let mut line = Value::Object(record).to_string();
    line.push('\n');
    line
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERRO",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBG",
        Level::TRACE => "TRCE",
    }
}

/// RFC 3339 in UTC with microseconds. Days to civil date: Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`.
fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    let micros = since_epoch.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(Duration::ZERO), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(Duration::new(951_827_696, 5_000)), "2000-02-29T12:34:56.000005Z");
        assert_eq!(rfc3339(Duration::from_secs(4_102_444_799)), "2099-12-31T23:59:59.000000Z");
    }

    #[test]
    fn a_record_is_one_line_of_json_with_the_keys_peers_read() {
        let context = Map::from_iter([
            ("container".to_string(), Value::String("a\nb".into())),
            ("level".to_string(), Value::String("fake".into())),
        ]);
        let line = record(Level::INFO, "registry", "said \"hi\"\n", context);
        assert_eq!(line.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["msg"], "said \"hi\"\n");
        assert_eq!(value["level"], "INFO");
        assert_eq!(value["container"], "a\nb");
        assert_eq!(value["subsystem"], "registry");
    }

    #[test]
    fn a_full_ring_drops_the_oldest_and_says_so() {
        let ring = Ring::default();
        let line = "x".repeat(RING_BYTES / 4);
        for _ in 0..6 {
            ring.push(line.clone());
        }
        assert!(ring.pop().expect("a line").contains("2 records were dropped"));
        for _ in 0..4 {
            assert_eq!(ring.pop().as_ref(), Some(&line));
        }
        assert_eq!(ring.pop(), None);
    }
}
