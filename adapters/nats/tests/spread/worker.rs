//! Members at work, and what they settled together.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use onceward_core::{Acker as _, Arrival, Delivery, Partition, Release, Subscriber as _};
use onceward_nats::{NatsAcker, NatsSubscriber, NatsToken};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::{ByKey, PATIENCE};

/// What is settled, as marks in a database would have it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks(pub(crate) Arc<Mutex<Settled>>);

#[derive(Debug, Default)]
pub(crate) struct Settled {
    ids: HashSet<String>,
    order: ByKey,
    /// Deliveries of what was settled already.
    pub(crate) copies: usize,
    /// Partitions that members lost without being asked to give them back.
    pub(crate) lost: usize,
}

impl Marks {
    fn settle(&self, delivery: &Delivery<NatsToken>) {
        let message = delivery.message.as_ref().unwrap();
        let number = std::str::from_utf8(&message.payload).unwrap();
        let mut marks = self.0.lock().unwrap();
        if marks.ids.insert(message.id.to_string()) {
            let key = message.key.as_ref().unwrap().to_string();
            let order = marks.order.entry(key).or_default();
            order.push(number.parse().unwrap());
        } else {
            marks.copies += 1;
        }
    }

    fn order(&self) -> ByKey {
        self.0.lock().unwrap().order.clone()
    }

    pub(crate) async fn are(&self, expected: &ByKey) {
        let settled = || self.0.lock().unwrap().ids.len();
        let all = expected.values().map(Vec::len).sum::<usize>();
        onceward_testkit::wait::until_true(PATIENCE, "all messages", || async { settled() >= all })
            .await;
        assert_eq!(&self.order(), expected);
    }
}

/// What a worker owns, for all to see.
pub(crate) type Owned = watch::Receiver<BTreeSet<String>>;

/// A member at work: it holds each delivery for a while, settles it, and acks it.
pub(crate) struct Worker {
    pub(crate) reader: NatsSubscriber,
    acker: NatsAcker,
    marks: Marks,
    in_work: VecDeque<(Instant, Delivery<NatsToken>)>,
    releases: Vec<(Partition, Release)>,
    owned: watch::Sender<BTreeSet<String>>,
    /// How long each delivery is in work.
    takes: Duration,
    /// Until when it settles what comes.
    works: watch::Receiver<bool>,
}

/// A worker in a task of its own.
pub(crate) struct Running {
    pub(crate) owned: Owned,
    pub(crate) works: watch::Sender<bool>,
    stop: tokio::sync::oneshot::Sender<()>,
    task: JoinHandle<Worker>,
}

impl Running {
    pub(crate) fn owns(&self) -> usize {
        self.owned.borrow().len()
    }

    pub(crate) async fn stop(self) -> Worker {
        self.stop.send(()).unwrap();
        self.task.await.unwrap()
    }
}

pub(crate) fn owns(workers: &[&Running]) -> Vec<usize> {
    let mut sizes: Vec<usize> = workers.iter().map(|worker| worker.owns()).collect();
    sizes.sort_unstable();
    sizes
}

impl Worker {
    pub(crate) fn start(reader: NatsSubscriber, marks: &Marks, takes: Duration) -> Running {
        let (owned, seen) = watch::channel(BTreeSet::new());
        let (works, working) = watch::channel(true);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let worker = Self {
            acker: reader.acker(),
            reader,
            marks: marks.clone(),
            in_work: VecDeque::new(),
            releases: Vec::new(),
            owned,
            takes,
            works: working,
        };
        Running {
            owned: seen,
            works,
            stop,
            task: tokio::spawn(worker.run(stopped)),
        }
    }

    async fn run(mut self, mut stop: tokio::sync::oneshot::Receiver<()>) -> Self {
        loop {
            let working = *self.works.borrow();
            let due = self.in_work.front().map(|(due, _)| *due);
            let due = due.filter(|_| working);
            tokio::select! {
                _ = &mut stop => return self,
                arrivals = self.reader.next(20) => {
                    // An outage is told and waited out by the adapter.
                    for arrival in arrivals.unwrap_or_default() {
                        self.arrived(arrival);
                    }
                }
                _ = self.works.changed() => {}
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                    self.settle_next().await;
                }
            }
            self.release_finished();
        }
    }

    fn arrived(&mut self, arrival: Arrival<NatsToken>) {
        match arrival {
            Arrival::Delivery(delivery) => {
                self.in_work
                    .push_back((Instant::now() + self.takes, delivery));
            }
            Arrival::Assigned(partition) => self.own(&partition, true),
            Arrival::Revoking {
                partition, release, ..
            } => self.releases.push((partition, release)),
            Arrival::Lost(partition) => {
                self.in_work
                    .retain(|(_, delivery)| delivery.origin.partition != partition);
                self.releases.retain(|(revoked, _)| *revoked != partition);
                self.marks.0.lock().unwrap().lost += 1;
                self.own(&partition, false);
            }
            Arrival::Jumped { .. } => panic!("nothing was removed"),
        }
    }

    async fn settle_next(&mut self) {
        if let Some((_, delivery)) = self.in_work.pop_front() {
            self.marks.settle(&delivery);
            // A lost ack is a delivery that comes again.
            self.acker.ack(vec![delivery.token]).await.ok();
        }
    }

    fn release_finished(&mut self) {
        let in_work = &self.in_work;
        let finished = |partition: &Partition| {
            let mut deliveries = in_work.iter();
            deliveries.all(|(_, delivery)| delivery.origin.partition != *partition)
        };
        let (done, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.releases)
            .into_iter()
            .partition(|(partition, _)| finished(partition));
        self.releases = rest;
        for (partition, release) in done {
            self.own(&partition, false);
            drop(release);
        }
    }

    fn own(&self, partition: &Partition, owns: bool) {
        let name = partition.to_string();
        self.owned.send_modify(|owned| {
            if owns {
                owned.insert(name);
            } else {
                owned.remove(&name);
            }
        });
    }
}

pub(crate) const NO_TIME: Duration = Duration::ZERO;
