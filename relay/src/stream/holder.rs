//! One stream while this relay holds its lease: a single task that owns all state and performs what is decided elsewhere.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward::{
    Claimed, Cursor, DueMessage, Keeper, LeaseClock, LogError, LogReader, Part, Quiet, Unrouted,
};
use onceward_core::{Lane, Publisher};
use tokio::task::JoinSet;
use tokio::time::{Instant as TokioInstant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::advice::Advice;
use super::clock::DatabaseClock;
use super::jobs::Done;
use super::keep::Due;
use super::keeping::PausedNote;
use super::metrics::StreamMetrics;
use super::publishing::ToPark;
use super::routing::Routing;
use super::session::{Ending, Stage};
use super::status::StatusHandle;
use crate::destination::Destination;
use crate::detours::Detours;
use crate::faults::{Bug, planted};
use crate::idle_lanes::IdleLanes;
use crate::pace::Pace;
use crate::pause::Pauses;
use crate::plan::Refusal;
use crate::replays::Replays;
use crate::settings::StreamSettings;
use crate::window::{Line, Window};

/// The least wait for a time to come.
const LEAST_WAIT: Duration = Duration::from_micros(100);

/// How a time of holding ended.
#[derive(Debug)]
pub(super) enum End {
    /// We were told to stop, and what was in flight is done or given up; the lease is released.
    Stopped,
    /// The lease is lost: somebody else publishes, or may.
    Fenced,
    /// The database failed: claim again later.
    Database(LogError),
}

/// A session, as far as the holder has it.
#[derive(Debug)]
pub(super) enum Session<P> {
    /// There is none.
    Closed,
    /// It can be used.
    Ready(P),
    /// A job has it.
    Busy,
}

/// What is left of a time of holding.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) end: End,
    /// What is known of the destination's settings outlasts it.
    pub(super) advice: Advice,
    /// Whether it has brought the stream forward.
    pub(super) stored: bool,
}

impl<P> Session<P> {
    pub(super) fn stage(&self) -> Stage {
        match self {
            Self::Closed => Stage::Closed,
            Self::Ready(_) => Stage::Ready,
            Self::Busy => Stage::Busy,
        }
    }

    /// Takes a ready session for a job.
    pub(super) fn take(&mut self) -> Option<P> {
        match std::mem::replace(self, Self::Busy) {
            Self::Ready(publisher) => Some(publisher),
            other @ (Self::Closed | Self::Busy) => {
                *self = other;
                None
            }
        }
    }
}

pub(super) struct Holder<D: Destination> {
    pub(super) settings: Arc<StreamSettings>,
    pub(super) destination: Arc<D>,
    pub(super) jobs: JoinSet<Done<D::Publisher>>,
    pub(super) metrics: StreamMetrics,
    pub(super) status: StatusHandle,
    pub(super) clock: DatabaseClock,

    // Reading: how far we have read, which is ahead of what is stored.
    pub(super) reader: Option<Box<LogReader>>,
    /// Its part in what the streams of this relay read.
    pub(super) part: Arc<Part>,
    pub(super) cursors: BTreeMap<Line, Cursor>,
    pub(super) detours: Detours,
    /// What is being read for.
    pub(super) reading: Vec<Line>,
    /// Which of the detours is read next.
    pub(super) detour_turn: usize,
    /// Detours that are being closed.
    pub(super) closing: Vec<Line>,
    /// The lines that must not read on, as of the beginning of this turn.
    pub(super) standing: Vec<Line>,
    pub(super) pace: Pace,
    pub(super) idle_lanes: IdleLanes,
    /// What the last read says about the next one, if it left nothing.
    pub(super) quiet: Option<Quiet>,
    pub(super) read_at: Instant,
    pub(super) routing: Routing,
    /// Parked messages: for the cursor they count as confirmed.
    pub(super) skip: HashSet<i64>,

    // Keeping: what is stored under the lease.
    pub(super) lease: LeaseClock,
    pub(super) keeper: Option<Box<Keeper>>,
    pub(super) to_store: BTreeMap<Line, Cursor>,
    /// Whether a checkpoint was stored in this time of holding.
    pub(super) stored: bool,
    pub(super) notes: Vec<Unrouted>,
    pub(super) due: Due,
    pub(super) paused: PausedNote,
    pub(super) to_park: Vec<ToPark>,
    pub(super) parking: bool,
    pub(super) replayed: Option<super::replaying::Replayed>,

    // Publishing: what is in flight.
    pub(super) window: Window<Cursor>,
    pub(super) session: Session<D::Publisher>,
    pub(super) pending: usize,
    pub(super) ending: Option<Ending>,
    /// Why the session is over, where the destination is not out of reach.
    pub(super) over: Option<Refusal>,
    pub(super) progress: bool,
    pub(super) pauses: Pauses,
    pub(super) replays: Replays<DueMessage>,
    pub(super) replaying: Option<DueMessage>,
    /// What the destination is asked about its settings.
    pub(super) advice: Advice,

    pub(super) draining: Option<Instant>,
    pub(super) released: bool,
    pub(super) report_at: Instant,
}

