//! The seam from a broker to a consumer.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant, SystemTime};

use crate::{Capabilities, Delivery, Partition, SubscribeError};

/// What comes from a broker.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all arrivals are deliveries; boxing them would cost an allocation each"
)]
pub enum Arrival<T> {
    /// A message to handle.
    Delivery(Delivery<T>),
    /// This member owns the partition from now on.
    Assigned(Partition),
    /// This member is about to lose the partition: start nothing new of it, finish what runs, ack, then drop `release`.
    Revoking {
        /// The partition.
        partition: Partition,
        /// How long the broker waits.
        within: Duration,
        /// Dropping it gives the partition back.
        release: Release,
    },
    /// This member has lost the partition: ack nothing of it any more.
    Lost(Partition),
    /// The broker's retention removed messages that were never delivered.
    Jumped {
        /// The partition.
        partition: Partition,
        /// The position expected.
        from: u64,
        /// The position delivered instead.
        to: u64,
    },
}

/// Gives a revoked partition back when dropped.
pub struct Release(Option<Box<dyn FnOnce() + Send>>);

impl Release {
    /// A release that calls `give_back` once, when dropped.
    pub fn new(give_back: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(give_back)))
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        if let Some(give_back) = self.0.take() {
            give_back();
        }
    }
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Release")
    }
}

/// What waits at the broker for this consumer in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// The partition.
    pub partition: Partition,
    /// How many messages are not acked.
    pub count: u64,
    /// When the oldest of them was sent, where the broker tells.
    pub oldest: Option<SystemTime>,
}

/// One member of a consumer, reading from one broker.
///
/// The caller acks a delivery only after it is settled durably. Not calling [`next`](Self::next) is the pause: the adapter
/// heartbeats on its own and its buffer is bounded.
///
/// The adapter gives each partition to one owner at a time and, where its broker keeps order, delivers a partition in order
/// and after a takeover begins at or before the oldest delivery that was not acked.
pub trait Subscriber: Send + 'static {
    /// What a delivery is acked by.
    type Token: Clone + Send + Sync + 'static;
    /// Acks from any task.
    type Acker: Acker<Token = Self::Token>;

    /// What the broker promises.
    fn capabilities(&self) -> Capabilities;

    /// A handle that acks.
    fn acker(&self) -> Self::Acker;

    /// Waits for arrivals, at most `room` of them deliveries. Without room it waits for all others: a change of what this member owns
    /// must be heard of while there is no room, too.
    ///
    /// # Errors
    /// [`SubscribeError`]; by its kind the caller waits and calls again, or refuses to run.
    ///
    /// # Cancel safety
    /// Safe to drop: nothing that arrived is lost.
    fn next(
        &mut self,
        room: usize,
    ) -> impl Future<Output = Result<Vec<Arrival<Self::Token>>, SubscribeError>> + Send;

    /// Stops or resumes reading of one partition, without stopping the others.
    fn pause(&mut self, partition: &Partition, paused: bool);

    /// What waits at the broker, per partition owned by this member.
    ///
    /// # Errors
    /// [`SubscribeError`] when the broker does not tell now; try again later.
    ///
    /// # Cancel safety
    /// Safe to drop.
    fn backlog(&mut self) -> impl Future<Output = Result<Vec<Backlog>, SubscribeError>> + Send;

    /// Leaves the consumer, giving acks on their way at most `within`.
    ///
    /// # Cancel safety
    /// Dropped, the member leaves all the same; acks on their way may be lost, and their deliveries come again.
    fn close(self, within: Duration) -> impl Future<Output = ()> + Send;
}

/// Acks, returns and extends deliveries, from any task.
pub trait Acker: Clone + Send + Sync + 'static {
    /// What a delivery is acked by.
    type Token: Clone + Send + Sync + 'static;

    /// Tells the broker that deliveries are settled. One that is unknown or expired is ignored: it comes again and its mark drops it.
    ///
    /// # Errors
    /// [`SubscribeError`]: some may not be acked; they come again.
    ///
    /// # Cancel safety
    /// Dropped, any of them may be acked or not.
    fn ack(
        &self,
        tokens: Vec<Self::Token>,
    ) -> impl Future<Output = Result<(), SubscribeError>> + Send;

    /// Gives deliveries back unsettled, to come again after about `after`. Best effort: brokers with positions do nothing.
    ///
    /// # Errors
    /// [`SubscribeError`]: they come again when the broker's own deadline ends.
    ///
    /// # Cancel safety
    /// As for [`ack`](Self::ack).
    fn give_back(
        &self,
        tokens: Vec<Self::Token>,
        after: Duration,
    ) -> impl Future<Output = Result<(), SubscribeError>> + Send;

    /// Asks for more time. Gives the deadlines that hold from now on, in order; none: no deadline. One that could not be extended
    /// keeps the deadline that it had; one that is no longer this member's gets a deadline that has passed.
    ///
    /// # Errors
    /// [`SubscribeError`] when none could be extended, as far as is known: count on the deadlines as they were.
    ///
    /// # Cancel safety
    /// Safe to drop.
    fn extend(
        &self,
        tokens: Vec<Self::Token>,
    ) -> impl Future<Output = Result<Vec<Option<Instant>>, SubscribeError>> + Send;

    /// Has the member receive nothing more and give back what it has received and not handed out, or receive again. Of a member
    /// that rests, also what [`give_back`](Self::give_back) names goes back only once nothing is being received: it must not come
    /// to the same member again.
    ///
    /// For adapters of brokers that limit how long a delivery may be held ([`Capabilities::hold_limit`]), which give each delivery
    /// to one member alone. Others have no use for it: what they give back comes to the owner of its partition again.
    fn rest(&self, resting: bool) {
        let _ = resting;
    }
}
