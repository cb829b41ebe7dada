//! What an owner does: ask, hand on, stay known to the server, and notice when it no longer is the owner.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::{AckKind, Context};
use async_nats::{Client, Message, Subject};
use futures_util::StreamExt as _;
use onceward_core::{Arrival, Delivery, Origin, SubscribeError};
use tokio::time::MissedTickBehavior;

use super::acker::{Acked, NatsToken};
use super::claim::{GRACE, Inbox};
use super::durable::{self, Durable, misconfigured};
use super::outbound::{Item, Outbound};
use super::outside::{End, Outside};
use super::positions::Positions;
use super::pull::{Place, Pull, Said, said};
use super::requests::{Requests, batch};
use crate::headers::{self, BROKER};

/// How often an owner with a limit looks whether all of it is acked.
const LIMITED_LOOKS: Duration = Duration::from_millis(250);

/// The right to read the durable.
#[derive(Debug)]
pub(crate) struct Claim {
    /// The id by which the server knows the owner.
    pub(crate) pin: Arc<str>,
    /// Everything up to here is acked, in the stream's numbers.
    pub(crate) settled: u64,
    /// The number of the next delivery.
    pub(crate) next_delivery: u64,
}

/// What an owner uses of its member.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    pub(crate) client: &'a Client,
    pub(crate) context: &'a Context,
    pub(crate) durable: &'a Durable,
    pub(crate) number: usize,
    pub(crate) outbound: &'a Outbound,
}

/// The work of an owner.
pub(crate) struct Owner<'a> {
    client: &'a Client,
    context: &'a Context,
    durable: &'a Durable,
    number: usize,
    outbound: &'a Outbound,
    positions: Positions,
    claim: Claim,
    ownership: u64,
    inbox: Inbox,
    requests: Requests,
    /// How to ack what the handle has not taken yet, newest last; older ones may be in front.
    waiting: VecDeque<Subject>,
    /// How many deliveries may still be asked for, where the one behind them must not come this way.
    limit: Option<usize>,
}

impl<'a> Owner<'a> {
    pub(crate) fn new(
        member: Shared<'a>,
        claim: Claim,
        ownership: u64,
        inbox: Inbox,
        limit: Option<usize>,
    ) -> Self {
        Self {
            client: member.client,
            context: member.context,
            durable: member.durable,
            number: member.number,
            outbound: member.outbound,
            positions: Positions::settled_up_to(claim.settled, member.durable.whole),
            claim,
            ownership,
            inbox,
            requests: Requests::new(),
            waiting: VecDeque::new(),
            limit,
        }
    }

    pub(crate) async fn run(mut self, outside: &mut Outside) -> End {
        let mut every = self.durable.takeover_after / 3;
        if self.limit.is_some() {
            every = every.min(LIMITED_LOOKS);
        }
        let mut extension = tokio::time::interval(self.durable.ack_wait / 3);
        extension.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(error) = self.ask(every).await {
                return End::Unfit(error);
            }
            if let Some(end) = self.done_with_limit().await {
                return end;
            }
            let now = Instant::now();
            let silent = self.requests.until();
            let life = self.requests.next_sign_of_life(now, every);
            let ownership = Some(self.ownership);
            tokio::select! {
                biased;
                end = outside.interrupted(ownership) => {
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
                () = tokio::time::sleep_until(silent.unwrap_or(now).into()), if silent.is_some() => {
                    return End::Again("the server does not answer".to_owned());
                }
                _ = extension.tick() => self.extend_waiting().await,
                () = tokio::time::sleep_until(life.into()) => {}
            }
        }
    }

    /// Asks for what fits, and else, from time to time, for nothing.
    async fn ask(&mut self, every: Duration) -> Result<(), SubscribeError> {
        let now = Instant::now();
        let missing = self.requests.missing();
        let room = self.outbound.room(missing);
        let room = room.min(self.limit.unwrap_or(usize::MAX));
        let pin = self.claim.pin.clone();
        if let Some(batch) = batch(room, self.outbound.capacity(), missing) {
            let number = self.requests.send(now, batch, now + every + GRACE);
            self.limit = self.limit.map(|limit| limit - batch);
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

    /// Whether all that may be asked for is here and acked. Asked only while a limit holds, which is rare.
    async fn done_with_limit(&mut self) -> Option<End> {
        if self.limit != Some(0) || self.requests.missing() > 0 {
            return None;
        }
        let durable = self.durable;
        match durable::info(self.context, &durable.stream, &durable.name).await {
            Ok(Some(info)) if info.num_ack_pending == 0 => {
                Some(End::Again("what comes next cannot be read".to_owned()))
            }
            Ok(_) => None,
            Err(error) => Some(End::Unfit(error)),
        }
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
                place: Acked::ByReply(reply),
                ownership: self.ownership,
                number: self.number,
            },
        };
        self.outbound
            .send(Item::Arrival(Arrival::Delivery(delivery)));
        None
    }

    /// Deliveries that the handle has taken are the caller's to extend.
    fn forget_taken(&mut self) {
        let still = self.outbound.waiting();
        let taken = self.waiting.len().saturating_sub(still);
        self.waiting.drain(..taken);
    }

    async fn extend_waiting(&mut self) {
        self.forget_taken();
        let told = async {
            for reply in self.waiting.iter().cloned() {
                let extended = self.client.publish(reply, AckKind::Progress.into()).await;
                if let Err(error) = extended {
                    tracing::debug!(%error, "a waiting delivery was not extended");
                    return;
                }
            }
        };
        // While the connection is silent, acks may fill the way to it, and nothing else would be heard meanwhile.
        if let Err(error) = tokio::time::timeout(GRACE, told).await {
            tracing::debug!(%error, "waiting deliveries were not extended");
        }
    }
}
