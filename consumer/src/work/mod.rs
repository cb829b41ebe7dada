//! What a member works on: a delivery, or a message that has waited. It runs, waits, and runs again, as the plan says.

mod batch;
mod delivery;
mod guard;
mod pause;
mod retry;
#[cfg(test)]
mod testing;
mod told;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use onceward_core::{Message, Origin, Undecodable};
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::HandlerSettings;
use crate::age::is_in_doubt;
use crate::alarm::Alarm;
use crate::clock::DatabaseClock;
use crate::faults::{Bug, planted};
use crate::handler::AnyHandler;
use crate::health::Health;
use crate::history::History;
use crate::keeper::Keeper;
use crate::mark::Mark;
use crate::meters::Meters;
use crate::plan::{Outcome, Tally};
use crate::room::Room;
use crate::router::{Route, choose};
use crate::transaction::{Database, DueLine, Ran};
use crate::trial::Trial;
use crate::types::Types;

/// What all work shares.
#[derive(Debug)]
pub(crate) struct Workshop {
    pub(crate) database: Database,
    pub(crate) routes: Vec<Route>,
    pub(crate) defaults: HandlerSettings,
    pub(crate) clock: DatabaseClock,
    pub(crate) health: Health,
    pub(crate) meters: Meters,
    /// Ends handlers at the end of the grace.
    pub(crate) kill: CancellationToken,
    /// Which types fail.
    pub(crate) types: Types,
    /// The starts of handlers.
    pub(crate) keeper: Keeper,
    /// Where handlers run, beside one another or alone.
    pub(crate) room: &'static Room,
}

/// How many failures in a row to settle a message are not worth a word to a person: most troubles are short.
const SHORT: u32 = 3;

/// What was delivered.
#[derive(Debug)]
pub(crate) enum Body {
    Message(Arc<Message>),
    Undecodable(Box<Undecodable>),
}

/// A delivery whose turn has come.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) number: u64,
    pub(crate) body: Body,
    pub(crate) mark: Mark,
    pub(crate) origin: Origin,
    pub(crate) route: Option<usize>,
    /// Whether it may have been in work when a process died.
    pub(crate) suspect: bool,
    /// Ends its waits: nothing new is started of it.
    pub(crate) leave: CancellationToken,
    /// Rings when an attempt does not end at its deadline.
    pub(crate) alarm: Alarm,
}

impl Job {
    /// None: it could not be read as one.
    fn message(&self) -> Option<&Message> {
        match &self.body {
            Body::Message(message) => Some(message),
            Body::Undecodable(_) => None,
        }
    }
}

/// A due line whose turn has come.
#[derive(Debug)]
pub(crate) struct DueJob {
    pub(crate) number: u64,
    pub(crate) due: DueLine,
    /// It is tried for all of its type, which is paused.
    pub(crate) trial: Option<Trial>,
    /// As of a [`Job`].
    pub(crate) leave: CancellationToken,
    pub(crate) alarm: Alarm,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) number: u64,
    /// None: it is not settled and comes again.
    pub(crate) outcome: Option<Outcome>,
    pub(crate) then: Then,
}

/// What its line has due because of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Then {
    /// Nothing, as far as it knows.
    Nothing,
    /// A message after this long, which is to be looked for.
    Due(Duration),
    /// The next message already, and the line is still ours: it need not be looked for.
    GoesOn(DueLine),
}

/// What a worker came to.
#[derive(Debug)]
pub(crate) enum Done {
    One(Report),
    Batch(Vec<Fate>),
}

/// What became of one delivery of a batch.
#[derive(Debug)]
pub(crate) enum Fate {
    Settled(u64, Outcome),
    /// Its turn is to come again; true: alone.
    Again(Box<Job>, bool),
    /// It is not settled and comes again.
    Left(u64),
}

/// What the attempts at a message have come to so far.
#[derive(Debug, Default)]
struct Past {
    tally: Tally,
    history: History,
}

impl Past {
    /// Counts a run, and keeps what it failed with if it was an attempt. True: it was.
    fn add(&mut self, ran: &Ran, began: (OffsetDateTime, Instant)) -> bool {
        let before = self.tally.attempts;
        self.tally = self.tally.count(ran.run);
        let counts = self.tally.attempts > before;
        if counts {
            let (at, since) = began;
            let (number, took) = (self.tally.attempts, since.elapsed());
            self.history.add(number, at, took, ran.error.clone());
        }
        counts
    }
}

/// Tasks are spawned here and not in the loop of a member: that one is generic, and each crate that runs a consumer would compile all of
/// the work anew.
impl Workshop {
    /// Spawns the work on a delivery into `workers`.
    pub(crate) fn spawn(self: Arc<Self>, job: Job, workers: &mut JoinSet<Done>) {
        workers.spawn(async { Done::One(self.work(job).await) });
    }

    /// As [`spawn`](Self::spawn), on several deliveries in one transaction, or on a single one by itself.
    pub(crate) fn spawn_batch(self: Arc<Self>, jobs: Vec<Job>, workers: &mut JoinSet<Done>) {
        workers.spawn(async move {
            match <[Job; 1]>::try_from(jobs) {
                Ok([job]) => Done::One(self.work(job).await),
                Err(jobs) => Done::Batch(self.work_on_batch(jobs).await),
            }
        });
    }

    /// As [`spawn`](Self::spawn), on a due line.
    pub(crate) fn spawn_due(self: Arc<Self>, job: DueJob, workers: &mut JoinSet<Done>) {
        workers.spawn(async { Done::One(self.retry(job).await) });
    }
}

impl Workshop {
    /// The place of the route of a type.
    pub(crate) fn route_of(&self, kind: &str) -> Option<usize> {
        choose(&self.routes, kind)
    }

    pub(crate) fn settings(&self, route: Option<usize>) -> &HandlerSettings {
        route
            .and_then(|place| self.routes.get(place))
            .and_then(|route| route.settings.as_ref())
            .unwrap_or(&self.defaults)
    }

    /// None: the type has no route. `Some(None)`: it is ignored.
    fn handler(&self, route: Option<usize>) -> Option<Option<&dyn AnyHandler>> {
        let route = self.routes.get(route?)?;
        Some(route.handler.as_deref())
    }

    /// Whether there is a handler for a type.
    pub(crate) fn handles(&self, kind: &str) -> bool {
        matches!(self.handler(self.route_of(kind)), Some(Some(_)))
    }

    /// Waits out an outage. None: the delivery must be left.
    async fn pause(&self, error: &str, delay: Duration, leave: &CancellationToken) -> Option<()> {
        self.health.outage(error);
        wait(delay, leave).await?;
        tokio::select! {
            biased;
            () = leave.cancelled() => None,
            () = self.health.wait_until_up() => Some(()),
        }
    }
}

/// Waits. None: the delivery must be left.
async fn wait(delay: Duration, leave: &CancellationToken) -> Option<()> {
    tokio::select! {
        biased;
        () = leave.cancelled() => None,
        () = tokio::time::sleep(delay) => Some(()),
    }
}

/// Whether a message may be older than its mark.
fn is_doubtful(message: &Message, origin: &Origin, now: OffsetDateTime) -> bool {
    let written = message.time.map(SystemTime::from);
    is_in_doubt(origin, written, now.into())
}

/// Whether a message is of no use any more.
fn has_expired(message: &Message, now: OffsetDateTime) -> bool {
    let now = if planted(Bug::ExpiryByOwnClock) {
        OffsetDateTime::now_utc()
    } else {
        now
    };
    message.expires_at().is_some_and(|at| at <= now)
}
