//! Kills for lack of memory, on their way from the kernel to whoever asks with `GetOOMEvent`.
//!
//! Each kill is one event, and an event is given to one caller. Three things could lose it between the queue and the
//! host, and none does:
//!
//! - A caller that goes away, or whose time is up, while it waits: nothing was taken for it yet, or it is put back.
//! - A caller whose connection breaks with the answer under way: an event counts as delivered when its caller asks again,
//!   or is still connected a moment later; otherwise it is put back.
//! - A caller that has given up without a word, on a connection that lives on: whoever asked last is served first, and
//!   one that has given up is not the last to ask.
//!
//! The queue holds a count for each container, so a storm in one of them takes no more room than one event.

mod watch;

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

pub(crate) use watch::{Init, Watch};

/// How long a caller must stay connected after its answer, or ask again, for the answer to count as delivered.
const DELIVERY: Duration = Duration::from_millis(250);

/// For how many containers events are kept. Nobody has asked for a long time when so many have come and gone.
const CONTAINERS: usize = 4096;

/// What stands for a caller's connection: alive for as long as the connection is.
pub(crate) type Caller = Arc<dyn Any + Send + Sync>;

/// The sandbox ends, and no more events come.
#[derive(Debug, thiserror::Error)]
#[error("out-of-memory events: the sandbox ends")]
pub(crate) struct Closed;

/// The events of all containers.
#[derive(Default)]
pub(crate) struct Events(Mutex<State>);

#[derive(Default)]
struct State {
    /// By container, in the order of their first event, with how many there are.
    pending: VecDeque<(String, u64)>,
    /// In the order in which they asked.
    waiting: Vec<oneshot::Sender<String>>,
    /// Answered, and not known to be delivered.
    under_way: Vec<UnderWay>,
    count: u64,
    /// All kills that were told of.
    told: u64,
    closed: bool,
}

struct UnderWay {
    number: u64,
    caller: Weak<dyn Any + Send + Sync>,
    container: String,
}

/// A caller that waits. Dropped, it puts back what was meant for it.
struct Waiting<'e> {
    events: &'e Events,
    answer: oneshot::Receiver<String>,
}

impl Events {
    /// The kernel has killed in a container, so many times.
    pub(crate) fn push(&self, container: &str, times: u64) {
        let mut state = self.state();
        state.told += times;
        for _ in 0..times {
            state.add(container, false);
        }
    }

    /// How many kills were told of so far.
    pub(crate) fn told(&self) -> u64 {
        self.state().told
    }

    /// Waits for the next event: the id of its container.
    pub(crate) async fn next(self: &Arc<Self>, caller: &Caller) -> Result<String, Closed> {
        let mut waiting = {
            let mut state = self.state();
            // Who asks again has its last answer.
            let caller = Arc::downgrade(caller);
            state.under_way.retain(|answer| !Weak::ptr_eq(&answer.caller, &caller));
            if state.closed {
                return Err(Closed);
            }
            let (sender, answer) = oneshot::channel();
            match state.take() {
                // The receiver is right here.
                Some(container) => drop(sender.send(container)),
                None => state.waiting.push(sender),
            }
            Waiting { events: self, answer }
        };
        let container = (&mut waiting.answer).await.map_err(|_| Closed)?;
        self.answered(caller, container.clone());
        Ok(container)
    }

