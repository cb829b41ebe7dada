//! What the stream stores under its lease: cursors, parked messages, the lease itself.

use std::time::{Duration, Instant};

use onceward::{
    Checkpoint, DetourCursor, DueMessage, Keeper, LogError, NewDetour, Park, PausedTopic, Refused,
    Renewed,
};
use onceward_core::{Key, Topic};
use tracing::{error, info};

use super::holder::{Holder, Session};
use super::jobs::Done;
use super::keep::{self, Facts, Next, Stop};
use super::publishing::ToPark;
use crate::destination::Destination;
use crate::faults::{Bug, Failpoint, pass, planted};
use crate::replays;
use crate::window::Line;

/// The least time between two checkpoints of a stream.
const STORE_EVERY: Duration = Duration::from_millis(100);

/// How often what is paused is stored, at most.
const PAUSED_EVERY: Duration = Duration::from_secs(1);

/// How often parked rows that nobody needs any more are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// How long a parked row stays after it was published or discarded.
const KEEP_PARKED: Duration = Duration::from_secs(7 * 24 * 3600);

/// How often rows that became due are looked for.
const REPLAYS_EVERY: Duration = Duration::from_secs(1);

/// What is stored about what is paused.
#[derive(Debug)]
pub(super) struct PausedNote {
    topics: Vec<PausedTopic>,
    /// Not before this it is stored again.
    at: Instant,
}

impl Default for PausedNote {
    fn default() -> Self {
        Self {
            topics: Vec::new(),
            at: Instant::now(),
        }
    }
}

/// What was written.
#[derive(Debug)]
pub(super) enum Kept {
    /// Messages are parked: their followers may be offered, but for those of keys that are held now.
    Parked(Vec<ToPark>, Vec<DetourCursor>),
    /// Detours are open.
    Opened(Vec<DetourCursor>),
    /// Detours are closed.
    Closed,
    /// Of these keys a message is undecided.
    Waiting(Vec<(Topic, Key)>),
    /// Cursors are stored.
    Stored,
    /// The lease is renewed.
    Renewed {
        renewed: Renewed,
        /// The highest number that had been read when the renewal was asked for: it was given before the renewal's transaction id.
        given: i64,
    },
    /// Something that nothing waits for.
    Noted,
    /// A replay's row knows how it ended.
    Replayed,
    /// These rows are due.
    Due(Vec<DueMessage>),
    /// The lease is given back.
    Released,
}

impl<D: Destination> Holder<D> {
    /// Writes what comes next, if nothing is being written.
    pub(super) fn keep(&mut self, now: Instant) {
        if self.keeper.is_none() {
            return;
        }
        let (to_open, to_close) = (self.to_open(now), self.to_close());
        let facts = self.keep_facts(now, &to_open, &to_close);
        match keep::next(&facts) {
            Next::Wait => {}
            Next::Park => self.park(),
            Next::Replayed => self.store_replayed(),
            Next::OpenDetours => self.open_detours(to_open),
            Next::CloseDetours => self.close_detours(to_close),
            Next::LoadWaiting => self.load_waiting(now),
            Next::Checkpoint => self.checkpoint(),
            Next::Renew => self.renew(now),
            Next::StorePaused => self.store_paused(now),
            Next::LoadReplays => self.load_replays(now),
            Next::Sweep => self.sweep_parked(now),
            Next::Release => self.release(),
        }
    }

    fn keep_facts(&self, now: Instant, to_open: &[NewDetour], to_close: &[Line]) -> Facts {
        Facts {
            now,
            to_park: self.has_to_park(),
            replayed: self.replayed.is_some(),
            to_open: !to_open.is_empty(),
            to_close: !to_close.is_empty(),
            waiting_at: self.waiting_at(),
            to_store: self.has_to_store(),
            store_at: self.due.store,
            paused: self.paused.at <= now && self.paused.topics != self.paused_notes(),
            sweep_at: self.due.sweep,
            renew_at: self.due.renew,
            replays_at: self.due.replays,
            stop: self.stop(now),
        }
    }

