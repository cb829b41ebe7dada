//! One arrival at a consumer.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::{Message, Undecodable};

/// The broker's unit of order and ownership, by name: `orders.created/3` on Kafka, a durable on NATS.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(Arc<str>);

impl Partition {
    /// A partition of that name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a delivery came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The broker's name.
    pub broker: &'static str,
    /// The partition that it was read from.
    pub partition: Partition,
    /// Its position in the partition, where the broker has positions.
    pub position: Option<u64>,
    /// How often it was delivered before, where the broker tells.
    pub redelivered: Option<u32>,
    /// When the broker got it, where the broker tells.
    pub sent_at: Option<SystemTime>,
}

/// One arrival at a consumer, to be settled once and acked after that.
#[derive(Debug)]
pub struct Delivery<T> {
    /// The message, or what could be read of it.
    pub message: Result<Message, Box<Undecodable>>,
    /// Where it came from.
    pub origin: Origin,
    /// When the broker gives it to somebody else unless extended; none: never while we own the partition.
    pub deadline: Option<Instant>,
    /// What to ack it by.
    pub token: T,
}
