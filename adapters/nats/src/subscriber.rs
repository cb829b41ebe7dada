//! Reading from JetStream: the handle to a member that lives in a task of its own.

mod acker;
mod backlog;
mod claim;
mod durable;
mod member;
mod outbound;
mod outside;
mod owner;
mod positions;
mod pull;
mod requests;
mod suspicion;
mod unreadable;

use std::time::{Duration, Instant};

use async_nats::jetstream;
use onceward_core::{
    Arrival, Backlog, Capabilities, InFlightPerKey, Order, Partition, PublishError, SubscribeError,
    SubscribeErrorKind, Subscriber,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

pub use acker::{NatsAcker, NatsToken};

use crate::config::{NatsConfig, SubscriberConfig};
use crate::connection;
use crate::headers::BROKER;
use acker::LastAck;
use durable::Durable;
use member::Member;
use outbound::{Inbound, Item};
use outside::Command;

/// One member of a consumer on NATS JetStream, with a connection of its own.
///
/// All members share one durable, which has one owner at a time; the others stand by. An owner that comes or comes back
/// first takes the durable back to its oldest unacked message, so that deliveries come in the stream's order. Dropping it is
/// like a crash: another member takes over once the server has missed it.
#[derive(Debug)]
pub struct NatsSubscriber {
    items: Inbound,
    commands: mpsc::UnboundedSender<Command>,
    acker: NatsAcker,
    context: jetstream::Context,
    durable: Durable,
    paused: bool,
    _member: JoinSet<()>,
}

impl NatsSubscriber {
    /// Joins a consumer, making its durable if it does not exist.
    ///
    /// # Errors
    /// [`SubscribeError`] of kind `Misconfigured` for a durable, a stream or a server with which messages or order would be
    /// lost; `Unauthorized` when NATS refuses the credentials; else `Unavailable`.
    ///
    /// # Cancel safety
    /// Safe to drop; the durable may be made.
    pub async fn join(
        config: &NatsConfig,
        member: SubscriberConfig,
    ) -> Result<Self, SubscribeError> {
        durable::check_names(&member)?;
        let connection = connection::lasting(config).await.map_err(not_connected)?;
        let client = connection.client.clone();
        durable::check_server(&client.server_info().version)?;
        let context = jetstream::context::ContextBuilder::new()
            .timeout(config.request_timeout)
            .build(client.clone());
        let durable = durable::ensure(&context, &member).await?;
        let (outbound, items) = outbound::channel(member.buffer);
        let (commands, inbox) = mpsc::unbounded_channel();
        let last_ack = LastAck::default();
        let acker = NatsAcker::new(client, durable.ack_wait, commands.clone(), last_ack.clone());
        let task = Member::new(
            connection,
            context.clone(),
            member,
            durable.clone(),
            outbound,
            inbox,
            last_ack,
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run());
        Ok(Self {
            items,
            commands,
            acker,
            context,
            durable,
            paused: false,
            _member: tasks,
        })
    }

    /// The broker's deadline for a delivery, which the member moved on while it waited here.
    fn arrival(&self, mut arrival: Arrival<NatsToken>) -> Arrival<NatsToken> {
        if let Arrival::Delivery(delivery) = &mut arrival {
            // Waiting deliveries are extended each third of the wait, so more than half of it is left.
            let at_least = Instant::now() + self.durable.ack_wait / 2;
            delivery.deadline = delivery.deadline.map(|deadline| deadline.max(at_least));
        }
        arrival
    }
}

fn not_connected(error: PublishError) -> SubscribeError {
    use onceward_core::ErrorKind;

    let kind = match error.kind {
        ErrorKind::Unauthorized => SubscribeErrorKind::Unauthorized,
        ErrorKind::Unavailable
        | ErrorKind::Throttled
        | ErrorKind::UnknownTopic
        | ErrorKind::TooLarge
        | ErrorKind::Rejected => SubscribeErrorKind::Unavailable,
    };
    SubscribeError::with_source(kind, error.what.clone(), error)
}

impl Subscriber for NatsSubscriber {
    type Token = NatsToken;
    type Acker = NatsAcker;

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            broker: BROKER,
            order: Order::PerKey,
            in_flight_per_key: InFlightPerKey::One,
            broker_dedupe: None,
            hold_limit: None,
            // A takeover begins the count anew.
            redelivery_count: false,
            positions: true,
            retention: None,
            max_message: None,
        }
    }

    fn acker(&self) -> NatsAcker {
        self.acker.clone()
    }

    async fn next(&mut self, room: usize) -> Result<Vec<Arrival<NatsToken>>, SubscribeError> {
        if self.paused {
            // Resuming needs this subscriber, so this wait ends by being dropped.
            std::future::pending::<()>().await;
        }
        let items = self.items.take(room.max(1)).await?;
        let arrivals = items.into_iter().map(|item| match item {
            Item::Arrival(arrival) => Ok(self.arrival(arrival)),
            Item::Failure(error) => Err(error),
        });
        arrivals.collect()
    }

    fn pause(&mut self, partition: &Partition, paused: bool) {
        if *partition == self.durable.partition {
            self.paused = paused;
        }
    }

    async fn backlog(&mut self) -> Result<Vec<Backlog>, SubscribeError> {
        if !self.items.is_owner() {
            return Ok(Vec::new());
        }
        let backlog = backlog::ask(&self.context, &self.durable).await?;
        Ok(vec![backlog])
    }

    async fn close(self, within: Duration) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Leave(done)).is_ok() {
            // Past the limit the member is dropped, and the server misses it in its own time.
            tokio::time::timeout(within, wait).await.ok();
        }
    }
}
