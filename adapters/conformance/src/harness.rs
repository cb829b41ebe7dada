//! What the suite needs of a broker: routes, sessions, members, a raw view and a hand on its switches.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::{Publisher, Route, SubscribeError, Subscriber};

/// A broker under test, of one adapter.
///
/// Its methods panic when the broker does not do what it is told: then the test could not be set up.
pub trait Harness: Sized + Send + Sync + 'static {
    /// The adapter's publisher.
    type Publisher: Publisher;
    /// The adapter's subscriber.
    type Subscriber: Subscriber;

    /// A broker for one case, reachable and running.
    fn start(sharing: Sharing) -> impl Future<Output = Self> + Send;

    /// Makes a route that nobody else uses, with that many partitions where the broker has partitions.
    ///
    /// It stores messages up to a limit of at least 1,040,000 bytes until [`Control::Limit`] says otherwise.
    fn route(&self, partitions: u16) -> impl Future<Output = Route> + Send;

    /// Opens a session. A message whose report does not come within `deadline` is unconfirmed.
    fn publisher(&self, deadline: Duration) -> impl Future<Output = Self::Publisher> + Send;

    /// Opens one member of a group.
    fn subscriber(
        &self,
        member: &Member,
    ) -> impl Future<Output = Result<Self::Subscriber, SubscribeError>> + Send;

    /// What the broker stores of a route, per key in the order in which it came. Read without the adapter.
    fn stored(&self, route: &Route) -> impl Future<Output = Vec<Record>> + Send;

    /// Does something to the broker behind the backs of open sessions and members.
    fn control(&self, control: Control<'_>) -> impl Future<Output = Offer> + Send;
}

/// Whether a case may share its broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Other cases may use it at the same time, under other routes and groups.
    Shared,
    /// The case stops it, holds its reports back or limits it: it needs one of its own.
    Own,
}

/// Who reads what.
#[derive(Debug, Clone)]
pub struct Member {
    /// The group that shares the routes; messages from before its first member are read too.
    pub group: String,
    /// What is read.
    pub routes: Vec<Route>,
    /// How long the broker waits for a member that went away without a word, and for a delivery that nobody acks
    /// where it has such a deadline; the nearest that the broker can do.
    pub hold: Duration,
}

/// A message as the broker stores it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Its key, where the protocol has a place for one outside the headers.
    pub key: Option<Bytes>,
    /// Names and values as stored.
    pub headers: Vec<(String, Bytes)>,
    /// The payload.
    pub payload: Bytes,
}

/// Something done to the broker.
#[derive(Debug, Clone)]
pub enum Control<'a> {
    /// The broker crashes. It keeps what it has confirmed.
    Stop,
    /// It comes back under its old address.
    Start,
    /// A route takes no message larger than that from now on; sessions that are open are not told.
    Limit {
        /// The route.
        route: &'a Route,
        /// Bytes.
        bytes: u32,
    },
    /// A route is full and takes nothing, or takes messages again.
    Full {
        /// The route.
        route: &'a Route,
        /// Whether it is full.
        full: bool,
    },
    /// What the broker answers to sessions and members no longer reaches them, while what they send still reaches it; or it does again.
    Withhold(bool),
    /// Retention removes the oldest messages of a route so that only the newest `keep` are left.
    Forget {
        /// The route.
        route: &'a Route,
        /// How many are left.
        keep: u64,
    },
    /// Somebody else publishes to a route, with whatever headers.
    Put {
        /// The route.
        route: &'a Route,
        /// The message.
        record: &'a Record,
    },
    /// The group is set up, before its first member, in a way that would lose messages or order.
    Misconfigure(&'a Member),
}

/// Whether a broker could do what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Offer {
    /// It is done.
    Done,
    /// This broker has no such switch: what hangs on it is reported as not promised.
    NotOffered,
}
