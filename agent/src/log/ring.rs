//! Records on their way to the clients of the log port.
//!
//! Each client has a place of its own in one queue. A record stays until every client has it, or, as long as there is
//! none, until one comes. The queue is bounded: the oldest records go first, and whoever missed some is told how many.
//! A client that reads nothing costs the others nothing but the room in the queue; the agent never waits for any.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tracing::Level;

use super::record::{Severity, record};

/// How many bytes of log wait for clients.
const CAPACITY: usize = 256 << 10;

/// Clients at a time. One is usual; an old one that nobody closed must not keep a new one out.
const CLIENTS: usize = 8;

/// The queue.
pub(crate) struct Ring {
    queue: Mutex<Queue>,
    /// The number of the next record, for those that wait for it.
    next: watch::Sender<u64>,
}

#[derive(Default)]
struct Queue {
    records: VecDeque<Arc<str>>,
    bytes: usize,
    /// The number of the first record in the queue.
    first: u64,
    /// Every record before this one has reached some client.
    delivered: u64,
    /// The next record of each client.
    clients: HashMap<u64, u64>,
    clients_ever: u64,
}

impl Default for Ring {
    fn default() -> Self {
        Self { queue: Mutex::default(), next: watch::Sender::new(0) }
    }
}

impl Ring {
    /// Takes a record.
    pub(super) fn push(&self, line: String) {
        let mut queue = self.queue();
        queue.bytes += line.len();
        queue.records.push_back(line.into());
        while queue.bytes > CAPACITY {
            queue.drop_first();
        }
        let next = queue.next();
        drop(queue);
        self.next.send_replace(next);
    }

    /// What no client has seen, the newest of it: for the console, when the agent ends and nobody will ask any more.
    pub(crate) fn unseen(&self, most: usize) -> Vec<Arc<str>> {
        let queue = self.queue();
        let from = queue.delivered.max(queue.first).max(queue.next().saturating_sub(most as u64));
        queue.records.iter().skip((from - queue.first) as usize).cloned().collect()
    }

    /// Sends records to a client until it goes away. A record that it did not take whole goes to the next one again.
    pub(crate) async fn serve(&self, client: impl AsyncRead + AsyncWrite) -> io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(client);
        let Some(place) = self.join() else { return Err(io::Error::other("there are too many clients")) };
        let mut arrived = self.next.subscribe();
        let send = async {
            loop {
                arrived.borrow_and_update();
                while let Some(line) = place.next() {
                    writer.write_all(line.as_bytes()).await?;
                    writer.flush().await?;
                    place.delivered();
                }
                if arrived.changed().await.is_err() {
                    return Ok(());
                }
            }
        };
        // Nobody has anything to say here. What reads is the end, also while there is nothing to send.
        let listen = async {
            let mut ignored = [0; 64];
            while reader.read(&mut ignored).await? > 0 {}
            Ok(())
        };
        tokio::select! {
            sent = send => sent,
            left = listen => left,
        }
    }

    fn join(&self) -> Option<Place<'_>> {
        let mut queue = self.queue();
        if queue.clients.len() >= CLIENTS {
            return None;
        }
        queue.clients_ever += 1;
        let (id, from) = (queue.clients_ever, queue.delivered);
        queue.clients.insert(id, from);
        Some(Place { ring: self, id })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic while the lock is held leaves at worst a wrong count behind.
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Queue {
    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn drop_first(&mut self) {
        if let Some(oldest) = self.records.pop_front() {
            self.bytes -= oldest.len();
            self.first += 1;
        }
    }

    /// Lets go of what every client has, and a client has had.
    fn trim(&mut self) {
        let wanted = self.clients.values().copied().fold(self.delivered, u64::min);
        while self.first < wanted {
            self.drop_first();
        }
    }
}

/// A client's place in the queue. It leaves when this is dropped.
struct Place<'a> {
    ring: &'a Ring,
    id: u64,
}

