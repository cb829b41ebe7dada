//! What a consumer and its handlers may be told.

use std::time::Duration;

use onceward_core::Backoff;

use crate::BatchSettings;

/// How one handler is run. Set with [`ConsumerBuilder::with`](crate::ConsumerBuilder::with), or for all with
/// [`ConsumerBuilder::defaults`](crate::ConsumerBuilder::defaults).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerSettings {
    /// How long one attempt may take, a batch as a whole, 10 ms to one hour. It ends on the server as well. Default 30 s.
    pub deadline: Duration,
    /// How often the handler is tried before the message becomes a dead letter, at least 1. A batch that fails costs
    /// none: its messages are tried one by one. Default 10.
    pub attempts: u32,
    /// How many of it run at a time, at least 1, a batch counting as one; none: as many as the consumer runs. Default none.
    pub concurrency: Option<usize>,
    /// How long the key waits between attempts. Default: full jitter from 100 ms, at most 30 s.
    pub backoff: Backoff,
    /// Waits up to this long are in memory and hold the delivery; for longer ones the message moves to the database and
    /// the broker is told. Default 5 s.
    pub defer_after: Duration,
    /// How large batches become; for handlers of batches only.
    pub batch: BatchSettings,
}

impl Default for HandlerSettings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            attempts: 10,
            concurrency: None,
            backoff: Backoff::default(),
            defer_after: Duration::from_secs(5),
            batch: BatchSettings::default(),
        }
    }
}

impl HandlerSettings {
    /// What is wrong with them, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let range = Duration::from_millis(10)..=Duration::from_secs(3600);
        if !range.contains(&self.deadline) {
            Some("the deadline must be 10 ms to one hour")
        } else if self.attempts == 0 {
            Some("attempts must be at least 1")
        } else if self.concurrency == Some(0) {
            Some("concurrency must be at least 1")
        } else {
            self.batch.fault()
        }
    }
}

/// How much a consumer holds and runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How many deliveries are handled at a time, at most as many as the pool has connections. Messages that have waited in the database
    /// have a quarter as many places beside, at least one, and so has what is tried of paused types. If the pool has not a connection for
    /// each place and two beside (16 take 26), they have only the places that deliveries leave them. Default 16.
    pub concurrency: usize,
    /// How many deliveries are in memory. Default 1,000.
    pub messages: usize,
    /// How many bytes of deliveries are in memory, about; one larger message still passes. Default 64 MiB.
    pub bytes: usize,
    /// How far, counted in deliveries of one partition, the newest may be ahead of the oldest that is not
    /// settled; beyond that the partition is not read. Default 10,000.
    pub ahead: u64,
    /// How long a stop waits for what runs; after that it is cancelled and comes again. At most a day. Default 30 s.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrency: 16,
            messages: 1_000,
            bytes: 64 * 1024 * 1024,
            ahead: 10_000,
            grace: Duration::from_secs(30),
        }
    }
}

/// A clock cannot be set to any time that a `Duration` can tell.
const LONGEST_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

impl Limits {
    /// What is wrong with them, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.concurrency == 0 {
            Some("concurrency must be at least 1")
        } else if self.messages == 0 || self.bytes == 0 || self.ahead == 0 {
            Some("messages, bytes and ahead must be at least 1")
        } else if self.grace > LONGEST_GRACE {
            Some("grace must be at most a day")
        } else {
            None
        }
    }
}

/// When a type is paused: a bug or a dead dependency makes most of its messages fail. Its messages then wait in the database
/// without an attempt, for all members, and one at a time is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailingTypes {
    /// How many distinct messages of a type each member looks back at, at most 1,000: it is paused when twice as many have failed as
    /// were handled, and at least half of so many. 0: no type is ever paused. Default 20.
    pub recent: usize,
    /// How many messages of the consumer may wait in the database, about. Beyond it, messages of a paused type stay with the broker,
    /// and so does what comes after them in their partition. Default 100,000.
    pub deferred: u64,
    /// How often a message of a paused type is tried, 100 ms to one hour. Default 2 s.
    pub probe_every: Duration,
}

impl Default for FailingTypes {
    fn default() -> Self {
        Self {
            recent: 20,
            deferred: 100_000,
            probe_every: Duration::from_secs(2),
        }
    }
}

impl FailingTypes {
    /// What is wrong with them, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let range = Duration::from_millis(100)..=Duration::from_secs(3600);
        if self.recent > 1_000 {
            Some("recent must be at most 1,000")
        } else if !range.contains(&self.probe_every) {
            Some("probe_every must be 100 ms to one hour")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_that_no_clock_can_be_set_to_is_refused() {
        let of = |grace| Limits {
            grace,
            ..Limits::default()
        };

        assert_eq!(of(LONGEST_GRACE).fault(), None);
        assert!(of(Duration::MAX).fault().is_some());
    }
}
