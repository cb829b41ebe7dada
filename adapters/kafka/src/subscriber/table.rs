//! What one member owns and has to tell: partitions with their queues, and arrivals that are no deliveries.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::Sender;
use std::time::Duration;

use onceward_core::{
    Arrival, Delivery, Partition, Release, SubscribeError, SubscribeErrorKind, Ticket,
};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::KafkaToken;
use super::assignment::{Assignment, Place};
use super::member::Member;
use rdkafka::message::Message as _;

use crate::errors::subscribe_error;
use crate::headers;

/// How many records are taken from one partition before the next has its turn.
const TURN: usize = 64;

/// Each assignment of a partition has a number of its own, so that an ack of an earlier one is told apart.
pub(super) type Generation = u64;

/// What one member owns and has to tell.
#[derive(Default)]
pub(super) struct Table {
    owned: BTreeMap<Generation, Owned>,
    generations: Generation,
    last_turn: Generation,
    events: VecDeque<Result<Arrival<KafkaToken>, SubscribeError>>,
    over: Option<(SubscribeErrorKind, String)>,
}

/// A partition that cannot be read where it should be.
pub(super) struct Stuck {
    pub(super) generation: Generation,
    pub(super) place: Place,
    /// The next position that this member expected, once it had one.
    pub(super) expected: Option<i64>,
}

struct Owned {
    assignment: Assignment,
    /// None while the place to read on is looked for.
    queue: Option<PartitionQueue<Member>>,
}

impl Table {
    /// Owns a partition from now on.
    pub(super) fn assign(&mut self, assignment: Assignment, queue: Option<PartitionQueue<Member>>) {
        self.generations += 1;
        let arrival = Arrival::Assigned(assignment.partition.clone());
        self.events.push_back(Ok(arrival));
        let owned = Owned { assignment, queue };
        self.owned.insert(self.generations, owned);
    }

    /// Announces that partitions are given back; each sends its number when it is released.
    pub(super) fn revoke(
        &mut self,
        places: &[Place],
        within: Duration,
        released: &Sender<Generation>,
    ) -> Vec<Generation> {
        let mut leaving = Vec::new();
        for (generation, owned) in &mut self.owned {
            if !places.contains(&owned.assignment.place) {
                continue;
            }
            owned.assignment.leaving = true;
            leaving.push(*generation);
            let (released, generation) = (released.clone(), *generation);
            self.events.push_back(Ok(Arrival::Revoking {
                partition: owned.assignment.partition.clone(),
                within,
                // Nobody waits for it after the grace.
                release: Release::new(move || {
                    released.send(generation).ok();
                }),
            }));
        }
        leaving
    }

    /// Owns these no longer. `told`: whether the caller knows that already.
    pub(super) fn remove(&mut self, places: &[Place], told: impl Fn(Generation) -> bool) {
        let events = &mut self.events;
        self.owned.retain(|generation, owned| {
            let stays = !places.contains(&owned.assignment.place);
            if !stays && !told(*generation) {
                events.push_back(Ok(Arrival::Lost(owned.assignment.partition.clone())));
            }
            stays
        });
    }

    /// Gives up everything, and gives back what was not told yet.
    #[must_use]
    pub(super) fn clear(&mut self) -> impl Drop + use<> {
        self.owned.clear();
        std::mem::take(&mut self.events)
    }

    pub(super) fn tell(&mut self, arrival: Arrival<KafkaToken>) {
        self.events.push_back(Ok(arrival));
    }

    /// Tells of an error, unless one waits to be told already.
    pub(super) fn fail(&mut self, error: SubscribeError) {
        if !self.events.iter().any(Result::is_err) {
            self.events.push_back(Err(error));
        }
    }

    /// This member cannot go on.
    pub(super) fn end(&mut self, kind: SubscribeErrorKind, what: &str) {
        self.over.get_or_insert_with(|| (kind, what.to_owned()));
    }

    /// What has arrived, at most `room` of it deliveries.
    pub(super) fn take(&mut self, room: usize) -> Result<Vec<Arrival<KafkaToken>>, SubscribeError> {
        let mut arrivals = Vec::new();
        while let Some(event) = self.events.pop_front() {
            match event {
                Ok(arrival) => arrivals.push(arrival),
                Err(error) if arrivals.is_empty() => return Err(error),
                Err(error) => {
                    self.events.push_front(Err(error));
                    return Ok(arrivals);
                }
            }
        }
        if let Some((kind, what)) = self.over.as_ref().filter(|_| arrivals.is_empty()) {
            return Err(SubscribeError::new(*kind, what.clone()));
        }
        self.take_deliveries(room, &mut arrivals);
        Ok(arrivals)
    }

    fn take_deliveries(&mut self, room: usize, arrivals: &mut Vec<Arrival<KafkaToken>>) {
        let mut left = room;
        let mut round: Vec<Generation> = self.owned.keys().copied().collect();
        // The one whose turn was last comes last.
        round.sort_by_key(|generation| (*generation <= self.last_turn, *generation));
        loop {
            let before = left;
            for generation in &round {
                if left == 0 {
                    return;
                }
                let Some(owned) = self.owned.get_mut(generation) else {
                    continue;
                };
                self.last_turn = *generation;
                let (taken, failure) = owned.read(*generation, left.min(TURN), arrivals);
                left -= taken;
                if let Some(error) = failure {
                    let what = format!("{} cannot be read", owned.assignment.partition);
                    self.events.push_back(Err(subscribe_error(what, error)));
                }
            }
            if left == before {
                return;
            }
        }
    }

