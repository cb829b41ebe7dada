//! One member: the task that stands by, owns, loses, and begins again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::{AckKind, Context};
use async_nats::{Client, Message, Subject};
use futures_util::StreamExt as _;
use onceward_core::{Arrival, Backoff, Delivery, Origin, SubscribeError};
use tokio::sync::{mpsc, oneshot};

use super::acker::{LastAck, NatsToken};
use super::claim::{self, GRACE, Inbox, Pinned};
use super::durable::{self, Durable, misconfigured, unavailable};
use super::outbound::{Item, Outbound};
use super::ownership::{Requests, batch};
use super::positions::Positions;
use super::pull::{Place, Pull, Said, said};
use crate::config::SubscriberConfig;
use crate::connection::{Connection, Happening};
use crate::headers::{self, BROKER};

/// What the handle and its ackers ask of the member.
#[derive(Debug)]
pub(crate) enum Command {
    /// Begin again at the oldest unacked message, unless that ownership is over anyway.
    GoBack { ownership: u64, after: Duration },
    /// Give the ownership up and end.
    Leave(oneshot::Sender<()>),
}

pub(crate) struct Member {
    connection: Connection,
    client: Client,
    context: Context,
    config: SubscriberConfig,
    durable: Durable,
    outbound: Outbound,
    commands: mpsc::UnboundedReceiver<Command>,
    last_ack: LastAck,
    pin: Option<Arc<str>>,
}

/// The right to read the durable.
#[derive(Debug)]
struct Claim {
    /// The id by which the server knows the owner.
    pin: Arc<str>,
    /// Everything up to here is acked, in the stream's numbers.
    settled: u64,
    /// The number of the next delivery.
    next_delivery: u64,
}

/// Why an ownership, or the wait for one, is over.
#[derive(Debug)]
enum End {
    /// The connection is lost; the server may still know us by our pin.
    Disconnected,
    /// Somebody else owns the durable now.
    Taken,
    /// Something changed: begin again, with what is said to a person if anything is.
    Again(String),
    /// Told to begin again after a while.
    GoBack(Duration),
    /// The durable is not there or not fit.
    Unfit(SubscribeError),
    /// Told to leave.
    Leave(Option<oneshot::Sender<()>>),
}

impl Member {
    pub(crate) fn new(
        connection: Connection,
        context: Context,
        config: SubscriberConfig,
        durable: Durable,
        outbound: Outbound,
        commands: mpsc::UnboundedReceiver<Command>,
        last_ack: LastAck,
    ) -> Self {
        Self {
            client: connection.client.clone(),
            connection,
            context,
            config,
            durable,
            outbound,
            commands,
            last_ack,
            pin: None,
        }
    }

    /// Runs until it is told to leave or its handle is dropped.
    pub(crate) async fn run(mut self) {
        let backoff = Backoff {
            base: Duration::from_millis(50),
            max: Duration::from_secs(2),
        };
        let mut failures = 0;
        loop {
            let begin = Instant::now();
            let end = match self.claim().await {
                Ok(claim) => self.own(claim).await,
                Err(end) => end,
            };
            if begin.elapsed() > backoff.max {
                failures = 0;
            }
            failures += 1;
            let mut pause = backoff.ceiling(failures);
            match end {
                End::Leave(done) => return self.leave(done).await,
                End::Disconnected => {
                    let lost = unavailable("the connection to NATS is lost".to_owned());
                    self.outbound.send(Item::Failure(lost));
                }
                End::Taken => self.pin = None,
                End::Again(why) => {
                    tracing::info!(durable = %self.durable.name, reason = why, "beginning again at the oldest unacked message");
                }
                End::GoBack(after) => {
                    self.last_ack.settle(&self.client).await;
                    pause = after;
                }
                End::Unfit(error) => self.outbound.send(Item::Failure(error)),
            }
            if let Some(done) = self.rest(pause).await {
                return self.leave(done).await;
            }
        }
    }

