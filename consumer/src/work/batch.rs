//! Several deliveries in one transaction, until they are settled or have to be handled one by one.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::future::select_all;
use time::OffsetDateTime;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{Body, Fate, Job, Workshop, has_expired, is_doubtful};
use crate::batch::{AnyBatch, BatchNext, Place, Runs, after_batch, places};
use crate::dead_letter::Letter;
use crate::history::History;
use crate::plan::{DeadReason, Outcome, Run};
use crate::room::Stay;
use crate::stored::Stored;
use crate::transaction::{BatchOrder, BatchRan, Entry, Lot, Ran, SettleAs};

impl Workshop {
    /// Works on the deliveries of a batch, in their order. Each of them is in what it gives, once.
    pub(crate) async fn work_on_batch(&self, jobs: Vec<Job>) -> Vec<Fate> {
        let Divided {
            within: jobs,
            behind,
            alone,
        } = divide(jobs, self.clock.now());
        let mut fates = match jobs.first().and_then(|job| self.batch_handler(job)) {
            Some(handler) => self.handle_batch(jobs, handler).await,
            None => again(jobs, true),
        };
        let copies = copies(behind, &fates);
        fates.extend(copies);
        fates.extend(again(alone, true));
        for fate in &fates {
            if let Fate::Settled(_, outcome) = fate {
                self.meters.settled(*outcome);
            }
        }
        fates
    }

    fn batch_handler(&self, job: &Job) -> Option<&dyn AnyBatch> {
        self.routes.get(job.route?)?.batch.as_deref()
    }

    /// Runs the handler until the plan says what becomes of the batch.
    async fn handle_batch(&self, jobs: Vec<Job>, handler: &dyn AnyBatch) -> Vec<Fate> {
        let mut before = Runs::default();
        loop {
            if self.waits_for_its_type(&jobs) {
                return again(jobs, false);
            }
            let Some(stay) = self.batch_comes_in(&jobs).await else {
                return again(jobs, false);
            };
            let began = (self.clock.now(), Instant::now());
            let BatchRan { ran, lots } = self.try_batch(&jobs, handler).await;
            drop(stay);
            self.meters.ran(began.1.elapsed());
            before.add(ran.run);
            let next = after_batch(ran.run, before, fastrand::f64());
            log_batch(jobs.len(), &ran, next);
            let goes_on = match next {
                BatchNext::Settled => {
                    self.learn_from_batch(&jobs, &lots);
                    return settled(jobs, &lots);
                }
                BatchNext::Without => return without(jobs, &lots),
                BatchNext::Split => {
                    self.meters.split();
                    return again(jobs, true);
                }
                BatchNext::GiveUp => return self.give_up_batch(jobs, &ran, &lots, began).await,
                BatchNext::Leave => return jobs.iter().map(|job| Fate::Left(job.number)).collect(),
                BatchNext::Again(delay) => unless_left(&jobs, tokio::time::sleep(delay)).await,
                BatchNext::Pause(delay) => {
                    self.health.outage(&ran.error);
                    unless_left(&jobs, self.until_up(delay)).await
                }
            };
            if !goes_on {
                return again(jobs, false);
            }
        }
    }

    /// Waits for leave to run beside others. None: one of the deliveries must be left.
    async fn batch_comes_in(&self, jobs: &[Job]) -> Option<Stay<'_>> {
        let deadline = self.settings(jobs.first()?.route).deadline;
        tokio::select! {
            // What may start at once may end, whatever is revoked.
            biased;
            stay = self.come_in(false, deadline, &self.kill) => stay,
            () = one_is_left(jobs) => None,
        }
    }

    /// Whether the type of one of them has been paused meanwhile. Alone, that one waits without an attempt.
    fn waits_for_its_type(&self, jobs: &[Job]) -> bool {
        let mut kinds = jobs.iter().filter_map(kind_of);
        kinds.any(|kind| self.types.is_paused(kind))
    }

    /// Learns that what a batch has handled works. What failed in one tells nothing of any of its types: alone, each does.
    fn learn_from_batch(&self, jobs: &[Job], lots: &[Lot]) {
        let handled = jobs.iter().zip(lots).filter(|(_, lot)| **lot == Lot::Ours);
        for (job, _) in handled {
            if let Some(kind) = kind_of(job) {
                self.types.note(kind, job.mark.id, false);
            }
        }
    }

    async fn until_up(&self, delay: Duration) {
        tokio::time::sleep(delay).await;
        self.health.wait_until_up().await;
    }

    async fn try_batch(&self, jobs: &[Job], handler: &dyn AnyBatch) -> BatchRan {
        let now = self.clock.now();
        let entries: Vec<Entry<'_>> = jobs.iter().filter_map(|job| entry(job, now)).collect();
        let Some(first) = jobs.first() else {
            return BatchRan::new(Run::Handled, "");
        };
        let order = BatchOrder {
            handler,
            entries: &entries,
            deadline: self.settings(first.route).deadline,
            kill: &self.kill,
            alarm: &first.alarm,
            keeper: &self.keeper,
        };
        self.database.attempt_batch(&order).await
    }

    /// Gives up what a handler may have had the effects of, when it ended the transaction by itself.
    async fn give_up_batch(
        &self,
        jobs: Vec<Job>,
        ran: &Ran,
        lots: &[Lot],
        (at, since): (OffsetDateTime, Instant),
    ) -> Vec<Fate> {
        let mut history = History::default();
        history.add(1, at, since.elapsed(), ran.error.clone());
        let mut fates = Vec::with_capacity(jobs.len());
        for (job, lot) in jobs.into_iter().zip(lots) {
            let entry = entry(&job, at).filter(|_| *lot == Lot::Ours);
            let Some(entry) = entry else {
                fates.push(Fate::Again(Box::new(job), true));
                continue;
            };
            let letter = Letter {
                content: &Stored::of_message(entry.message, entry.origin),
                reason: DeadReason::TransactionEnded,
                error: &ran.error,
                history: &history,
            };
            let ended = ran.ended.as_deref();
            let outcome = self.settle(&job, SettleAs::Dead(letter), ended).await;
            fates.push(match outcome {
                Some(outcome) => Fate::Settled(job.number, outcome),
                None => Fate::Left(job.number),
            });
        }
        fates
    }
}