impl Place<'_> {
    /// The record that is due. What the client missed comes first, as a record of its own.
    fn next(&self) -> Option<Arc<str>> {
        let mut queue = self.ring.queue();
        let due = *queue.clients.get(&self.id)?;
        if due < queue.first {
            let missed = (queue.first - due).to_string();
            // One before the first: telling it is delivered as a record is.
            let at = queue.first - 1;
            queue.clients.insert(self.id, at);
            let message = format!("{missed} records were dropped before a client read them");
            let context = Map::from_iter([("dropped".to_string(), Value::String(missed))]);
            return Some(record(Severity::Level(Level::WARN), "log", message, context).into());
        }
        queue.records.get((due - queue.first) as usize).cloned()
    }

    fn delivered(&self) {
        let mut queue = self.ring.queue();
        let Some(due) = queue.clients.get_mut(&self.id) else { return };
        *due += 1;
        queue.delivered = (*due).max(queue.delivered);
        queue.trim();
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queue = self.ring.queue();
        queue.clients.remove(&self.id);
        queue.trim();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncBufReadExt as _, BufReader, DuplexStream};

    use super::*;

    struct Client {
        lines: tokio::io::Lines<BufReader<DuplexStream>>,
    }

    impl Client {
        /// A client with little room on its way.
        fn new(ring: &Arc<Ring>) -> Self {
            let (near, far) = tokio::io::duplex(64);
            let ring = ring.clone();
            tokio::spawn(async move { ring.serve(near).await });
            Self { lines: BufReader::new(far).lines() }
        }

        async fn line(&mut self) -> String {
            let line = tokio::time::timeout(Duration::from_secs(5), self.lines.next_line()).await;
            line.expect("a record in time").unwrap().expect("no end")
        }
    }

    fn push(ring: &Ring, from: usize, to: usize, size: usize) {
        for number in from..to {
            ring.push(format!("{number} {}\n", "x".repeat(size)));
        }
    }

    async fn settle(ring: &Ring, clients: usize) {
        for _ in 0..1000 {
            if ring.queue().clients.len() == clients {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{} clients, not {clients}", ring.queue().clients.len());
    }

    #[tokio::test]
    async fn records_wait_for_the_first_client_and_go_on_to_the_next() {
        let ring = Arc::<Ring>::default();
        push(&ring, 0, 3, 10);
        assert_eq!(ring.unseen(2).len(), 2);
        let mut first = Client::new(&ring);
        for number in 0..3 {
            assert!(first.line().await.starts_with(&format!("{number} ")));
        }
        // One that leaves while there is nothing to send is noticed all the same.
        settle(&ring, 1).await;
        drop(first);
        settle(&ring, 0).await;
        assert_eq!(ring.queue().bytes, 0);
        assert_eq!(ring.unseen(9).len(), 0);
        push(&ring, 3, 5, 10);
        let mut second = Client::new(&ring);
        assert!(second.line().await.starts_with("3 "));
        assert!(second.line().await.starts_with("4 "));
        push(&ring, 5, 6, 10);
        assert!(second.line().await.starts_with("5 "));
    }

    #[tokio::test]
    async fn a_record_that_did_not_arrive_whole_goes_to_the_next_client() {
        let ring = Arc::<Ring>::default();
        push(&ring, 0, 1, 1000);
        let first = Client::new(&ring);
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(first);
        settle(&ring, 0).await;
        assert_eq!(Client::new(&ring).line().await.len(), 1002);
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_loses_records_and_holds_nobody_up() {
        let ring = Arc::<Ring>::default();
        let mut stuck = Client::new(&ring);
        let mut reader = Client::new(&ring);
        settle(&ring, 2).await;
        let size = CAPACITY / 8;
        for number in 0..32 {
            push(&ring, number, number + 1, size);
            assert!(reader.line().await.starts_with(&format!("{number} ")));
        }
        assert!(ring.queue().bytes <= CAPACITY);
        assert!(stuck.line().await.starts_with("0 "), "this one was on its way");
        let missed: Value = serde_json::from_str(&stuck.line().await).unwrap();
        assert_eq!(missed["level"], "WARN");
        let dropped: usize = missed["dropped"].as_str().unwrap().parse().unwrap();
        assert!(stuck.line().await.starts_with(&format!("{} ", dropped + 1)), "{dropped}");
        for number in dropped + 2..32 {
            assert!(stuck.line().await.starts_with(&format!("{number} ")));
        }
        settle(&ring, 2).await;
        push(&ring, 32, 33, 1);
        assert!(stuck.line().await.starts_with("32 "));
    }

    #[tokio::test]
    async fn what_nobody_came_for_is_counted() {
        let ring = Arc::<Ring>::default();
        push(&ring, 0, 6, CAPACITY / 4 - 8);
        let mut client = Client::new(&ring);
        let missed: Value = serde_json::from_str(&client.line().await).unwrap();
        assert_eq!(missed["dropped"], "2");
        for number in 2..6 {
            assert!(client.line().await.starts_with(&format!("{number} ")));
        }
        drop(client);
        settle(&ring, 0).await;
        push(&ring, 6, 7, 1);
        assert!(Client::new(&ring).line().await.starts_with("6 "), "nothing was dropped this time");
    }

    #[tokio::test]
    async fn clients_beyond_the_most_are_turned_away() {
        let ring = Arc::<Ring>::default();
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::new(&ring)).collect();
        settle(&ring, CLIENTS).await;
        assert!(Client::new(&ring).lines.next_line().await.unwrap().is_none());
        clients.pop();
        settle(&ring, CLIENTS - 1).await;
        let mut another = Client::new(&ring);
        push(&ring, 0, 1, 1);
        assert!(another.line().await.starts_with("0 "));
    }
}
