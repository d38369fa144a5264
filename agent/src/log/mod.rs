//! The agent's log: one JSON object a line, in the field names that peers' tools read.
//!
//! Records go to the console, or, when a log port is configured, to whoever connects there ([`Ring`]). Neither ever
//! blocks the agent: what cannot be written is dropped and counted.

mod record;
mod ring;

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Arc, Mutex};

use nix::libc;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use record::{Severity, record};
pub(crate) use ring::Ring;

/// Installs the log. With `ring`, records wait there for clients; without, they go to the console.
pub(crate) fn install(level: Level, ring: Option<Arc<Ring>>) {
    let sink = ring.map_or_else(|| Sink::Console(Mutex::new(Console::open())), Sink::Ring);
    // Fails only when a subscriber is installed already, which then stays.
    let _ = tracing::subscriber::set_global_default(JsonLines { level, sink });
    std::panic::set_hook(Box::new(|panic| tracing::error!(critical = true, "{panic}")));
}

/// Where records go.
enum Sink {
    Console(Mutex<Console>),
    Ring(Arc<Ring>),
}

/// The VM's console, or what the agent was given for an output.
struct Console {
    output: Option<File>,
    /// The rest of a record that did not go out whole.
    rest: Vec<u8>,
    dropped: u64,
}

impl Console {
    /// A console that nobody reads fills up, and the agent has one thread for everything. So it is opened again, not to
    /// block: the descriptor that the kernel gave us may be shared with others.
    fn open() -> Self {
        let own = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(if std::process::id() == 1 { "/dev/console" } else { "/proc/self/fd/1" });
        // A socket, as systemd gives for its journal, has no name to open it by.
        let output = own.or_else(|_| std::io::stdout().as_fd().try_clone_to_owned().map(File::from)).ok();
        Self::on(output)
    }

    fn on(output: Option<File>) -> Self {
        Self { output, rest: Vec::new(), dropped: 0 }
    }

    fn write(&mut self, line: String) {
        if self.flush() && self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped).to_string();
            let message = format!("{dropped} records were dropped while the console took none");
            let context = Map::from_iter([("dropped".to_string(), Value::String(dropped))]);
            self.rest = record(Severity::Level(Level::WARN), "log", message, context).into_bytes();
        }
        if self.flush() {
            self.rest = line.into_bytes();
            self.flush();
        } else {
            self.dropped += 1;
        }
    }

    /// Writes what is left of a record; `false` while something still is.
    fn flush(&mut self) -> bool {
        while let (Some(output), false) = (&mut self.output, self.rest.is_empty()) {
            match output.write(&self.rest) {
                Ok(written @ 1..) => drop(self.rest.drain(..written)),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
                // Nobody is left to tell.
                Ok(_) | Err(_) => self.rest.clear(),
            }
        }
        true
    }
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
        let severity =
            if fields.critical { Severity::Critical } else { Severity::Level(*event.metadata().level()) };
        let line = record(severity, subsystem, fields.message, fields.others);
        match &self.sink {
            Sink::Console(console) => {
                console.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).write(line);
            }
            Sink::Ring(ring) => ring.push(line),
        }
    }

    // Spans of this crate carry nothing: each record names its container itself, and calls are traced elsewhere.
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
    /// Whether the record says `critical = true`: `tracing` has no such level.
    critical: bool,
    others: Map<String, Value>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "critical" {
            self.critical = value;
        } else {
            self.record_debug(field, &value);
        }
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_console_that_takes_nothing_costs_records_and_not_time() {
        let (mut reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        let mut console = Console::on(Some(File::from(std::os::fd::OwnedFd::from(writer))));
        let line = |number: usize| format!("{{\"number\":{number},\"fill\":\"{}\"}}\n", "x".repeat(4000));
        let mut number = 0;
        while console.dropped < 10 {
            console.write(line(number));
            number += 1;
        }
        reader.set_nonblocking(true).unwrap();
        let mut text = String::new();
        let mut buffer = vec![0; 1 << 20];
        let mut drain = |text: &mut String| {
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
            }
        };
        drain(&mut text);
        console.write(line(number));
        drain(&mut text);
        assert!(text.ends_with('\n'));
        let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let last = &records[records.len() - 2..];
        assert_eq!((&last[0]["dropped"], &last[1]["number"]), (&"10".into(), &number.into()));
        for (index, record) in records[..records.len() - 2].iter().enumerate() {
            assert_eq!(record["number"], index);
        }
    }

    #[test]
    fn a_field_can_make_it_critical() {
        let ring = Arc::<Ring>::default();
        let log = JsonLines { level: Level::WARN, sink: Sink::Ring(ring.clone()) };
        tracing::subscriber::with_default(log, || {
            tracing::error!(critical = true, answer = 42, "over");
            tracing::warn!(yes = true, "not quite");
            tracing::info!("not at all");
        });
        let lines = ring.unseen(10);
        let [first, second]: [Value; 2] =
            [&lines[0], &lines[1]].map(|line| serde_json::from_str(line).unwrap());
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (&first["level"], &first["msg"], &first["answer"]),
            (&"CRIT".into(), &"over".into(), &"42".into())
        );
        assert_eq!((&second["level"], &second["yes"]), (&"WARN".into(), &"true".into()));
        assert!(first.get("critical").is_none());
    }
}
