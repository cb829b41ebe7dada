//! The handle to a broker in memory, and the switches by which a test makes it fail.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use onceward_core::{ErrorKind, Message, Outgoing, PublishError, Route};
use tokio::sync::watch;

use crate::state::State;
use crate::{MemoryPublisher, MemoryRecord, MemorySubscriber, headers};

const DEADLINE: Duration = Duration::from_secs(30);

/// A broker in memory. Clones are handles to the same broker.
///
/// Each topic is one partition, owned by one member of a group at a time. Topics come into being when they are first
/// used, unless [`refuse_unknown_topics`](Self::refuse_unknown_topics) was called.
#[derive(Clone)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
}

struct Shared {
    // A lock and not a task: every step is short and none of them waits, and users' tests may call without a runtime.
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBroker {
    /// A broker without topics.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: watch::Sender::new(()),
            }),
        }
    }

    /// Opens a session. A report that is held back makes its message unconfirmed after 30 s.
    #[must_use]
    pub fn publisher(&self) -> MemoryPublisher {
        self.publisher_with_deadline(DEADLINE)
    }

    /// Opens a session in which a report that is held back makes its message unconfirmed after `deadline`.
    #[must_use]
    pub fn publisher_with_deadline(&self, deadline: Duration) -> MemoryPublisher {
        MemoryPublisher::open(self.clone(), deadline)
    }

    /// Opens a member of a group, which reads these topics from their oldest message on.
    #[must_use]
    pub fn subscriber(&self, group: &str, topics: &[&str]) -> MemorySubscriber {
        MemorySubscriber::join(self.clone(), group, topics)
    }

    /// Stores a message under its topic, as a relay would.
    ///
    /// # Errors
    /// [`PublishError`] when the topic refuses it.
    pub fn publish(&self, message: Message) -> Result<(), PublishError> {
        let outgoing = Outgoing {
            route: Route::new(message.topic.as_str()),
            message,
            replay: None,
        };
        let headers = headers::encode(&outgoing)?;
        self.put(outgoing.route.as_str(), headers, outgoing.message.payload)
    }

    /// Stores a message of somebody else's, with headers as they come.
    ///
    /// # Errors
    /// [`PublishError`] when the topic refuses it.
    pub fn put(
        &self,
        topic: &str,
        headers: Vec<(String, Bytes)>,
        payload: Bytes,
    ) -> Result<(), PublishError> {
        let now = SystemTime::now();
        self.change(|state| state.topic(topic)?.store(headers, payload, now))
    }

    /// What a topic stores, oldest first.
    #[must_use]
    pub fn stored(&self, topic: &str) -> Vec<MemoryRecord> {
        let state = self.lock();
        let topic = state.topics.get(topic);
        topic.map_or_else(Vec::new, |topic| topic.records().cloned().collect())
    }

    /// From now on topics must be made by [`create_topic`](Self::create_topic) before they are used.
    pub fn refuse_unknown_topics(&self) {
        self.change(|state| state.strict = true);
    }

    /// Makes a topic.
    pub fn create_topic(&self, topic: &str) {
        self.change(|state| {
            state.topics.entry(topic.to_owned()).or_default();
        });
    }

    /// Limits a topic to messages of that many bytes, headers included; none: no limit. The topic is made if need be.
    pub fn limit_message(&self, topic: &str, bytes: Option<u64>) {
        self.change(|state| {
            state.topics.entry(topic.to_owned()).or_default().limit = bytes;
        });
    }

    /// Fills a topic, so that it refuses every message as [`ErrorKind::Throttled`], or empties it again.
    pub fn fill(&self, topic: &str, full: bool) {
        self.change(|state| state.topics.entry(topic.to_owned()).or_default().full = full);
    }

    /// Refuses the next `count` messages, of whatever topic.
    pub fn refuse_next(&self, count: usize, kind: ErrorKind) {
        self.change(|state| {
            state.refuse_next.extend(std::iter::repeat_n(kind, count));
        });
    }

    /// Stops: sessions end, members lose their partitions. What is stored stays.
    pub fn stop(&self) {
        self.change(State::stop);
    }

    /// Starts again after [`stop`](Self::stop).
    pub fn start(&self) {
        self.change(State::start);
    }

    /// Stores messages without reporting it, or reports again.
    pub fn withhold_reports(&self, withheld: bool) {
        self.change(|state| state.withheld = withheld);
    }

    /// Loses every ack, or takes acks again.
    pub fn drop_acks(&self, dropped: bool) {
        self.change(|state| state.acks_dropped = dropped);
    }

    /// Removes the oldest messages of a topic, as retention does, so that at most `keep` are left.
    pub fn forget(&self, topic: &str, keep: usize) {
        self.change(|state| {
            if let Some(topic) = state.topics.get_mut(topic) {
                topic.forget(keep);
            }
        });
    }

    /// Changes the state and wakes all who wait for a change.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.lock());
        self.shared.changed.send_replace(());
        result
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned lock means that a test panicked elsewhere; what is stored is still whole.
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of changes from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker").finish_non_exhaustive()
    }
}
