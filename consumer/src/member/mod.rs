//! One member of a consumer: the loop between subscriber, keys, workers and acks. It does; the plan, the keys and the
//! shares decide.

mod arrivals;
mod batches;
mod due;
mod errands;
mod flights;
mod fresh;
mod outage;
mod pauses;
mod poller;
mod positions;
mod reader;
mod recorder;
mod shares;
mod stop;
mod timers;
mod waiting;

use std::sync::Arc;
use std::time::Instant;

use onceward_core::{Backlog, Partition, SubscribeError, Subscriber};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::faults::{Bug, Failpoint, pass, planted};
use crate::keys::Keys;
use crate::plan::Outcome;
use crate::plan::places::{self, Places};
use crate::settled::Settled;
use crate::transaction::{Due, DueLine};
use crate::trial::Trial;
use crate::work::{Done, Report, Then, Workshop};
use crate::{ConsumerError, Limits};
use batches::Batches;
use errands::{Errand, Errands};
use flights::Flights;
use outage::Outage;
use positions::Positions;
use reader::Ask;
use shares::Shares;
use stop::Stopping;
use timers::Timers;
use waiting::Waiting;

/// What reader and acks report to the loop.
#[derive(Debug)]
enum Event<T> {
    /// With the room that was asked for.
    Read(
        usize,
        Result<Vec<onceward_core::Arrival<T>>, SubscribeError>,
    ),
    /// None: the broker did not tell.
    Backlog(Option<Vec<Backlog>>),
    /// Told to the broker, or given up on: they come again, and their marks drop them.
    Acked(Vec<u64>),
    /// What is due in the database; none: it did not tell.
    Due(Option<Due>),
    /// A line whose first message is to be tried for all of its type.
    Probe(DueLine, Trial),
    /// What is known of paused types may have changed.
    Types,
    /// How far it was written that the member has come; none: it was not written.
    Written(Option<Vec<(Partition, u64)>>),
    /// New deadlines; an error leaves the old ones.
    Extended(Vec<u64>, Option<Vec<Option<Instant>>>),
}

/// The state of the loop, which owns all of it.
pub(crate) struct Member<T> {
    shop: Arc<Workshop>,
    limits: Limits,
    keys: Keys,
    flights: Flights<T>,
    shares: Shares,
    positions: Positions,
    batches: Batches,
    outage: Outage,
    /// Due lines of the database.
    waiting: Waiting,
    /// Deliveries that can neither be handled nor deferred.
    held: Vec<u64>,
    timers: Timers,
    /// Deliveries and due lines are numbered together, in the order of arrival.
    next: u64,
    stopping: Option<Stopping>,
    /// Whether to stop when nothing is left to do.
    until_idle: bool,
    settled: Settled,
    /// The room that the reader waits for arrivals with; none: it does not.
    reading: Option<usize>,
    failures: u32,
    workers: JoinSet<Done>,
    /// Reader and acks. One that ends before it is told to is an error.
    io: JoinSet<()>,
    asks: UnboundedSender<Ask>,
    /// How many due lines to look for.
    looks: UnboundedSender<usize>,
    /// Ends the looks at paused types when it is dropped.
    pauses: Option<DropGuard>,
    records: UnboundedSender<Vec<(Partition, u64)>>,
    errands: Errands<T>,
    events: UnboundedReceiver<Event<T>>,
}

