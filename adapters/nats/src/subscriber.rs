//! Reading from JetStream: the handle to a member, which has a task for each of its durables.

mod acker;
mod backlog;
mod claim;
mod durable;
mod handover;
mod inbound;
mod member;
mod outbound;
mod outside;
mod owner;
mod partitions;
mod positions;
mod presence;
mod pull;
mod requests;
mod spread;
mod suspicion;
mod unreadable;
mod wish;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::jetstream::{self, Context};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use onceward_core::{
    Arrival, Backlog, Capabilities, InFlightPerKey, Order, Partition, PublishError, SubscribeError,
    SubscribeErrorKind, Subscriber,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

pub use acker::{NatsAcker, NatsToken};

use crate::config::{NatsConfig, SubscriberConfig};
use crate::connection::{self, Happenings};
use crate::headers::BROKER;
use acker::{LastAck, Line};
use durable::Durable;
use inbound::Inbound;
use member::Member;
use outside::{Command, Outside};
use presence::{Goodbye, Presence};
use spread::Share;
use wish::Wish;

/// Over how many durables the backlog is asked for at a time.
const ASKED_AT_ONCE: usize = 16;

/// One member of a consumer on NATS JetStream, with a connection of its own.
///
/// All members share one durable, which has one owner at a time; the others stand by. An owner that comes or comes back
/// first takes the durable back to its oldest unacked message, so that deliveries come in the stream's order. With partitioned
/// subjects there is such a durable for each partition, and members that hear each other share them out. Dropping it is
/// like a crash: another member takes over once the server has missed it.
#[derive(Debug)]
pub struct NatsSubscriber {
    items: Inbound,
    acker: NatsAcker,
    context: Context,
    parts: Vec<Part>,
    spread: Option<Spread>,
    _tasks: JoinSet<()>,
}

/// One durable.
#[derive(Debug)]
struct Part {
    durable: Durable,
    commands: mpsc::UnboundedSender<Command>,
}

/// How this member shares partitions with others.
#[derive(Debug)]
struct Spread {
    share: watch::Receiver<Share>,
    goodbye: Goodbye,
}

impl NatsSubscriber {
    /// Joins a consumer, making its durables if they do not exist.
    ///
    /// # Errors
    /// [`SubscribeError`] of kind `Misconfigured` for a durable, a stream or a server with which messages or order would be
    /// lost, and for subjects with an invalid `{partition/N}` token; `Unauthorized` when NATS refuses the credentials; else
    /// `Unavailable`.
    ///
    /// # Cancel safety
    /// Safe to drop; durables may be made.
    pub async fn join(
        config: &NatsConfig,
        member: SubscriberConfig,
    ) -> Result<Self, SubscribeError> {
        durable::check_names(&member)?;
        let wanted = partitions::split(&member)?;
        let count = wanted.configs.len();
        let connected = connection::lasting(config, count + usize::from(wanted.spread)).await;
        let (client, mut happenings) = connected.map_err(not_connected)?;
        durable::check_server(&client.server_info().version)?;
        let context = jetstream::context::ContextBuilder::new()
            .timeout(config.request_timeout)
            .build(client.clone());
        let durables = durable::ensure(&context, &wanted.configs).await?;
        let mut tasks = JoinSet::new();
        let own = wanted.spread.then(|| happenings.remove(0));
        let spread = match (own, durables.first()) {
            (Some(own), Some(first)) => {
                let subject = presence::subject(&first.stream, &member.durable);
                let of = (count, first.made.clone());
                Some(Spread::begin(&client, own, subject, of, &mut tasks).await?)
            }
            (None, _) | (_, None) => None,
        };
        let (outbounds, items) = outbound::channels(count, member.buffer);
        let (mut parts, mut lines) = (Vec::new(), Vec::new());
        let configs = wanted.configs.into_iter().zip(durables);
        let ends = happenings.into_iter().zip(outbounds);
        for (number, ((config, durable), (happenings, outbound))) in configs.zip(ends).enumerate() {
            let (sender, commands) = mpsc::unbounded_channel();
            let last = LastAck::default();
            let outside = Outside {
                happenings,
                commands,
                wish: Spread::wish(spread.as_ref(), number),
            };
            lines.push(Line {
                ack_wait: durable.ack_wait,
                commands: sender.clone(),
                last: last.clone(),
            });
            parts.push(Part {
                durable: durable.clone(),
                commands: sender,
            });
            let part = (number, config, durable);
            let (client, context) = (client.clone(), context.clone());
            tasks.spawn(Member::new(client, context, part, outside, outbound, last).run());
        }
        Ok(Self {
            items,
            acker: NatsAcker::new(client, lines),
            context,
            parts,
            spread,
            _tasks: tasks,
        })
    }