    fn stop(&self, now: Instant) -> Stop {
        let Some(deadline) = self.draining else {
            return Stop::No;
        };
        let quiet = self.pending == 0
            && matches!(self.session, Session::Closed)
            && self.to_park.is_empty()
            && self.replaying.is_none();
        if quiet || now >= deadline {
            Stop::Drained
        } else {
            Stop::Draining
        }
    }

    fn has_to_park(&self) -> bool {
        let others_first =
            planted(Bug::FollowersBeforePark) && self.window.open() > self.to_park.len();
        !self.to_park.is_empty() && !others_first
    }

    pub(super) fn has_to_store(&self) -> bool {
        !self.notes.is_empty() || !self.to_store.is_empty()
    }

    /// Takes the cursors behind everything that is done without a gap.
    pub(super) fn store_what_is_done(&mut self) {
        let done = self.window.advance();
        if planted(Bug::CheckpointBeforeConfirm) {
            self.to_store = self.cursors.clone();
            return;
        }
        self.to_store.extend(done);
    }

    fn park(&mut self) {
        pass(Failpoint::BeforePark);
        let holds = self.holds_for(&self.to_park);
        let parks: Vec<ToPark> = std::mem::take(&mut self.to_park);
        let rows: Vec<Park> = parks
            .iter()
            .filter_map(|park| {
                let outgoing = self.window.get(park.entry)?;
                Some(Park {
                    lane: park.entry.line.lane,
                    message: outgoing.message.clone(),
                    kind: park.refusal.kind,
                    error: park.refusal.what.clone(),
                })
            })
            .collect();
        self.parking = true;
        self.write(|mut keeper| async move {
            let result = keeper.set_aside(&rows, &holds).await;
            pass(Failpoint::AfterPark);
            (keeper, result.map(|opened| Kept::Parked(parks, opened)))
        });
    }

    fn checkpoint(&mut self) {
        let mut checkpoint = Checkpoint {
            unrouted: std::mem::take(&mut self.notes),
            ..Checkpoint::default()
        };
        for (line, cursor) in std::mem::take(&mut self.to_store) {
            match self.detours.of(line) {
                Some(detour) => checkpoint.detours.push(DetourCursor {
                    lane: line.lane,
                    detour: detour.clone(),
                    cursor,
                }),
                None => {
                    let place = usize::from(line.lane.number().unsigned_abs());
                    checkpoint.cursors[place] = Some(cursor);
                }
            }
        }
        pass(Failpoint::BeforeCheckpoint);
        self.write(|mut keeper| async move {
            let result = keeper.checkpoint(&checkpoint).await.map(|()| Kept::Stored);
            pass(Failpoint::AfterCheckpoint);
            (keeper, result)
        });
    }

    fn renew(&mut self, now: Instant) {
        self.due.renew = now + self.settings.lease_ttl / 3;
        // Before it is asked for: what is read later may be of a transaction with a later id.
        let last = self.cursors.values().map(|cursor| cursor.last);
        let given = last.max().unwrap_or_default();
        self.write(|mut keeper| async move {
            let renewed = keeper.renew().await;
            let result = renewed.map(|renewed| Kept::Renewed { renewed, given });
            (keeper, result)
        });
    }

    fn store_paused(&mut self, now: Instant) {
        self.paused = PausedNote {
            topics: self.paused_notes(),
            at: now + PAUSED_EVERY,
        };
        let topics = self.paused.topics.clone();
        self.write(|mut keeper| async move {
            let result = keeper.store_paused(&topics).await.map(|()| Kept::Noted);
            (keeper, result)
        });
    }

    fn paused_notes(&self) -> Vec<PausedTopic> {
        let destination = self.pauses.destination().map(|pause| ("", pause));
        let topics = self.pauses.topics();
        let all = destination
            .into_iter()
            .chain(topics.map(|(route, pause)| (route.as_str(), pause)));
        let mut notes: Vec<PausedTopic> = all
            .map(|(topic, pause)| PausedTopic {
                topic: topic.to_owned(),
                reason: pause.refusal.what.clone(),
                since: pause.since.into(),
            })
            .collect();
        notes.sort_by(|a, b| a.topic.cmp(&b.topic));
        notes
    }