impl<T: Clone + Send + Sync + 'static> Member<T> {
    pub(crate) fn new<S: Subscriber<Token = T>>(
        shop: Arc<Workshop>,
        (limits, places): (Limits, Places),
        until_idle: bool,
        subscriber: S,
    ) -> Self {
        let outage = Outage::new(subscriber.capabilities().hold_limit);
        let (asks, asked) = unbounded_channel();
        let (report, events) = unbounded_channel();
        let (looks, wanted) = unbounded_channel();
        let pauses = CancellationToken::new();
        let (records, recorded) = unbounded_channel();
        let mut io = JoinSet::new();
        io.spawn(poller::run(shop.clone(), wanted, report.clone()));
        let tries = pauses::run(
            shop.clone(),
            places::own(places.limit),
            report.clone(),
            pauses.clone(),
        );
        io.spawn(tries);
        io.spawn(recorder::run(shop.clone(), recorded, report.clone()));
        let errands = Errands::start(subscriber.acker(), &report, &mut io);
        io.spawn(reader::run(subscriber, asked, report));
        // Where the user has set none, also what has waited and what is tried has its places.
        let class_limits: Vec<usize> = shop
            .routes
            .iter()
            .map(|route| route.settings.as_ref().unwrap_or(&shop.defaults))
            .map(|settings| settings.concurrency.unwrap_or(places.all))
            // What has no handler.
            .chain([places.all])
            .collect();
        Self {
            waiting: Waiting::new(class_limits.clone(), limits.concurrency, Instant::now()),
            keys: Keys::new(places, class_limits),
            flights: Flights::new(shop.clock.now().into()),
            shares: Shares::new(limits.messages, limits.ahead, shop.at_a_time(&limits)),
            held: Vec::new(),
            positions: Positions::default(),
            batches: Batches::default(),
            outage,
            timers: Timers::new(Instant::now()),
            next: 1,
            stopping: None,
            until_idle,
            settled: Settled::default(),
            reading: None,
            failures: 0,
            workers: JoinSet::new(),
            shop,
            limits,
            io,
            asks,
            looks,
            pauses: Some(pauses.drop_guard()),
            records,
            errands,
            events,
        }
    }

    /// Works until `stop`, and then until what runs has ended or the grace is over. An error ends what runs as a deadline would: an end
    /// by an error is no crash.
    ///
    /// # Cancel safety
    /// Dropped, handlers end at once and are rolled back; what was delivered comes again. It looks like a crash.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<Settled, ConsumerError> {
        let worked = self.work(stop).await;
        let (shop, settled) = (self.shop.clone(), self.settled);
        match &worked {
            Ok(()) => self.close().await,
            Err(_) => self.quit().await,
        }
        shop.keeper.flush().await;
        worked.map(|()| settled)
    }

    async fn work(&mut self, stop: CancellationToken) -> Result<(), ConsumerError> {
        let mut health = self.shop.health.changes();
        while !self.is_done() {
            self.look_at_outage(Instant::now());
            self.start_work();
            self.ask_for_more();
            self.look_for_due();
            let wake = self.wake();
            tokio::select! {
                () = stop.cancelled(), if self.stopping.is_none() => self.begin_to_stop(),
                Some(event) = self.events.recv() => self.on_event(event)?,
                Some(done) = self.workers.join_next() => self.on_done(done)?,
                Some(ended) = self.io.join_next() => self.on_io_ended(ended)?,
                _ = health.changed() => {}
                () = tokio::time::sleep_until(wake.into()) => self.on_time(Instant::now()),
            }
        }
        Ok(())
    }

    /// Starts what may start.
    fn start_work(&mut self) {
        if self.may_start() {
            self.fill_batches(Instant::now());
        }
        while self.may_start() {
            let Some(number) = self.keys.start() else {
                return;
            };
            if let Some(job) = self.waiting.start(number) {
                self.shop.clone().spawn_due(job, &mut self.workers);
                continue;
            }
            if self.begin_batch(number) {
                continue;
            }
            if let Some(kind) = self.flights.kind(number)
                && self.shop.handles(kind)
                && self.shop.types.holds(kind)
            {
                self.keys.set_aside(number);
                self.held.push(number);
                continue;
            }
            let Some(job) = self.begin(number) else {
                self.keys.end(number);
                continue;
            };
            if planted(Bug::AckBeforeCommit) {
                self.ack(number);
            }
            self.shop.clone().spawn(job, &mut self.workers);
        }
    }

    /// While the database is out of reach nothing would come of it.
    fn may_start(&self) -> bool {
        self.shop.health.is_up() && self.stopping.is_none()
    }

    /// When to look by itself.
    fn wake(&self) -> Instant {
        let timer = self.timers.next(self.stopping.as_ref());
        let others = [self.waiting.next(), self.batches.next()];
        let others = others.into_iter().flatten().filter(|_| self.may_start());
        others.chain(self.outage.next()).fold(timer, Instant::min)
    }

    fn next_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn on_event(&mut self, event: Event<T>) -> Result<(), ConsumerError> {
        match event {
            Event::Read(room, read) => {
                // Else it has been asked for more meanwhile.
                self.reading = self.reading.filter(|asked| *asked != room);
                self.on_read(read)?;
            }
            Event::Backlog(backlog) => {
                self.tell_lag(backlog.as_deref());
                self.stop_if_idle(backlog.as_deref());
            }
            Event::Acked(numbers) => {
                for number in numbers {
                    self.forget(number);
                }
                self.release_finished(Instant::now());
                if self.until_idle && self.flights.is_empty() {
                    self.ask(Ask::Backlog);
                }
            }
            Event::Due(due) => {
                if self.stopping.is_none() {
                    self.on_due(due);
                }
            }
            Event::Probe(line, trial) => {
                if self.stopping.is_none() {
                    self.on_probe(line, trial);
                }
            }
            Event::Types => self.bring_back_held(),
            Event::Written(positions) => self.positions.written(positions),
            Event::Extended(numbers, deadlines) => {
                self.on_extended(&numbers, deadlines);
            }
        }
        Ok(())
    }

    fn on_done(&mut self, done: Result<Done, JoinError>) -> Result<(), ConsumerError> {
        match done.map_err(|error| ConsumerError::task(Some(error)))? {
            Done::One(report) => self.on_report(report),
            Done::Batch(fates) => self.on_batch(fates),
        }
        Ok(())
    }

    fn on_report(&mut self, report: Report) {
        let number = report.number;
        self.keys.end(number);
        let waited = self.waiting.end(number);
        match report.then {
            Then::Due(due) => self.waiting.look_after(due, Instant::now()),
            Then::GoesOn(line) => self.take_again(line),
            Then::Nothing if report.outcome == Some(Outcome::Deferred) => self.waiting.joined(),
            Then::Nothing => {}
        }
        if waited {
            if let Some(outcome) = report.outcome {
                self.settled.count(outcome);
            }
            return;
        }
        match report.outcome {
            Some(outcome) => self.settle(number, outcome),
            None => {
                self.give_back(&[number]);
                self.release_finished(Instant::now());
            }
        }
    }

    fn settle(&mut self, number: u64, outcome: Outcome) {
        self.flights.settled(number);
        self.positions.settled(number);
        self.settled.count(outcome);
        if outcome != Outcome::Duplicate {
            self.shares.settled(number);
            pass(Failpoint::AfterCommitBeforeAck);
        }
        // Only now: the commit is durable.
        self.ack(number);
    }

    /// Tells the broker that a delivery is settled, unless its partition is lost.
    fn ack(&mut self, number: u64) {
        match self.flights.token(number) {
            Some(token) if self.shares.is_ours(number) => {
                self.errands.ack(number, token);
            }
            Some(_) | None => self.forget(number),
        }
    }

    /// Leaves deliveries that are not settled: they come again.
    fn give_back(&mut self, numbers: &[u64]) {
        let tokens: Vec<T> = numbers
            .iter()
            .filter(|number| self.shares.is_ours(**number))
            .filter_map(|number| self.flights.token(*number))
            .collect();
        if !tokens.is_empty() {
            self.errands.run(Errand::GiveBack(tokens));
        }
        for number in numbers {
            self.forget(*number);
        }
    }

    /// The end of a delivery in this member.
    fn forget(&mut self, number: u64) {
        self.waiting.end(number);
        self.flights.remove(number);
        self.positions.gone(number);
        if let Some(partition) = self.shares.gone(number) {
            self.ask(Ask::Pause(partition, false));
        }
    }

    /// Has it written how far the member has come, if that is news.
    fn record_positions(&mut self) {
        if let Some(positions) = self.positions.take_news() {
            // Fails only when the recorder has ended, which the loop sees by itself.
            self.records.send(positions).ok();
        }
    }

    fn ask(&self, ask: Ask) {
        // Fails only when the reader has ended, which the loop sees by itself.
        drop(self.asks.send(ask));
    }
}
