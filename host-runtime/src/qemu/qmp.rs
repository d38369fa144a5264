//! QMP, QEMU's control channel: JSON objects, one a line. Our side of the greeting, and the events.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// The longest line we take from QEMU.
const MAX_LINE: u64 = 1 << 20;

/// One event, as far as we look at it.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    /// A virtio-serial port was opened or closed by the guest.
    Port { id: String, open: bool },
    /// The guest powered off or reset; QEMU is about to exit.
    Shutdown { reason: String },
    /// Anything else, by name.
    Other(String),
}

/// What can go wrong on the channel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("channel closed")]
    Closed,
    #[error("channel: {0}")]
    Io(#[from] std::io::Error),
    #[error("a line of more than {MAX_LINE} bytes")]
    TooLong,
    #[error("not a QMP message: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("no greeting, but {0}")]
    NoGreeting(String),
    #[error("{command}: {text}")]
    Refused { command: &'static str, text: String },
}

/// The channel, as a source of events. It holds the writing half too: QEMU takes its end for the end of the client.
pub(crate) struct Events {
    lines: Lines,
    _write: OwnedWriteHalf,
}

struct Lines(BufReader<OwnedReadHalf>);

/// Reads the greeting and leaves negotiation mode.
pub(crate) async fn greet(stream: UnixStream) -> Result<Events, Error> {
    let (read, mut write) = stream.into_split();
    let mut lines = Lines(BufReader::new(read));
    let greeting = lines.next().await?;
    if greeting.get("QMP").is_none() {
        return Err(Error::NoGreeting(brief(&greeting)));
    }
    write.write_all(b"{\"execute\": \"qmp_capabilities\"}\n").await?;
    loop {
        let answer = lines.next().await?;
        if answer.get("return").is_some() {
            return Ok(Events { lines, _write: write });
        }
        if let Some(error) = answer.get("error") {
            return Err(Error::Refused { command: "qmp_capabilities", text: brief(error) });
        }
    }
}

impl Events {
    /// The next event; answers to commands are skipped. Half a line is lost when this is dropped half-way.
    pub(crate) async fn next(&mut self) -> Result<Event, Error> {
        loop {
            let message = self.lines.next().await?;
            if let Some(event) = message.get("event").and_then(Value::as_str) {
                return Ok(event_of(event, &message["data"]));
            }
        }
    }
}

impl Lines {
    async fn next(&mut self) -> Result<Value, Error> {
        let mut line = Vec::new();
        let read = (&mut self.0).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        match line.last() {
            None => Err(Error::Closed),
            Some(b'\n') => Ok(serde_json::from_slice(&line)?),
            Some(_) if read as u64 == MAX_LINE => Err(Error::TooLong),
            Some(_) => Err(Error::Closed),
        }
    }
}

fn event_of(name: &str, data: &Value) -> Event {
    match name {
        "VSERPORT_CHANGE" => Event::Port {
            id: data["id"].as_str().unwrap_or_default().to_string(),
            open: data["open"].as_bool().unwrap_or_default(),
        },
        "SHUTDOWN" => Event::Shutdown { reason: data["reason"].as_str().unwrap_or("unknown").to_string() },
        other => Event::Other(other.to_string()),
    }
}

fn brief(value: &Value) -> String {
    value.to_string().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn qemu_says(script: &[u8]) -> Result<Events, Error> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(script).await.unwrap();
        theirs.shutdown().await.unwrap();
        greet(ours).await
    }

    const HELLO: &str = "{\"QMP\": {\"version\": {}}}\n{\"return\": {}}\n";

    #[tokio::test]
    async fn events_come_through_and_answers_do_not() {
        let script = format!(
            "{HELLO}{}\n{}\n{}\n",
            r#"{"return": {"x": 1}}"#,
            r#"{"event": "VSERPORT_CHANGE", "data": {"open": true, "id": "agent"}}"#,
            r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#
        );
        let mut events = qemu_says(script.as_bytes()).await.unwrap();
        assert_eq!(events.next().await.unwrap(), Event::Port { id: "agent".into(), open: true });
        assert_eq!(events.next().await.unwrap(), Event::Shutdown { reason: "guest-reset".into() });
        assert!(matches!(events.next().await, Err(Error::Closed | Error::Io(_))));
    }

    #[tokio::test]
    async fn a_peer_that_is_not_qemu_is_refused() {
        assert!(matches!(qemu_says(b"{\"hello\": 1}\n").await, Err(Error::NoGreeting(_))));
        assert!(matches!(qemu_says(b"SSH-2.0\n").await, Err(Error::Unreadable(_))));
        assert!(matches!(qemu_says(b"").await, Err(Error::Closed)));
    }

    #[tokio::test]
    async fn the_channel_stays_open_while_events_are_awaited() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(HELLO.as_bytes()).await.unwrap();
        let _events = greet(ours).await.unwrap();
        let mut buffer = [0; 256];
        assert!(theirs.read(&mut buffer).await.unwrap() > 0);
        let end = tokio::time::timeout(std::time::Duration::from_millis(100), theirs.read(&mut buffer)).await;
        assert!(end.is_err(), "QEMU sees {end:?}");
    }

    #[tokio::test]
    async fn a_line_has_an_end() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let flood = tokio::spawn(async move {
            let chunk = [b'x'; 4096];
            while theirs.write_all(&chunk).await.is_ok() {}
        });
        assert!(matches!(greet(ours).await, Err(Error::TooLong)));
        flood.abort();
    }
}