    /// Ends every wait, now and later.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.waiting.clear();
    }

    fn answered(self: &Arc<Self>, caller: &Caller, container: String) {
        let mut state = self.state();
        state.count += 1;
        let number = state.count;
        state.under_way.push(UnderWay { number, caller: Arc::downgrade(caller), container });
        drop(state);
        let events = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(DELIVERY).await;
            events.settle(number);
        });
    }

    fn settle(&self, number: u64) {
        let mut state = self.state();
        let Some(at) = state.under_way.iter().position(|answer| answer.number == number) else { return };
        let answer = state.under_way.swap_remove(at);
        if answer.caller.strong_count() == 0 {
            state.add(&answer.container, true);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    /// One event for whoever asked last, or else for the queue; to its front if it was taken out before.
    fn add(&mut self, container: &str, again: bool) {
        let mut container = container.to_string();
        while let Some(caller) = self.waiting.pop() {
            match caller.send(container) {
                Ok(()) => return,
                Err(unsent) => container = unsent,
            }
        }
        let known = self.pending.iter().position(|(known, _)| *known == container);
        let times = known.and_then(|at| self.pending.remove(at)).map_or(0, |(_, times)| times);
        match (again, known) {
            (true, _) => self.pending.push_front((container, times + 1)),
            (false, Some(at)) => self.pending.insert(at, (container, times + 1)),
            (false, None) => self.pending.push_back((container, 1)),
        }
        if self.pending.len() > CONTAINERS
            && let Some((container, times)) = self.pending.pop_front()
        {
            tracing::error!(container, times, "nobody asks for out-of-memory events: the oldest are dropped");
        }
    }

    /// The first event. The others of its container wait behind those of other containers.
    fn take(&mut self) -> Option<String> {
        let (container, times) = self.pending.pop_front()?;
        if times > 1 {
            self.pending.push_back((container.clone(), times - 1));
        }
        Some(container)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.answer.close();
        if let Ok(container) = self.answer.try_recv() {
            self.events.state().add(&container, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Caller {
        Arc::new(())
    }

    async fn soon(events: &Arc<Events>, caller: &Caller) -> Option<String> {
        let next = tokio::time::timeout(Duration::from_millis(20), events.next(caller));
        next.await.ok().map(|event| event.unwrap())
    }

    #[tokio::test]
    async fn each_kill_is_one_event_and_containers_take_turns() {
        let (events, caller) = (Arc::<Events>::default(), caller());
        events.push("a", 3);
        events.push("b", 1);
        let mut got = Vec::new();
        while let Some(event) = soon(&events, &caller).await {
            got.push(event);
        }
        assert_eq!(got, ["a", "b", "a", "a"]);
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_takes_nothing_along() {
        let (events, caller) = (Arc::<Events>::default(), caller());
        assert_eq!(soon(&events, &caller).await, None);
        events.push("a", 1);
        assert_eq!(soon(&events, &caller).await.as_deref(), Some("a"));
        // Given up between the event and the caller's next turn.
        let mut next = Box::pin(events.next(&caller));
        assert!(futures::poll!(&mut next).is_pending());
        events.push("b", 1);
        drop(next);
        assert_eq!(soon(&events, &caller).await.as_deref(), Some("b"));
        assert_eq!(soon(&events, &caller).await, None);
    }

    #[tokio::test]
    async fn whoever_asked_last_is_served_first() {
        let (events, caller) = (Arc::<Events>::default(), caller());
        let mut forgotten = Box::pin(events.next(&caller));
        assert!(futures::poll!(&mut forgotten).is_pending());
        let mut alive = Box::pin(events.next(&caller));
        assert!(futures::poll!(&mut alive).is_pending());
        events.push("a", 1);
        assert_eq!(alive.await.unwrap(), "a");
        assert!(futures::poll!(&mut forgotten).is_pending());
    }

    #[tokio::test]
    async fn what_a_broken_connection_took_comes_back() {
        let (events, broken, other) = (Arc::<Events>::default(), caller(), caller());
        events.push("a", 1);
        assert_eq!(events.next(&broken).await.unwrap(), "a");
        drop(broken);
        assert_eq!(soon(&events, &other).await, None, "it is not known yet");
        assert_eq!(events.next(&other).await.unwrap(), "a");
        // Still connected a moment later: delivered.
        tokio::time::sleep(DELIVERY * 2).await;
        drop(other);
        let third = caller();
        assert_eq!(soon(&events, &third).await, None);
    }

    #[tokio::test]
    async fn who_asks_again_has_its_last_answer() {
        let (events, loops, other) = (Arc::<Events>::default(), caller(), caller());
        events.push("a", 1);
        assert_eq!(events.next(&loops).await.unwrap(), "a");
        assert_eq!(soon(&events, &loops).await, None);
        drop(loops);
        tokio::time::sleep(DELIVERY * 2).await;
        assert_eq!(soon(&events, &other).await, None, "it would come twice");
    }

    #[tokio::test]
    async fn the_end_of_the_sandbox_ends_every_wait() {
        let (events, caller) = (Arc::<Events>::default(), caller());
        let mut next = Box::pin(events.next(&caller));
        assert!(futures::poll!(&mut next).is_pending());
        events.close();
        assert!(next.await.is_err());
        assert!(events.next(&caller).await.is_err());
    }

    #[test]
    fn the_queue_is_bounded() {
        let events = Events::default();
        for container in 0..CONTAINERS + 10 {
            events.push(&container.to_string(), 2);
        }
        let pending = &events.state().pending;
        assert_eq!((pending.len(), pending[0].0.as_str()), (CONTAINERS, "10"));
    }
}
