//! Reading from SQS: the handle to a member that lives in a task of its own.

mod acker;
mod backlog;
mod held;
mod join;
mod keeper;
mod member;
mod poll;
mod returns;
mod shelf;

use std::sync::Arc;
use std::time::Duration;

use onceward_core::{
    Arrival, Backlog, Capabilities, InFlightPerKey, Order, Partition, SubscribeError, Subscriber,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

pub use acker::{SqsAcker, SqsToken};

use crate::attributes::MOST_BYTES;
use crate::config::SubscriberConfig;
use crate::connection::{Shared, Sqs};
use crate::headers::BROKER;
use crate::queue::QueueName;
use held::Held;
use member::Member;
use shelf::Shelf;

/// How long SQS lets a delivery be held in all.
pub(crate) const HOLD_LIMIT: Duration = Duration::from_secs(12 * 60 * 60);

/// A queue that a member reads.
#[derive(Debug, Clone)]
struct Reading {
    name: QueueName,
    url: String,
    partition: Partition,
    /// How long the queue keeps a message, as it said when it was joined.
    retention: Option<Duration>,
}

/// One member of a consumer on SQS.
///
/// Each queue is one partition, which all members read at the same time: SQS gives a group of a FIFO queue to one of them at a
/// time, as long as a delivery of it is neither deleted nor visible again. Dropping a member is like a crash: what it holds comes
/// again once its time has run out.
#[derive(Debug)]
pub struct SqsSubscriber {
    shelf: Arc<Shelf>,
    readings: Arc<[Reading]>,
    client: Shared,
    acker: SqsAcker,
    commands: mpsc::UnboundedSender<oneshot::Sender<()>>,
    order: Order,
    _tasks: JoinSet<()>,
}

impl SqsSubscriber {
    pub(crate) async fn join(sqs: Sqs, config: SubscriberConfig) -> Result<Self, SubscribeError> {
        let names = join::check(&config, sqs.config().order)?;
        // SQS counts whole seconds.
        let visibility = Duration::from_secs(config.visibility.as_secs());
        let config = SubscriberConfig {
            visibility,
            ..config
        };
        let client = sqs.client().await;
        let readings: Arc<[Reading]> = join::find(&client, &names, config.attempts).await?.into();
        let fifo = readings.iter().all(|reading| reading.name.is_fifo());
        let client = Shared::new(client);
        let held = Held::default();
        let partitions = readings.iter().map(|reading| reading.partition.clone());
        let shelf = Arc::new(Shelf::new(partitions));
        let acker = SqsAcker::new(
            client.clone(),
            readings.clone(),
            held.clone(),
            shelf.clone(),
            config.visibility,
        );
        let (commands, inbox) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let member = Member::new(
            sqs,
            client.clone(),
            readings.clone(),
            config.clone(),
            shelf.clone(),
            acker.clone(),
            inbox,
        );
        tasks.spawn(member.run());
        tasks.spawn(keeper::run(
            shelf.clone(),
            held,
            acker.clone(),
            config.visibility,
        ));
        Ok(Self {
            shelf,
            readings,
            client,
            acker,
            commands,
            order: if fifo { Order::PerKey } else { Order::None },
            _tasks: tasks,
        })
    }
}

impl Subscriber for SqsSubscriber {
    type Token = SqsToken;
    type Acker = SqsAcker;

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            broker: BROKER,
            order: self.order,
            in_flight_per_key: InFlightPerKey::One,
            broker_dedupe: None,
            hold_limit: Some(HOLD_LIMIT),
            redelivery_count: true,
            positions: false,
            retention: self.readings.iter().filter_map(|one| one.retention).max(),
            max_message: Some(MOST_BYTES),
        }
    }

    fn acker(&self) -> SqsAcker {
        self.acker.clone()
    }

    async fn next(&mut self, room: usize) -> Result<Vec<Arrival<SqsToken>>, SubscribeError> {
        self.shelf.take(room).await
    }

    fn pause(&mut self, partition: &Partition, paused: bool) {
        self.shelf.pause(partition, paused);
    }

    async fn backlog(&mut self) -> Result<Vec<Backlog>, SubscribeError> {
        backlog::ask(&self.client.get(), &self.readings).await
    }

    async fn close(self, within: Duration) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(done).is_ok() {
            // Past the limit the member is dropped, and what it holds comes again in its own time.
            tokio::time::timeout(within, wait).await.ok();
        }
    }
}