fn kind_of(job: &Job) -> Option<&str> {
    match &job.body {
        Body::Message(message) => Some(message.kind.as_str()),
        Body::Undecodable(_) => None,
    }
}

fn entry(job: &Job, now: OffsetDateTime) -> Option<Entry<'_>> {
    match &job.body {
        Body::Message(message) => Some(Entry {
            message,
            mark: &job.mark,
            suspect: job.suspect,
            in_doubt: is_doubtful(message, &job.origin, now),
            origin: &job.origin,
        }),
        Body::Undecodable(_) => None,
    }
}

/// Deliveries by their place.
#[derive(Default)]
struct Divided {
    within: Vec<Job>,
    behind: Vec<Job>,
    alone: Vec<Job>,
}

fn divide(jobs: Vec<Job>, now: OffsetDateTime) -> Divided {
    let marks = jobs.iter().map(|job| match &job.body {
        Body::Message(message) => (job.mark.id, has_expired(message, now)),
        // It is in no batch; alone, it is told what it is.
        Body::Undecodable(_) => (job.mark.id, true),
    });
    let places = places(marks);
    let mut divided = Divided::default();
    for (job, place) in jobs.into_iter().zip(places) {
        match place {
            Place::Within => divided.within.push(job),
            Place::Behind => divided.behind.push(job),
            Place::Alone => divided.alone.push(job),
        }
    }
    divided
}

/// Copies of what had its place in a batch: they find the mark there, unless the original is to be handled alone; then so is a copy, which
/// may fail as the original did.
fn copies(behind: Vec<Job>, originals: &[Fate]) -> Vec<Fate> {
    let marks = originals.iter().filter_map(|fate| match fate {
        Fate::Again(job, true) => Some(job.mark.id),
        Fate::Again(_, false) | Fate::Settled(..) | Fate::Left(_) => None,
    });
    let marks: HashSet<Uuid> = marks.collect();
    let copy = |job: Job| {
        let alone = marks.contains(&job.mark.id);
        Fate::Again(Box::new(job), alone)
    };
    behind.into_iter().map(copy).collect()
}

fn again(jobs: Vec<Job>, alone: bool) -> Vec<Fate> {
    let jobs = jobs.into_iter().map(Box::new);
    jobs.map(|job| Fate::Again(job, alone)).collect()
}

fn settled(jobs: Vec<Job>, lots: &[Lot]) -> Vec<Fate> {
    let fate = |(job, lot): (Job, &Lot)| match lot {
        Lot::Ours => Fate::Settled(job.number, Outcome::Handled),
        Lot::Duplicate => Fate::Settled(job.number, Outcome::Duplicate),
        Lot::Alone => Fate::Again(Box::new(job), true),
    };
    jobs.into_iter().zip(lots).map(fate).collect()
}

/// All of them again, those that are to be handled alone by themselves.
fn without(jobs: Vec<Job>, lots: &[Lot]) -> Vec<Fate> {
    let fate = |(job, lot): (Job, &Lot)| Fate::Again(Box::new(job), *lot == Lot::Alone);
    jobs.into_iter().zip(lots).map(fate).collect()
}

/// Waits. False: one of the deliveries must be left.
async fn unless_left(jobs: &[Job], wait: impl Future<Output = ()>) -> bool {
    tokio::select! {
        biased;
        () = one_is_left(jobs) => false,
        () = wait => true,
    }
}

async fn one_is_left(jobs: &[Job]) {
    let left = jobs.iter().map(|job| Box::pin(job.leave.cancelled()));
    select_all(left).await;
}

fn log_batch(messages: usize, ran: &Ran, next: BatchNext) {
    let error = &ran.error;
    match next {
        BatchNext::Settled => debug!(messages, "a batch is settled"),
        BatchNext::Split => {
            // An error of the handler may tell of a payload: alone, its message says what may be said.
            warn!(messages, run = ?ran.run, "a batch failed; its messages are handled one by one");
        }
        BatchNext::GiveUp => warn!(messages, %error, "a batch is given up"),
        BatchNext::Without | BatchNext::Again(_) | BatchNext::Pause(_) | BatchNext::Leave => {
            info!(messages, run = ?ran.run, ?next, %error, "a batch is not settled yet");
        }
    }
}