    /// Waits until the durable is ours and taken back to its oldest unacked message.
    async fn claim(&mut self) -> Result<Claim, End> {
        let client = self.client.clone();
        let context = self.context.clone();
        let config = self.config.clone();
        let pin = self.pin.clone();
        let claiming = async {
            let durable = durable::look_again(&context, &config)
                .await
                .map_err(End::Unfit)?;
            let pinned = claim::wait_for_pin(&client, &context, &durable, pin)
                .await
                .map_err(End::Unfit)?;
            let pin = match pinned {
                Pinned::By(pin) => pin,
                Pinned::Disturbed(why) => return Err(End::Again(why)),
                Pinned::Gone(why) => return Err(End::Again(why)),
            };
            let place = claim::reset(&context, &durable).await.map_err(End::Unfit)?;
            let claim = Claim {
                pin,
                settled: place.settled,
                next_delivery: place.next_delivery,
            };
            Ok((durable, claim))
        };
        tokio::pin!(claiming);
        loop {
            tokio::select! {
                biased;
                end = interrupted(&mut self.connection, &mut self.commands, None) => {
                    if let Some(end) = end {
                        return Err(end);
                    }
                }
                claimed = &mut claiming => {
                    let (durable, claim) = claimed?;
                    self.durable = durable;
                    self.pin = Some(claim.pin.clone());
                    return Ok(claim);
                }
            }
        }
    }

    /// Owns the durable until something ends that.
    async fn own(&mut self, claim: Claim) -> End {
        let ownership = self.outbound.set_owner(true);
        let partition = self.durable.partition.clone();
        tracing::info!(durable = %self.durable.name, settled = claim.settled, "owner of the durable");
        self.outbound
            .send(Item::Arrival(Arrival::Assigned(partition.clone())));
        let end = match Inbox::open(&self.client, &self.durable).await {
            Ok(inbox) => {
                let owner = Owner {
                    client: &self.client,
                    durable: &self.durable,
                    outbound: &self.outbound,
                    positions: Positions::settled_up_to(claim.settled, self.durable.whole),
                    claim,
                    ownership,
                    inbox,
                    requests: Requests::new(),
                    waiting: VecDeque::new(),
                };
                owner.run(&mut self.connection, &mut self.commands).await
            }
            Err(error) => End::Unfit(error),
        };
        self.outbound.set_owner(false);
        self.outbound.send(Item::Arrival(Arrival::Lost(partition)));
        end
    }

    /// Waits a while; tells if it is to leave meanwhile.
    async fn rest(&mut self, pause: Duration) -> Option<Option<oneshot::Sender<()>>> {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => return None,
                command = self.commands.recv() => match command {
                    Some(Command::Leave(done)) => return Some(Some(done)),
                    None => return Some(None),
                    Some(Command::GoBack { .. }) => {}
                },
            }
        }
    }

    async fn leave(self, done: Option<oneshot::Sender<()>>) {
        if self.pin.is_some() {
            // Acks on their way first: whoever takes over begins behind them.
            self.last_ack.settle(&self.client).await;
            claim::give_up(&self.context, &self.durable).await;
        }
        if let Some(done) = done {
            done.send(()).ok();
        }
    }
}

/// Whether something from outside ends what the member does. `ownership` is the one that a command may be about.
///
/// Cancel safe.
async fn interrupted(
    connection: &mut Connection,
    commands: &mut mpsc::UnboundedReceiver<Command>,
    ownership: Option<u64>,
) -> Option<End> {
    tokio::select! {
        biased;
        command = commands.recv() => match command {
            None => Some(End::Leave(None)),
            Some(Command::Leave(done)) => Some(End::Leave(Some(done))),
            Some(Command::GoBack { ownership: about, after }) => {
                (ownership == Some(about)).then_some(End::GoBack(after))
            }
        },
        happening = connection.happenings.recv() => match happening {
            Some(Happening::Down) => Some(End::Disconnected),
            None => Some(End::Again("the connection is closed".to_owned())),
            Some(Happening::Up) => None,
            Some(Happening::Told(told)) => {
                tracing::warn!(told, "NATS tells of trouble");
                None
            }
        },
    }
}

/// The work of an owner.
struct Owner<'a> {
    client: &'a Client,
    durable: &'a Durable,
    outbound: &'a Outbound,
    positions: Positions,
    claim: Claim,
    ownership: u64,
    inbox: Inbox,
    requests: Requests,
    /// How to ack what the handle has not taken yet, newest last; older ones may be in front.
    waiting: VecDeque<Subject>,
}