    fn sweep_parked(&mut self, now: Instant) {
        self.due.sweep = now + SWEEP_EVERY;
        self.write(|mut keeper| async move {
            let result = keeper.sweep_parked(KEEP_PARKED).await.map(|_| Kept::Noted);
            (keeper, result)
        });
    }

    fn load_replays(&mut self, now: Instant) {
        self.due.replays = now + REPLAYS_EVERY;
        // Anew each time: one may have been discarded since.
        if self.replaying.is_none() && self.replayed.is_none() {
            let after = self.replays.after();
            self.write(move |mut keeper| async move {
                let result = keeper.due(after, replays::PAGE).await.map(Kept::Due);
                (keeper, result)
            });
        }
    }

    fn store_replayed(&mut self) {
        let Some(replayed) = self.replayed.take() else {
            return;
        };
        self.write(|mut keeper| async move {
            let refused = replayed.refusal.map(|refusal| Refused {
                kind: refusal.kind,
                error: refusal.what,
            });
            let result = keeper.replayed(&replayed.due, refused.as_ref()).await;
            (keeper, result.map(|()| Kept::Replayed))
        });
    }

    fn release(&mut self) {
        pass(Failpoint::BeforeRelease);
        self.write(|mut keeper| async move {
            let result = keeper.release().await.map(|()| Kept::Released);
            (keeper, result)
        });
    }

    /// Lets a job have the keeper for one statement.
    pub(super) fn write<F, J>(&mut self, statement: F)
    where
        F: FnOnce(Box<Keeper>) -> J,
        J: Future<Output = (Box<Keeper>, Result<Kept, LogError>)> + Send + 'static,
    {
        if let Some(keeper) = self.keeper.take() {
            let job = statement(keeper);
            self.jobs.spawn(async {
                let (keeper, result) = job.await;
                Done::Kept(keeper, result)
            });
        }
    }

    pub(super) fn on_kept(&mut self, kept: Kept) {
        match kept {
            Kept::Parked(parks, opened) => self.on_parked(parks, opened),
            Kept::Opened(opened) => self.on_opened_detours(opened),
            Kept::Closed => self.on_closed_detours(),
            Kept::Waiting(keys) => self.detours.set_waiting(keys),
            // Whoever waits for it may go on.
            Kept::Replayed => self.due.waiting = Instant::now(),
            Kept::Stored => {
                self.stored = true;
                // Counted from its end: one that took longer than that must not be due again before what comes after it has had its turn.
                self.due.store = Instant::now() + STORE_EVERY;
            }
            Kept::Noted => {}
            Kept::Renewed { renewed, given } => {
                self.learn(given, renewed.txid);
                self.routing.set_stored(renewed.globs);
            }
            Kept::Due(due) => self.set_due(due, Instant::now()),
            Kept::Released => {
                info!(stream = %self.settings.name, "lease released");
                self.released = true;
            }
        }
    }

    /// Tells all cursors, those behind what is in flight too: however long they wait, the next read of them goes through little.
    fn learn(&mut self, given: i64, txid: u64) {
        let read = self.cursors.values_mut();
        let in_flight = self.window.cursors_mut();
        for cursor in read.chain(in_flight).chain(self.to_store.values_mut()) {
            cursor.learn(given, txid);
        }
    }

    fn on_parked(&mut self, parks: Vec<ToPark>, opened: Vec<DetourCursor>) {
        self.parking = false;
        self.add_detours(opened);
        self.metrics.parked(parks.len());
        for park in parks {
            if let Some(outgoing) = self.window.get(park.entry) {
                error!(
                    stream = %self.settings.name, seq = outgoing.message.seq, route = %outgoing.route,
                    kind = park.refusal.kind.name(), error = %park.refusal.what,
                    "message parked; see `onceward parked list`"
                );
                self.skip.extend(outgoing.message.seq);
                if let Some(key) = &outgoing.message.key {
                    self.detours.add_waiting(&outgoing.message.topic, key);
                }
            }
            self.window.done(park.entry);
        }
        self.leave_to_detours();
        self.acquit_what_is_held();
        self.store_what_is_done();
    }
}