    /// Notes that a delivery is settled, if its partition is still ours.
    pub(super) fn ack(&mut self, generation: Generation, ticket: Ticket) {
        if let Some(owned) = self.owned.get_mut(&generation) {
            owned.assignment.ack(ticket);
        }
    }

    pub(super) fn pause(&mut self, partition: &Partition, paused: bool) {
        let mut owned = self.owned.values_mut();
        if let Some(owned) = owned.find(|owned| owned.assignment.partition == *partition) {
            owned.assignment.paused = paused;
        }
    }

    /// Partitions that cannot be read where they should be.
    pub(super) fn stuck(&self) -> Vec<Stuck> {
        let stuck = self.owned.iter().filter(|(_, owned)| owned.queue.is_none());
        stuck
            .map(|(generation, owned)| Stuck {
                generation: *generation,
                place: owned.assignment.place.clone(),
                expected: owned.assignment.next(),
            })
            .collect()
    }

    /// Reads a partition on.
    pub(super) fn resume(
        &mut self,
        generation: Generation,
        at: super::resume::Resume,
        queue: PartitionQueue<Member>,
    ) -> Option<Partition> {
        let owned = self.owned.get_mut(&generation)?;
        owned.assignment.resume(at);
        owned.queue = Some(queue);
        Some(owned.assignment.partition.clone())
    }

    /// Positions to commit, of all partitions or of these.
    pub(super) fn to_commit(&self, of: Option<&[Place]>) -> Vec<(Place, i64)> {
        let assignments = self.owned.values().map(|owned| &owned.assignment);
        assignments
            .filter(|one| of.is_none_or(|of| of.contains(&one.place)))
            .filter_map(|one| Some((one.place.clone(), one.to_commit()?)))
            .collect()
    }

    pub(super) fn committed(&mut self, place: &Place, position: i64) {
        let mut owned = self.owned.values_mut();
        if let Some(owned) = owned.find(|owned| owned.assignment.place == *place) {
            owned.assignment.committed(position);
        }
    }

    /// The partitions that are ours and stay so.
    pub(super) fn places(&self) -> BTreeSet<Place> {
        let staying = self.assignments().filter(|one| !one.leaving);
        staying.map(|one| one.place.clone()).collect()
    }

    /// All partitions owned.
    pub(super) fn assignments(&self) -> impl Iterator<Item = &Assignment> {
        self.owned.values().map(|owned| &owned.assignment)
    }
}

impl Owned {
    /// Takes up to `room` records. Gives how many, and the error that came after them.
    fn read(
        &mut self,
        generation: Generation,
        room: usize,
        arrivals: &mut Vec<Arrival<KafkaToken>>,
    ) -> (usize, Option<KafkaError>) {
        if self.assignment.paused || self.assignment.leaving {
            return (0, None);
        }
        fill(room, arrivals, || self.step(generation))
    }

    /// Takes the next record, if one is there that was not delivered before.
    fn step(&mut self, generation: Generation) -> Result<Step<Arrival<KafkaToken>>, KafkaError> {
        let Self { assignment, queue } = self;
        let Some(open) = queue.as_ref() else {
            return Ok(Step::Empty);
        };
        let record = match open.poll(Duration::ZERO) {
            None => return Ok(Step::Empty),
            Some(Ok(record)) => record,
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(Step::Passed),
            Some(Err(error)) if error.rdkafka_error_code() == Some(Code::AutoOffsetReset) => {
                *queue = None;
                return Ok(Step::Empty);
            }
            Some(Err(error)) => return Err(error),
        };
        let origin = headers::origin(&record, &assignment.partition);
        let Some(ticket) = assignment.deliver(record.offset(), origin.sent_at) else {
            return Ok(Step::Passed);
        };
        Ok(Step::Taken(Arrival::Delivery(Delivery {
            message: headers::decode(&record, &assignment.partition),
            origin,
            deadline: None,
            token: KafkaToken { generation, ticket },
        })))
    }
}

/// What a look into a queue brings.
enum Step<T> {
    Taken(T),
    /// Nothing to hand out; more may be behind it.
    Passed,
    Empty,
}

/// Takes up to `room` of what comes. Gives how many, and the error that came after them.
fn fill<T, E>(
    room: usize,
    taken: &mut Vec<T>,
    mut step: impl FnMut() -> Result<Step<T>, E>,
) -> (usize, Option<E>) {
    let mut count = 0;
    while count < room {
        match step() {
            Ok(Step::Taken(one)) => {
                taken.push(one);
                count += 1;
            }
            Ok(Step::Passed) => {}
            Ok(Step::Empty) => break,
            Err(error) => return (count, Some(error)),
        }
    }
    (count, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_before_an_error_counts() {
        let steps = [
            Ok(Step::Taken(1)),
            Ok(Step::Passed),
            Ok(Step::Taken(2)),
            Err("no"),
            Ok(Step::Taken(3)),
            Ok(Step::Taken(4)),
        ];
        let mut steps = steps.into_iter();
        let mut step = || steps.next().unwrap_or(Ok(Step::Empty));
        let mut taken = Vec::new();

        assert_eq!(fill(3, &mut taken, &mut step), (2, Some("no")));
        assert_eq!(fill(1, &mut taken, &mut step), (1, None));
        assert_eq!(fill(5, &mut taken, &mut step), (1, None));

        assert_eq!(taken, [1, 2, 3, 4]);
    }
}
