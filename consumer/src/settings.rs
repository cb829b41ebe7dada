//! What a consumer and its handlers may be told.

use std::time::Duration;

use onceward_core::Backoff;
use sqlx::PgPool;
use tracing::debug;

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
    /// How many handlers run at a time; at most as many as the pool has connections. Default 16.
    pub concurrency: usize,
    /// How many deliveries are in memory. Default 1,000.
    pub messages: usize,
    /// How many bytes of deliveries are in memory, about; one larger message still passes. Default 64 MiB.
    pub bytes: usize,
    /// How far, counted in deliveries of one partition, the newest may be ahead of the oldest that is not
    /// settled; beyond that the partition is not read. Default 10,000.
    pub ahead: u64,
    /// How long a stop waits for what runs; after that it is cancelled and comes again. Default 30 s.
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

impl Limits {
    /// Each handler holds a connection: more of them than the pool has would only wait for one another.
    pub(crate) fn of_pool(&self, pool: &PgPool) -> Self {
        let connections = pool.options().get_max_connections();
        let connections = usize::try_from(connections).unwrap_or(usize::MAX).max(1);
        let mut limits = self.clone();
        if limits.concurrency > connections {
            debug!(
                connections,
                wanted = limits.concurrency,
                "the pool limits the concurrency"
            );
            limits.concurrency = connections;
        }
        limits
    }

    /// What is wrong with them, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.concurrency == 0 {
            Some("concurrency must be at least 1")
        } else if self.messages == 0 || self.bytes == 0 || self.ahead == 0 {
            Some("messages, bytes and ahead must be at least 1")
        } else {
            None
        }
    }
}
