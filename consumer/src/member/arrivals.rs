//! What comes from the broker: deliveries, changes of ownership, and time passing.

use std::time::{Duration, Instant};

use onceward_core::{
    Arrival, Backlog, Delivery, Partition, Release, SubscribeError, SubscribeErrorKind,
};
use tracing::{debug, error, info, warn};

use super::Member;
use super::errands::Errand;
use super::fresh::Stand;
use super::reader::Ask;
use super::timers::{Revocation, Tick, extension};
use crate::ConsumerError;
use crate::lag::lag;
use crate::plan::{self, Reading};
use crate::trouble::chain;
use crate::work::Job;

/// How many deliveries are asked for at a time.
const BATCH: usize = 256;

/// How long before the broker takes a partition away it is given back, whatever still runs.
const MARGIN: Duration = Duration::from_millis(200);

/// Between tries to extend, when the broker does not answer.
const EXTEND_AGAIN: Duration = Duration::from_millis(500);

impl<T: Clone + Send + Sync + 'static> Member<T> {
    /// Asks for more deliveries, if there is room and somebody to work on them; else for changes of ownership, which wait for neither.
    pub(super) fn ask_for_more(&mut self) {
        if self.reading.is_some_and(|asked| asked > 0) {
            return;
        }
        let room = if self.may_start() { self.room() } else { 0 };
        if room == 0 && self.may_start() {
            // Nothing more can come that a batch could wait for.
            self.start_batches();
        }
        if self.reading != Some(room) && self.timers.may_read() {
            self.reading = Some(room);
            self.ask(Ask::Read(room));
        }
    }

    fn room(&self) -> usize {
        let limit = (self.limits.messages, self.limits.bytes);
        plan::room(self.flights.held(), limit, self.flights.largest(), BATCH)
    }

    pub(super) fn on_read(
        &mut self,
        read: Result<Vec<Arrival<T>>, SubscribeError>,
    ) -> Result<(), ConsumerError> {
        match read {
            Ok(arrivals) => {
                self.failures = 0;
                for arrival in arrivals {
                    self.on_arrival(arrival);
                }
                Ok(())
            }
            Err(error) => self.on_reading_failed(error),
        }
    }

    fn on_reading_failed(&mut self, error: SubscribeError) -> Result<(), ConsumerError> {
        self.failures = self.failures.saturating_add(1);
        let failures = self.failures;
        // A refusal is no reason to leave what runs at a stop.
        let kind = match self.stopping {
            Some(_) => SubscribeErrorKind::Unavailable,
            None => error.kind,
        };
        match plan::after_reading(kind, failures, fastrand::f64()) {
            Reading::Refuse => return Err(ConsumerError::Subscribe(error)),
            Reading::Again(delay) => self.timers.read_after(Instant::now() + delay),
        }
        match error.kind {
            SubscribeErrorKind::Unauthorized if failures == 1 => {
                error!(error = %chain(&error), "the broker refuses this consumer; it keeps trying");
            }
            SubscribeErrorKind::Unavailable if failures == 1 => {
                warn!(error = %chain(&error), "the broker is out of reach; the consumer keeps trying");
            }
            SubscribeErrorKind::Unauthorized
            | SubscribeErrorKind::Unavailable
            | SubscribeErrorKind::Misconfigured
            | SubscribeErrorKind::Expired => {
                debug!(failures, error = %chain(&error), "reading failed");
            }
        }
        Ok(())
    }

    fn on_arrival(&mut self, arrival: Arrival<T>) {
        match arrival {
            Arrival::Delivery(delivery) => self.on_delivery(delivery),
            Arrival::Assigned(partition) => {
                info!(%partition, "assigned");
                self.shares.assigned(&partition);
            }
            Arrival::Revoking {
                partition,
                within,
                release,
            } => self.on_revoking(partition, within, release),
            Arrival::Lost(partition) => {
                info!(%partition, "lost");
                self.dissolve_batches();
                self.drop_waiting_of(&partition);
                self.leave_partition(&partition);
                self.release_finished(Instant::now());
            }
            Arrival::Jumped {
                partition,
                from,
                to,
            } => {
                error!(%partition, from, to, "the broker's retention removed messages that were never delivered");
                self.shop.meters.jumped(to.saturating_sub(from));
            }
        }
    }

    fn on_delivery(&mut self, delivery: Delivery<T>) {
        if delivery.origin.redelivered.is_some_and(|times| times > 0) {
            self.shop.meters.redelivered();
        }
        let number = self.next_number();
        let position = delivery.origin.position;
        let place = self.flights.arrive(number, delivery, &self.shop);
        self.positions.arrive(&place.partition, number, position);
        let stand = Stand {
            key: place.key.clone(),
            together: self.shop.together(place.class),
        };
        let full = self.shares.arrive(&place.partition, number, stand);
        if let Some(full) = full {
            debug!(partition = %full, "paused: it holds all it may");
            self.start_batches();
            self.ask(Ask::Pause(full, true));
        }
        if let Some(deadline) = place.deadline {
            let at = extension(Instant::now(), deadline);
            self.timers.extend_at(place.number, at);
        }
        self.keys.arrive(place.number, place.key, place.class);
        if self.stopping.is_some() || self.outage.is_given_back() {
            let waiting = self.keys.drop_waiting(|number| number == place.number);
            self.give_back(&waiting);
        }
    }

    /// The turn of a delivery has come.
    pub(super) fn begin(&mut self, number: u64) -> Option<Job> {
        let fresh = self.shares.is_fresh(number);
        self.flights.start(number, fresh)
    }

    /// Starts nothing new of it; what runs may end. Its waits for another attempt end now.
    fn on_revoking(&mut self, partition: Partition, within: Duration, release: Release) {
        info!(%partition, ?within, "revoking");
        // They have their place already: what runs may end.
        self.start_batches();
        self.shares.revoking(&partition);
        self.drop_waiting_of(&partition);
        let shares = &self.shares;
        self.flights
            .leave(|number| shares.is_of(number, &partition));
        self.timers.revoke(Revocation {
            until: Instant::now() + within.saturating_sub(MARGIN),
            partition,
            release,
        });
        self.release_finished(Instant::now());
    }

    fn drop_waiting_of(&mut self, partition: &Partition) {
        let shares = &self.shares;
        let waiting = self
            .keys
            .drop_waiting(|number| shares.is_of(number, partition));
        self.give_back(&waiting);
    }

    fn leave_partition(&mut self, partition: &Partition) {
        if self.shares.lost(partition) {
            // Behind the pause, which may still be on its way.
            self.ask(Ask::Pause(partition.clone(), false));
        }
        self.positions.lost(partition);
    }

    /// Gives back what is revoked and finished, or must go now.
    pub(super) fn release_finished(&mut self, now: Instant) {
        let shares = &self.shares;
        let due = self
            .timers
            .due_revocations(now, |partition| shares.is_finished(partition));
        for Revocation {
            partition, release, ..
        } in due
        {
            let finished = self.shares.is_finished(&partition);
            debug!(%partition, finished, "given back");
            self.leave_partition(&partition);
            drop(release);
        }
    }

    pub(super) fn on_time(&mut self, now: Instant) {
        self.release_finished(now);
        self.on_stopping(now);
        self.timers.read_if_due(now);
        let due = self.timers.due_extensions(now);
        let tokens: Vec<(u64, T)> = due
            .into_iter()
            .filter_map(|number| Some((number, self.flights.token(number)?)))
            .collect();
        if !tokens.is_empty() {
            self.errands.run(Errand::Extend(tokens));
        }
        let tick = self.timers.tick(now);
        if tick != Tick::None && self.shop.health.is_up() {
            self.record_positions();
        }
        match tick {
            Tick::None => {}
            Tick::Overdue => {
                self.look_for_overdue();
                if self.until_idle {
                    self.ask(Ask::Backlog);
                }
            }
            Tick::OverdueAndBacklog => {
                self.look_for_overdue();
                self.ask(Ask::Backlog);
            }
        }
    }

    fn look_for_overdue(&self) {
        for number in self.flights.overdue().chain(self.waiting.overdue()) {
            error!(
                number,
                "a handler did not end at its deadline: it blocks its thread; its key waits"
            );
            self.shop.meters.overdue();
        }
    }

    pub(super) fn on_extended(&mut self, numbers: &[u64], deadlines: Option<Vec<Option<Instant>>>) {
        let now = Instant::now();
        match deadlines {
            Some(deadlines) => {
                for (number, deadline) in numbers.iter().zip(deadlines) {
                    let held = self.flights.set_deadline(*number, deadline);
                    // One that has passed cannot be moved on: it comes again, to whomever.
                    if let Some(deadline) = deadline.filter(|at| held && *at > now) {
                        self.timers.extend_at(*number, extension(now, deadline));
                    }
                }
            }
            None => {
                for number in numbers {
                    // After its deadline somebody else may have it; the mark decides.
                    if self.flights.deadline(*number).is_some_and(|at| at > now) {
                        self.timers.extend_at(*number, now + EXTEND_AGAIN);
                    }
                }
            }
        }
    }

    pub(super) fn tell_lag(&self, backlog: Option<&[Backlog]>) {
        let progress = self.flights.progress();
        let now = self.shop.clock.now().into();
        self.shop.meters.lag(lag(now, progress, backlog));
    }
}
