//! QMP, QEMU's control channel: JSON objects, one a line. Our side of the greeting, the events, and commands with their
//! answers.
//!
//! One owner holds both directions: [`Events`], whose [`next`](Events::next) also writes the commands that
//! [`Commands`] queue and hands each its answer. So events go on being followed while a command is under way.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

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
    Refused { command: String, text: String },
}

/// The channel, as a source of events. It holds the writing half too: QEMU takes its end for the end of the client.
pub(crate) struct Events {
    lines: Lines,
    write: OwnedWriteHalf,
    commands: mpsc::Receiver<Command>,
    /// Who waits for the answer to which command, by the id that went out with it.
    waiting: HashMap<u64, oneshot::Sender<Value>>,
    last_id: u64,
}

/// Where commands are given. Cheap to clone. They are carried out as long as somebody reads the [`Events`].
#[derive(Clone, Debug)]
pub(crate) struct Commands(mpsc::Sender<Command>);

#[derive(Debug)]
struct Command {
    name: String,
    arguments: Value,
    answer: oneshot::Sender<Value>,
}

struct Lines {
    reader: BufReader<OwnedReadHalf>,
    /// What was read of a line that has not ended yet.
    line: Vec<u8>,
}

/// Reads the greeting and leaves negotiation mode.
pub(crate) async fn greet(stream: UnixStream) -> Result<(Events, Commands), Error> {
    let (read, mut write) = stream.into_split();
    let mut lines = Lines { reader: BufReader::new(read), line: Vec::new() };
    let greeting = lines.next().await?;
    if greeting.get("QMP").is_none() {
        return Err(Error::NoGreeting(brief(&greeting)));
    }
    write.write_all(b"{\"execute\": \"qmp_capabilities\"}\n").await?;
    loop {
        let answer = lines.next().await?;
        if answer.get("return").is_some() {
            break;
        }
        if let Some(error) = answer.get("error") {
            return Err(Error::Refused { command: "qmp_capabilities".into(), text: brief(error) });
        }
    }
    let (queue, commands) = mpsc::channel(8);
    Ok((Events { lines, write, commands, waiting: HashMap::new(), last_id: 0 }, Commands(queue)))
}

impl Commands {
    /// Has QEMU execute a command, and returns what it returns.
    pub(crate) async fn execute(&self, name: &str, arguments: Value) -> Result<Value, Error> {
        let (answer, answered) = oneshot::channel();
        let command = Command { name: name.into(), arguments, answer };
        self.0.send(command).await.map_err(|_| Error::Closed)?;
        let mut answer = answered.await.map_err(|_| Error::Closed)?;
        match answer.get("error") {
            Some(error) => {
                let text = error["desc"].as_str().map_or_else(|| brief(error), String::from);
                Err(Error::Refused { command: name.into(), text })
            }
            None => Ok(answer["return"].take()),
        }
    }
}

impl Events {
    /// The next event. May be dropped while it waits for one, and called again.
    pub(crate) async fn next(&mut self) -> Result<Event, Error> {
        loop {
            tokio::select! {
                message = self.lines.next() => {
                    let message = message?;
                    if let Some(event) = message.get("event").and_then(Value::as_str) {
                        return Ok(event_of(event, &message["data"]));
                    }
                    let asker = message["id"].as_u64().and_then(|id| self.waiting.remove(&id));
                    if let Some(asker) = asker {
                        // Who asked may have given up.
                        let _ = asker.send(message);
                    }
                }
                Some(command) = self.commands.recv() => self.send(command).await?,
            }
        }
    }

    async fn send(&mut self, command: Command) -> Result<(), Error> {
        self.last_id += 1;
        let mut line = json!({"execute": command.name, "arguments": command.arguments, "id": self.last_id});
        if command.arguments.is_null() {
            line["arguments"] = json!({});
        }
        self.waiting.insert(self.last_id, command.answer);
        self.write.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(())
    }
}

impl Lines {
    /// The next line. What it has read so far stays for the next call when it is dropped half-way.
    async fn next(&mut self) -> Result<Value, Error> {
        let room = MAX_LINE - self.line.len() as u64;
        (&mut self.reader).take(room).read_until(b'\n', &mut self.line).await?;
        match self.line.last() {
            None => Err(Error::Closed),
            Some(b'\n') => Ok(serde_json::from_slice(&std::mem::take(&mut self.line))?),
            Some(_) if self.line.len() as u64 == MAX_LINE => Err(Error::TooLong),
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

    async fn qemu_says(script: &[u8]) -> Result<(Events, Commands), Error> {
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
        let (mut events, _commands) = qemu_says(script.as_bytes()).await.unwrap();
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
        let (_events, commands) = greet(ours).await.unwrap();
        drop(commands);
        let mut buffer = [0; 256];
        assert!(theirs.read(&mut buffer).await.unwrap() > 0);
        let end = tokio::time::timeout(std::time::Duration::from_millis(100), theirs.read(&mut buffer)).await;
        assert!(end.is_err(), "QEMU sees {end:?}");
    }

    #[tokio::test]
    async fn each_command_gets_its_own_answer_while_events_come() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (read, mut write) = theirs.into_split();
        write.write_all(HELLO.as_bytes()).await.unwrap();
        let (mut events, commands) = greet(ours).await.unwrap();
        let qemu = tokio::spawn(async move {
            let mut lines = BufReader::new(read).lines();
            let mut ids = Vec::new();
            while ids.len() < 2 {
                let line: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
                match line["execute"].as_str().unwrap() {
                    "qmp_capabilities" => {}
                    name => ids.push((name.to_string(), line["id"].clone(), line["arguments"].clone())),
                }
            }
            // In the order opposite to that of the questions, with an event in between and a line that comes in two.
            ids.sort_by_key(|(name, ..)| std::cmp::Reverse(name.clone()));
            for (name, id, arguments) in ids {
                let answer = match name.as_str() {
                    "refused" => json!({"error": {"class": "GenericError", "desc": "no"}, "id": id}),
                    _ => json!({"return": {"echo": arguments}, "id": id}),
                };
                let text = format!("{}\n{answer}\n", json!({"event": "RESUME", "data": {}}));
                let (first, second) = text.as_bytes().split_at(text.len() - 5);
                write.write_all(first).await.unwrap();
                tokio::task::yield_now().await;
                write.write_all(second).await.unwrap();
            }
            write
        });
        let follower = tokio::spawn(async move {
            let mut seen = 0;
            while let Ok(event) = events.next().await {
                assert_eq!(event, Event::Other("RESUME".into()));
                seen += 1;
            }
            seen
        });
        let (echo, refused) =
            tokio::join!(commands.execute("echo", json!({"a": 1})), commands.execute("refused", Value::Null));
        assert_eq!(echo.unwrap(), json!({"echo": {"a": 1}}));
        assert_eq!(refused.unwrap_err().to_string(), "refused: no");
        drop(qemu.await.unwrap());
        assert_eq!(follower.await.unwrap(), 2);
        assert!(matches!(commands.execute("late", Value::Null).await, Err(Error::Closed)));
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