    /// The broker's deadline for a delivery, which the member moved on while it waited here.
    fn arrival(&self, mut arrival: Arrival<NatsToken>) -> Arrival<NatsToken> {
        if let Arrival::Delivery(delivery) = &mut arrival
            && let Some(part) = self.parts.get(delivery.token.number)
        {
            // Waiting deliveries are extended each third of the wait, so more than half of it is left.
            let at_least = Instant::now() + part.durable.ack_wait / 2;
            delivery.deadline = delivery.deadline.map(|deadline| deadline.max(at_least));
        }
        arrival
    }

    /// Whether that durable is this member's to read: owned, or fallen to its share, for what waits in it is told also while
    /// it passes from one member to another.
    fn is_ours(&self, number: usize) -> bool {
        let share = self.spread.as_ref().map(|spread| *spread.share.borrow());
        self.items.is_owner(number) || share.is_some_and(|share| share.has(number))
    }
}

impl Spread {
    async fn begin(
        client: &Client,
        happenings: Happenings,
        subject: String,
        of: (usize, Arc<str>),
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, SubscribeError> {
        let (shares, share) = watch::channel(Share::NONE);
        let begun = Presence::begin(client, happenings, subject, of, shares);
        let (presence, goodbye) = begun.await?;
        tasks.spawn(presence.run());
        Ok(Self { share, goodbye })
    }

    fn wish(spread: Option<&Self>, partition: usize) -> Wish {
        spread.map_or(Wish::Always, |spread| Wish::Shared {
            share: spread.share.clone(),
            partition,
        })
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
        let arrivals = self.items.take(room).await?;
        let arrivals = arrivals.into_iter().map(|arrival| self.arrival(arrival));
        Ok(arrivals.collect())
    }

    fn pause(&mut self, partition: &Partition, paused: bool) {
        let mut parts = self.parts.iter();
        if let Some(number) = parts.position(|part| part.durable.partition == *partition) {
            self.items.pause(number, paused);
        }
    }

    async fn backlog(&mut self) -> Result<Vec<Backlog>, SubscribeError> {
        let ours = (0..self.parts.len()).filter(|number| self.is_ours(*number));
        let ours = ours.filter_map(|number| self.parts.get(number));
        let asked = ours.map(|part| backlog::ask(&self.context, &part.durable));
        let asked: Vec<_> = asked.collect();
        stream::iter(asked)
            .buffered(ASKED_AT_ONCE)
            .try_collect()
            .await
    }

    async fn close(self, within: Duration) {
        let leaving = async {
            if let Some(spread) = self.spread {
                // First, so that the others stand by for what is given up.
                let (done, wait) = oneshot::channel();
                if spread.goodbye.send(done).is_ok() {
                    wait.await.ok();
                }
            }
            let mut waits = Vec::new();
            for part in &self.parts {
                let (done, wait) = oneshot::channel();
                if part.commands.send(Command::Leave(done)).is_ok() {
                    waits.push(wait);
                }
            }
            for wait in waits {
                wait.await.ok();
            }
        };
        // Past the limit the member is dropped, and the server misses it in its own time.
        tokio::time::timeout(within, leaving).await.ok();
    }
}
