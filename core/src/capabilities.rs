//! What a broker can promise. Tests and loops ask here, never for a broker's name.

use std::time::Duration;

/// What an adapter's broker can promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The broker's name in metrics, logs and dead letters.
    pub broker: &'static str,
    /// Whether messages of one key keep order.
    pub order: Order,
    /// How many messages of one key may be unconfirmed at a time.
    pub in_flight_per_key: InFlightPerKey,
    /// How long the broker itself drops a message that it has already; none: it does not.
    pub broker_dedupe: Option<Duration>,
    /// How long a consumer may hold a delivery in all, extensions included; none: for ever.
    pub hold_limit: Option<Duration>,
    /// Whether a delivery tells how often it came before.
    pub redelivery_count: bool,
    /// Whether deliveries have positions that grow along a partition.
    pub positions: bool,
    /// How long the broker keeps, and so may repeat, what was not acked, where it tells; none: it does not tell, or for ever.
    pub retention: Option<Duration>,
    /// The largest message in bytes, headers included, where the broker tells one.
    pub max_message: Option<u64>,
}

/// Whether messages of one key keep order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// They do.
    PerKey,
    /// They do not: a consumer promises once, not order.
    None,
}

/// How many messages of one key may be unconfirmed at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InFlightPerKey {
    /// Any number: the broker's protocol keeps them in order, also through a refusal.
    Any,
    /// One: the adapter keeps the followers back.
    One,
}
