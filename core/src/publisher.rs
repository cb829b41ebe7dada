//! The seam to a destination.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::{Capabilities, Message, PublishError, Receipts, Route};

/// A message and where it goes.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The broker's name for its topic.
    pub route: Route,
    /// The message; source, time and seq are set.
    pub message: Message,
    /// The run of a replay, so that the broker's own dedupe does not swallow it.
    pub replay: Option<Uuid>,
}

impl Outgoing {
    /// What the broker's own dedupe goes by: route, message id and replay run.
    #[must_use]
    pub fn dedupe_id(&self) -> String {
        match self.replay {
            Some(run) => format!("{}:{}:{run}", self.route, self.message.id),
            None => format!("{}:{}", self.route, self.message.id),
        }
    }
}

/// Messages offered together, in order.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The messages.
    pub messages: Vec<Outgoing>,
}

/// What a destination says about a route.
#[derive(Debug)]
pub struct TopicReport {
    /// The route asked for.
    pub route: Route,
    /// What is known of it, or why it cannot be published to now.
    pub state: Result<TopicState, PublishError>,
}

/// What is known of a route that can be published to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicState {
    /// The largest message in bytes, where the broker tells.
    pub max_message: Option<u64>,
    /// Settings of the broker that could lose or reorder messages, each with what to change.
    pub warnings: Vec<String>,
    /// Why such settings could not be read this time, if they could not: it can be published to, and what was not read is worth
    /// another question later.
    pub unread: Option<String>,
}

/// One session to one destination.
///
/// The caller:
/// - offers in order, one `offer` at a time (hence `&mut`), many pending;
/// - opens a new session once receipts say that this one is over, and starts at the oldest unconfirmed message.
///
/// The adapter:
/// - is gap-free: what the broker stores of one key is a prefix of what the session was offered, in order.
///   After any outcome of a message but `Confirmed` it sends nothing more of that key in this session; if it
///   cannot keep that, it ends the session;
/// - confirms a message only once the broker has it as durably as the broker can be told to;
/// - answers every offer by its deadline: what is not known then is `Unconfirmed`;
/// - never retries by itself in a way that could reorder, and never decides what becomes of a failed message;
/// - names a message guilty (`Failed`) only if the refused request held it alone, else `Suspect`.
pub trait Publisher: Send + 'static {
    /// Resolves to the receipts of one offer.
    type Pending: Future<Output = Receipts> + Send + 'static;

    /// What the broker promises.
    fn capabilities(&self) -> Capabilities;

    /// Returns once all of `batch` is handed over, in order: this await is the backpressure.
    ///
    /// # Cancel safety
    /// Cancelled, the session is over: some messages may be sent, none of them is known. They are published again.
    /// The pending future may be dropped at any time; its messages count as unconfirmed.
    fn offer(&mut self, batch: Arc<Batch>) -> impl Future<Output = Self::Pending> + Send;

    /// Reachability, existence and limits of routes: for start, probe and `doctor`. One report per route, in order.
    ///
    /// # Cancel safety
    /// Safe to drop.
    fn check(&mut self, routes: &[Route]) -> impl Future<Output = Vec<TopicReport>> + Send;

    /// Nothing that is not on the wire yet leaves after this returns. Takes at most a second.
    ///
    /// # Cancel safety
    /// Dropped, something may still leave; call it again or drop the publisher.
    fn abandon(&mut self) -> impl Future<Output = ()> + Send;

    /// Ends the session, giving what is on its way at most `within` to arrive.
    ///
    /// # Cancel safety
    /// Dropped, the session ends all the same and what was on its way is unconfirmed.
    fn close(self, within: Duration) -> impl Future<Output = ()> + Send;
}
