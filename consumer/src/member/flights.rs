//! The deliveries in memory, from arrival to ack.

use std::collections::HashMap;
use std::time::{Instant, SystemTime};

use onceward_core::{Delivery, Partition};
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarm;
use crate::keys::KeyId;
use crate::lag::Progress;
use crate::mark::Mark;
use crate::plan::guard::is_suspect;
use crate::work::{Body, Job, Workshop};

/// A delivery in memory.
#[derive(Debug)]
struct Flight<T> {
    token: T,
    /// Until its turn comes.
    job: Option<Job>,
    weight: usize,
    written_at: SystemTime,
    /// When the broker gives it to somebody else.
    deadline: Option<Instant>,
    alarm: Alarm,
    settled: bool,
    /// It was part of a batch that failed.
    alone: bool,
    leave: CancellationToken,
}

/// How the keys are to take a delivery.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) key: Option<KeyId>,
    pub(super) class: usize,
    pub(super) partition: Partition,
    pub(super) deadline: Option<Instant>,
}

/// All deliveries in memory.
#[derive(Debug)]
pub(super) struct Flights<T> {
    flights: HashMap<u64, Flight<T>>,
    bytes: usize,
    largest: usize,
    newest_settled: SystemTime,
}

impl<T: Clone> Flights<T> {
    /// `now`: the database's time, as all times here are.
    pub(super) fn new(now: SystemTime) -> Self {
        Self {
            flights: HashMap::new(),
            bytes: 0,
            largest: 1,
            newest_settled: now,
        }
    }

    /// Takes a delivery in.
    pub(super) fn arrive(&mut self, number: u64, delivery: Delivery<T>, shop: &Workshop) -> Place {
        let (leave, alarm) = (CancellationToken::new(), Alarm::new());
        let now = shop.clock.now().into();
        let (body, mark, weight) = match delivery.message {
            Ok(message) => {
                let (mark, weight) = (Mark::of(&message), message.weight());
                (Body::Message(message.into()), mark, weight)
            }
            Err(delivery) => {
                let mark = Mark::of_undecodable(&delivery);
                let weight = delivery.payload.len() + 1_000;
                (Body::Undecodable(delivery), mark, weight)
            }
        };
        let (key, route, written_at) = match &body {
            Body::Message(message) => (
                KeyId::of(message),
                shop.route_of(message.kind.as_str()),
                message.time.map(SystemTime::from),
            ),
            // Nothing of it runs, so nothing can come out of order.
            Body::Undecodable(_) => (None, None, None),
        };
        let written_at = written_at.or(delivery.origin.sent_at);
        let place = Place {
            number,
            key,
            class: route.unwrap_or(shop.routes.len()),
            partition: delivery.origin.partition.clone(),
            deadline: delivery.deadline,
        };
        let flight = Flight {
            token: delivery.token,
            weight,
            // A producer's clock may be ahead: what has come is not of the future.
            written_at: written_at.map_or(now, |at| at.min(now)),
            deadline: delivery.deadline,
            alarm: alarm.clone(),
            settled: false,
            alone: false,
            leave: leave.clone(),
            job: Some(Job {
                number,
                body,
                mark,
                suspect: false,
                origin: delivery.origin,
                route,
                leave,
                alarm,
            }),
        };
        self.bytes += weight;
        self.largest = self.largest.max(weight);
        self.flights.insert(number, flight);
        place
    }

    /// The type of a delivery whose turn has not come, if a handler is to get it.
    pub(super) fn kind(&self, number: u64) -> Option<&str> {
        let job = self.flights.get(&number)?.job.as_ref()?;
        match &job.body {
            Body::Message(message) => Some(message.kind.as_str()),
            Body::Undecodable(_) => None,
        }
    }

    /// Its turn has come. `fresh`: it is among the first ones of an ownership.
    pub(super) fn start(&mut self, number: u64, fresh: bool) -> Option<Job> {
        let mut job = self.flights.get_mut(&number)?.job.take()?;
        job.suspect |= is_suspect(job.origin.redelivered, fresh);
        Some(job)
    }

    /// Of a delivery that may be part of a batch, its route and its weight. One that came before may
    /// have killed a process: the others are to be spared. One whose type is paused only waits.
    pub(super) fn batch_of(&self, number: u64, shop: &Workshop) -> Option<(usize, usize)> {
        let flight = self.flights.get(&number).filter(|flight| !flight.alone)?;
        let job = flight.job.as_ref()?;
        let (Body::Message(message), Some(place)) = (&job.body, job.route) else {
            return None;
        };
        let came_before = job.origin.redelivered.is_some_and(|times| times > 0);
        if came_before || shop.types.is_paused(message.kind.as_str()) {
            return None;
        }
        let batches = shop.routes.get(place)?.batch.is_some();
        batches.then_some((place, flight.weight))
    }

    /// Its turn is to come again; `alone`: in no batch.
    pub(super) fn restore(&mut self, job: Job, alone: bool) {
        if let Some(flight) = self.flights.get_mut(&job.number) {
            flight.alone = alone;
            flight.job = Some(job);
        }
    }

    /// Those whose attempt did not end at its deadline, each once per attempt.
    pub(super) fn overdue(&self) -> impl Iterator<Item = u64> {
        let overdue = self
            .flights
            .iter()
            .filter(|(_, flight)| flight.alarm.rings());
        overdue.map(|(number, _)| *number)
    }

    pub(super) fn settled(&mut self, number: u64) {
        if let Some(flight) = self.flights.get_mut(&number) {
            flight.settled = true;
            self.newest_settled = self.newest_settled.max(flight.written_at);
        }
    }

    pub(super) fn token(&self, number: u64) -> Option<T> {
        self.flights.get(&number).map(|flight| flight.token.clone())
    }

    /// Whether the number is that of a delivery.
    pub(super) fn has(&self, number: u64) -> bool {
        self.flights.contains_key(&number)
    }

    pub(super) fn remove(&mut self, number: u64) {
        if let Some(flight) = self.flights.remove(&number) {
            self.bytes -= flight.weight;
        }
        if self.flights.is_empty() {
            // Large ones come in bursts; after one they must not keep the room small for ever.
            self.largest = 1;
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.flights.clear();
        self.bytes = 0;
    }

    pub(super) fn set_deadline(&mut self, number: u64, deadline: Option<Instant>) -> bool {
        match self.flights.get_mut(&number) {
            Some(flight) => {
                flight.deadline = deadline;
                true
            }
            None => false,
        }
    }

    pub(super) fn deadline(&self, number: u64) -> Option<Instant> {
        self.flights.get(&number).and_then(|flight| flight.deadline)
    }

    /// Ends the waits of those chosen: nothing new is started of them.
    pub(super) fn leave(&self, which: impl Fn(u64) -> bool) {
        for (number, flight) in &self.flights {
            if which(*number) {
                flight.leave.cancel();
            }
        }
    }

    /// How many messages and bytes are held.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.flights.len(), self.bytes)
    }

    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    pub(super) fn progress(&self) -> Progress {
        let open = self.flights.values().filter(|flight| !flight.settled);
        Progress {
            oldest_held: open.map(|flight| flight.written_at).min(),
            newest_settled: Some(self.newest_settled),
        }
    }
}
