//! Batches in this member: what is put together, when it starts, and what becomes of it.

use std::collections::HashMap;
use std::time::Instant;

use super::Member;
use crate::batch::Filling;
use crate::faults::{Bug, planted};
use crate::keys::Take;
use crate::plan::Outcome;
use crate::work::{Fate, Job};

/// Batches that wait for more, one of each handler at most.
#[derive(Debug, Default)]
pub(super) struct Batches {
    forming: HashMap<usize, Forming>,
}

#[derive(Debug)]
struct Forming {
    numbers: Vec<u64>,
    filling: Filling,
    until: Instant,
}

impl Batches {
    /// When the first of them starts, full or not.
    pub(super) fn next(&self) -> Option<Instant> {
        self.forming.values().map(|batch| batch.until).min()
    }
}

impl<T: Clone + Send + Sync + 'static> Member<T> {
    /// Begins a batch with a delivery whose turn has come. False: it is to run alone.
    pub(super) fn begin_batch(&mut self, number: u64) -> bool {
        let Some((class, weight)) = self.flights.batch_of(number, &self.shop) else {
            return false;
        };
        let limit = &self.shop.settings(Some(class)).batch;
        let mut batch = Forming {
            numbers: vec![number],
            filling: Filling::default(),
            until: Instant::now() + limit.wait,
        };
        batch.filling.add(weight, limit);
        self.fill(class, batch, Instant::now());
        true
    }

    /// Takes more into the batches that wait, and starts those whose time has come.
    pub(super) fn fill_batches(&mut self, now: Instant) {
        for (class, batch) in std::mem::take(&mut self.batches.forming) {
            self.fill(class, batch, now);
        }
    }

    /// Starts all batches as they are.
    pub(super) fn start_batches(&mut self) {
        for (_, batch) in std::mem::take(&mut self.batches.forming) {
            self.start_batch(&batch.numbers);
        }
    }

    /// Lets what waits in batches wait by itself again.
    pub(super) fn dissolve_batches(&mut self) {
        for (_, batch) in std::mem::take(&mut self.batches.forming) {
            self.keys.again(batch.numbers);
        }
    }

    fn fill(&mut self, class: usize, mut batch: Forming, now: Instant) {
        let limit = &self.shop.settings(Some(class)).batch;
        let (flights, shop, filling) = (&self.flights, &self.shop, &mut batch.filling);
        let mut full = filling.is_full(limit);
        let more = self.keys.along(&batch.numbers, |number| {
            match flights.batch_of(number, shop) {
                Some((_, weight)) if filling.add(weight, limit) => Take::Yes,
                Some(_) => {
                    full = true;
                    Take::Full
                }
                None => Take::No,
            }
        });
        batch.numbers.extend(more);
        if full || batch.filling.is_full(limit) || batch.until <= now {
            self.start_batch(&batch.numbers);
        } else if let Some(before) = self.batches.forming.insert(class, batch) {
            // A type that is handled again since the batches were filled has begun another one.
            self.start_batch(&before.numbers);
        }
    }

    fn start_batch(&mut self, numbers: &[u64]) {
        let mut jobs: Vec<Job> = Vec::with_capacity(numbers.len());
        for number in numbers {
            match self.begin(*number) {
                Some(job) => jobs.push(job),
                None => self.keys.end(*number),
            }
        }
        if planted(Bug::AckBeforeCommit) {
            for number in numbers {
                self.ack(*number);
            }
        }
        self.shop.clone().spawn_batch(jobs, &mut self.workers);
    }

    /// The end of a batch: some of it is settled, some is to be handled again.
    pub(super) fn on_batch(&mut self, fates: Vec<Fate>) {
        let mut again = Vec::new();
        let mut left = Vec::new();
        for fate in fates {
            match fate {
                Fate::Settled(number, outcome) => {
                    self.keys.end(number);
                    if outcome == Outcome::Deferred {
                        self.waiting.joined();
                    }
                    self.settle(number, outcome);
                }
                Fate::Again(job, _)
                    if job.leave.is_cancelled() || !self.shares.is_ours(job.number) =>
                {
                    left.push(job.number);
                }
                Fate::Again(job, alone) => {
                    again.push(job.number);
                    self.flights.restore(*job, alone);
                }
                Fate::Left(number) => left.push(number),
            }
        }
        self.keys.again(again);
        for number in &left {
            self.keys.end(*number);
        }
        self.give_back(&left);
        self.release_finished(Instant::now());
    }
}
