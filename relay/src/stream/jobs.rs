//! What a stream waits for: each job takes its tool along and brings it back with the result.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use onceward::{Brought, Keeper, LogError, LogReader, Quiet, Snapshot};
use onceward_core::{PublishError, Publisher, Receipts, Route, TopicReport};
use tokio::time::timeout;
use tracing::{debug, error, warn};

use super::keeping::Kept;
use crate::destination::Destination;
use crate::pace::WATCH_FOR;
use crate::plan::chain;
use crate::window::{Line, Offer};

/// How much longer than the broker's deadline a receipt is waited for: an adapter answers by then, or is broken.
const RECEIPT_GRACE: Duration = Duration::from_secs(5);

/// How long a check of the destination may take.
const CHECK_DEADLINE: Duration = Duration::from_secs(15);

/// How long the end of a session may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// A job that ended.
#[derive(Debug)]
pub(super) enum Done<P: Publisher> {
    /// The log was read for these lines, which was asked for then, and what was read may be published.
    Read(
        Box<LogReader>,
        Vec<Line>,
        Instant,
        Result<Brought, LogError>,
    ),
    /// It was looked what a read could see.
    Looked(Box<LogReader>, Result<Snapshot, LogError>),
    /// Something was written under the lease.
    Kept(Box<Keeper>, Result<Kept, LogError>),
    /// A session was opened, or not.
    Opened(Result<P, PublishError>),
    /// An offer was handed over.
    Offered(P, Offer, P::Pending),
    /// An offer was not handed over in time: its session is gone.
    Stuck(Offer),
    /// What became of an offer, and how long that took.
    Receipts(Offer, Receipts, Duration),
    /// What the destination says about routes; none in time.
    Checked(P, Vec<Route>, Option<Vec<TopicReport>>),
    /// What the destination says about its settings, a report per route; none if it did not answer at all.
    Advised(Vec<TopicReport>),
    /// A session ended.
    Ended,
}

/// Has the server look whether anybody has committed, over and over, until somebody has or a while is over: what shows nothing need wake
/// nobody here. What has changed in the stream meanwhile waits for no longer than that.
pub(super) async fn watch<P: Publisher>(
    mut reader: Box<LogReader>,
    quiet: Quiet,
    every: Duration,
) -> Done<P> {
    let seen = reader.watch(quiet.seen(), every, WATCH_FOR).await;
    Done::Looked(reader, seen)
}

/// Looks once, after a wait.
pub(super) async fn look_once<P: Publisher>(mut reader: Box<LogReader>, wait: Duration) -> Done<P> {
    let seen = reader.look(wait).await;
    Done::Looked(reader, seen)
}

/// Opens a session.
pub(super) async fn open<D: Destination>(destination: &D, within: Duration) -> Done<D::Publisher> {
    let opened = timeout(within, destination.open()).await;
    Done::Opened(opened.unwrap_or_else(|_| {
        let what = format!("the destination did not answer within {within:?}");
        Err(PublishError::new(
            onceward_core::ErrorKind::Unavailable,
            what,
        ))
    }))
}

/// Hands an offer over. When that takes too long the session is dropped with all it holds: what was sent is not known.
pub(super) async fn offer<P: Publisher>(
    mut publisher: P,
    offer: Offer,
    within: Duration,
) -> Done<P> {
    match timeout(within, publisher.offer(offer.batch.clone())).await {
        Ok(pending) => Done::Offered(publisher, offer, pending),
        Err(_) => Done::Stuck(offer),
    }
}

/// Waits for the receipts of an offer; what does not come counts as unconfirmed.
pub(super) async fn receipts<P: Publisher>(
    offer: Offer,
    pending: P::Pending,
    within: Duration,
) -> Done<P> {
    let begun = Instant::now();
    let receipts = timeout(within + RECEIPT_GRACE, pending).await;
    let receipts = receipts.unwrap_or_else(|_| {
        let mut receipts = Receipts::unconfirmed(offer.entries.len());
        let what = "the receipts of an offer never came";
        receipts.end_session(PublishError::new(
            onceward_core::ErrorKind::Unavailable,
            what,
        ));
        receipts
    });
    Done::Receipts(offer, receipts, begun.elapsed())
}

/// Asks the destination about routes.
pub(super) async fn check<P: Publisher>(mut publisher: P, routes: Vec<Route>) -> Done<P> {
    let reports = timeout(CHECK_DEADLINE, publisher.check(&routes)).await;
    Done::Checked(publisher, routes, reports.ok())
}

/// Asks about the settings of a few routes. No publishing depends on it, so not even a panic ends the time of holding.
pub(super) async fn advise<D: Destination>(
    destination: &D,
    routes: &[Route],
) -> Done<D::Publisher> {
    let asked = AssertUnwindSafe(ask(destination, routes)).catch_unwind();
    Done::Advised(asked.await.unwrap_or_else(|_| {
        error!("a question about settings of the destination panicked; will ask again");
        Vec::new()
    }))
}

/// Asks about routes in a session of its own; no reports if there is no answer.
async fn ask<D: Destination>(destination: &D, routes: &[Route]) -> Vec<TopicReport> {
    let mut session = match timeout(CHECK_DEADLINE, destination.open()).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => {
            debug!(error = %chain(&error), "no session to ask about settings in");
            return Vec::new();
        }
        Err(_) => return Vec::new(),
    };
    let reports = timeout(CHECK_DEADLINE, session.check(routes)).await;
    // Nothing was offered: a session that does not end in time is dropped.
    timeout(CLOSE_DEADLINE, session.close(Duration::ZERO))
        .await
        .ok();
    reports.unwrap_or_default()
}

/// Ends a session: nothing that is not on the wire yet leaves any more.
pub(super) async fn end<P: Publisher>(mut publisher: P, within: Duration) -> Done<P> {
    let ended = async {
        publisher.abandon().await;
        publisher.close(within).await;
    };
    // A session that does not end in time is dropped, which ends it too.
    if timeout(within + CLOSE_DEADLINE, ended).await.is_err() {
        warn!("a session did not close in time; it was dropped");
    }
    Done::Ended
}