impl Owner<'_> {
    async fn run(
        mut self,
        connection: &mut Connection,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> End {
        let every = self.durable.takeover_after / 3;
        let mut extension = tokio::time::interval(self.durable.ack_wait / 3);
        loop {
            if let Err(error) = self.ask(every).await {
                return End::Unfit(error);
            }
            let now = Instant::now();
            let silent = self.requests.until();
            let life = self.requests.next_sign_of_life(now, every);
            let ownership = Some(self.ownership);
            tokio::select! {
                biased;
                end = interrupted(connection, commands, ownership) => {
                    if let Some(end) = end {
                        return end;
                    }
                }
                message = self.inbox.messages.next() => {
                    let Some(message) = message else {
                        return End::Again("the connection is closed".to_owned());
                    };
                    if let Some(end) = self.on_message(message) {
                        return end;
                    }
                }
                () = self.outbound.taken() => {}
                _ = extension.tick() => self.extend_waiting().await,
                () = tokio::time::sleep_until(life.into()) => {}
                () = tokio::time::sleep_until(silent.unwrap_or(now).into()), if silent.is_some() => {
                    return End::Again("the server does not answer".to_owned());
                }
            }
        }
    }

    /// Asks for what fits, and else, from time to time, for nothing.
    async fn ask(&mut self, every: Duration) -> Result<(), SubscribeError> {
        let now = Instant::now();
        let missing = self.requests.missing();
        let room = self.outbound.room(missing);
        let pin = self.claim.pin.clone();
        if let Some(batch) = batch(room, self.outbound.capacity(), missing) {
            let number = self.requests.send(now, batch, now + every + GRACE);
            let pull = Pull::new(batch, every, Some(&pin));
            return self.inbox.pull(number, &pull).await;
        }
        if self.requests.next_sign_of_life(now, every) <= now {
            let number = self.requests.send(now, 0, now);
            let pull = Pull::sign_of_life(every, &pin);
            return self.inbox.pull(number, &pull).await;
        }
        Ok(())
    }

    fn on_message(&mut self, message: Message) -> Option<End> {
        match said(&message) {
            Said::Delivery(place) => self.on_delivery(message, place),
            Said::Ended => {
                if let Some(number) = self.inbox.number(&message) {
                    self.requests.ended(number);
                }
                None
            }
            Said::NotOwner => Some(End::Taken),
            Said::Disturbed(why) => Some(End::Again(why)),
            Said::Gone(why) => Some(End::Unfit(misconfigured(format!(
                "the durable {} is no longer what it was: {why}",
                self.durable.name
            )))),
            Said::Nothing => None,
        }
    }

    fn on_delivery(&mut self, message: Message, place: Place) -> Option<End> {
        // A delivery that did not reach us would come again only after its followers.
        if place.delivery_sequence != self.claim.next_delivery {
            return Some(End::Again(format!(
                "delivery {} came in place of {}",
                place.delivery_sequence, self.claim.next_delivery
            )));
        }
        self.claim.next_delivery += 1;
        self.requests.delivered();
        let partition = self.durable.partition.clone();
        if let Some((from, to)) = self.positions.arrived(place.stream_sequence) {
            tracing::error!(durable = %self.durable.name, from, to, "the stream removed messages that were never delivered");
            self.outbound.send(Item::Arrival(Arrival::Jumped {
                partition: partition.clone(),
                from,
                to,
            }));
        }
        let reply = message.reply.clone()?;
        self.forget_taken();
        self.waiting.push_back(reply.clone());
        let stream = &self.durable.stream;
        let delivery = Delivery {
            message: headers::decode(
                stream,
                place.stream_sequence,
                &message.subject,
                message.headers.as_ref(),
                message.payload,
            ),
            origin: Origin {
                broker: BROKER,
                partition,
                position: Some(place.stream_sequence),
                // A reset begins the count anew, so one that never came before cannot be told.
                redelivered: Some(place.delivered.saturating_sub(1)).filter(|count| *count > 0),
                sent_at: place.stored_at,
            },
            deadline: Some(Instant::now() + self.durable.ack_wait),
            token: NatsToken {
                reply,
                ownership: self.ownership,
            },
        };
        self.outbound
            .send(Item::Arrival(Arrival::Delivery(delivery)));
        None
    }

    /// Deliveries that the handle has taken are the caller's to extend.
    fn forget_taken(&mut self) {
        let taken = self
            .waiting
            .len()
            .saturating_sub(self.outbound.waiting().max(1));
        self.waiting.drain(..taken);
    }

    async fn extend_waiting(&mut self) {
        self.forget_taken();
        for reply in self.waiting.iter().cloned() {
            let extended = self.client.publish(reply, AckKind::Progress.into()).await;
            if let Err(error) = extended {
                tracing::debug!(%error, "a waiting delivery was not extended");
                return;
            }
        }
    }
}