impl<D: Destination> Holder<D> {
    /// A holder that has just claimed the stream; none if it has not.
    pub(super) fn new(
        settings: Arc<StreamSettings>,
        destination: Arc<D>,
        (reader, part): (LogReader, Part),
        keeper: Keeper,
        claimed: Claimed,
        status: StatusHandle,
        advice: Advice,
    ) -> Option<Self> {
        let now = Instant::now();
        let lease = *keeper.lease()?;
        let mut holder = Self {
            jobs: JoinSet::new(),
            metrics: StreamMetrics::new(&settings.name),
            status,
            clock: DatabaseClock::default(),
            reader: Some(Box::new(reader)),
            part: Arc::new(part),
            cursors: begins(claimed.cursors),
            detours: Detours::default(),
            reading: Vec::new(),
            detour_turn: 0,
            closing: Vec::new(),
            standing: Vec::new(),
            pace: Pace::new(settings.poll_ceiling),
            idle_lanes: IdleLanes::default(),
            quiet: None,
            read_at: now,
            routing: Routing::new(settings.topics.clone(), settings.route.clone()),
            skip: claimed.parked.into_iter().collect(),
            lease,
            keeper: Some(Box::new(keeper)),
            to_store: BTreeMap::new(),
            stored: false,
            notes: Vec::new(),
            due: Due::all_at(now),
            paused: PausedNote::default(),
            to_park: Vec::new(),
            parking: false,
            replayed: None,
            window: Window::new(settings.bounds()),
            session: Session::Closed,
            pending: 0,
            ending: None,
            over: None,
            progress: false,
            pauses: Pauses::default(),
            replays: Replays::default(),
            replaying: None,
            advice,
            draining: None,
            released: false,
            report_at: now,
            settings,
            destination,
        };
        holder.add_detours(claimed.detours);
        holder.begin_advice(now);
        Some(holder)
    }

    /// Reads, publishes and stores until told to stop or until the lease is lost.
    ///
    /// Every job brings its tool back, so that each connection has one owner at a time. When the lease may have ended, all
    /// jobs are dropped where they stand: what they sent is published again by whoever holds the lease then.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> Held {
        self.metrics.held(true);
        let end = loop {
            let now = Instant::now();
            if stop.is_cancelled() && self.draining.is_none() {
                self.draining = Some(now + self.settings.drain);
            }
            if let Some(end) = self.is_over(now) {
                break end;
            }
            self.standing = self.to_stand();
            self.read(now);
            self.publish(now);
            self.keep(now);
            self.advise(now);
            self.report(now);
            let wake = TokioInstant::from_std(self.wake_at(now));
            tokio::select! {
                Some(done) = self.jobs.join_next() => match done {
                    Ok(done) => if let Err(error) = self.apply(done) {
                        break if error.is_fenced() { End::Fenced } else { End::Database(error) };
                    },
                    Err(error) => break End::Database(LogError::task(error)),
                },
                () = sleep_until(wake) => {}
                () = stop.cancelled(), if self.draining.is_none() => {}
            }
        };
        self.metrics.held(false);
        self.abandon().await;
        Held {
            end,
            advice: self.advice,
            stored: self.stored,
        }
    }

    fn is_over(&self, now: Instant) -> Option<End> {
        if self.released {
            Some(End::Stopped)
        } else if now >= self.lease.deadline() {
            Some(End::Fenced)
        } else {
            None
        }
    }

    fn apply(&mut self, done: Done<D::Publisher>) -> Result<(), LogError> {
        match done {
            Done::Read(reader, lines, asked, result) => {
                self.reader = Some(reader);
                self.on_read(&lines, asked, result?);
            }
            Done::Looked(reader, seen) => {
                self.reader = Some(reader);
                self.on_looked(&seen?);
            }
            Done::Kept(keeper, result) => {
                if let Some(lease) = keeper.lease() {
                    self.lease = *lease;
                }
                self.keeper = Some(keeper);
                self.on_kept(result?);
            }
            Done::Opened(opened) => self.on_opened(opened),
            Done::Offered(publisher, offer, pending) => self.on_offered(publisher, offer, pending),
            Done::Stuck(offer) => self.on_stuck(&offer),
            Done::Receipts(offer, receipts, took) => self.on_receipts(&offer, receipts, took),
            Done::Checked(publisher, routes, reports) => {
                self.on_checked(publisher, &routes, reports);
            }
            Done::Advised(reports) => self.on_advised(&reports),
            Done::Ended => self.on_ended(),
        }
        Ok(())
    }

    /// When something is to be done though nothing ended.
    fn wake_at(&self, now: Instant) -> Instant {
        let mut wake = self.lease.deadline();
        if self.may_read() {
            wake = wake.min(self.read_at);
        }
        if self.keeper.is_some() {
            wake = wake.min(self.due.renew);
            if self.draining.is_none() {
                wake = wake.min(self.due.replays);
                wake = self.waiting_at().map_or(wake, |at| wake.min(at));
            }
            if self.has_to_store() {
                wake = wake.min(self.due.store);
            }
        }
        wake = self.next_detour_at().map_or(wake, |at| wake.min(at));
        if self.may_end_a_pause()
            && let Some(due) = self.pauses.next_due()
        {
            wake = wake.min(due);
        }
        if self.draining.is_none()
            && let Some(due) = self.advice.due()
        {
            wake = wake.min(due);
        }
        if let Some(deadline) = self.draining.filter(|deadline| *deadline > now) {
            wake = wake.min(deadline);
        }
        // A time that has passed without anything to do must not spin.
        wake.max(now + LEAST_WAIT)
    }

    /// Stops what has not left yet. Best effort: order does not depend on it, only the number of duplicates does.
    async fn abandon(&mut self) {
        if let Session::Ready(mut publisher) = std::mem::replace(&mut self.session, Session::Closed)
        {
            publisher.abandon().await;
        }
        self.jobs.shutdown().await;
    }
}

/// Where the lanes are read on: at the stored cursors.
fn begins(stored: [Cursor; 3]) -> BTreeMap<Line, Cursor> {
    let lanes = Lane::ALL.map(Line::main).into_iter();
    let mut cursors: BTreeMap<Line, Cursor> = lanes.zip(stored).collect();
    if planted(Bug::BeginBeforeTheCursor) {
        for cursor in cursors.values_mut() {
            cursor.last = (cursor.last - 50).max(0);
        }
    }
    cursors
}
