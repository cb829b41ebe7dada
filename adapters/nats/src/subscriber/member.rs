//! One member: the task that stands by, owns, loses, and begins again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::jetstream::Context;
use onceward_core::{Arrival, Backoff};
use tokio::sync::oneshot;

use super::acker::LastAck;
use super::claim::{self, Inbox, Pinned};
use super::durable::{self, Durable, unavailable};
use super::handover::{self, Over};
use super::outbound::{Item, Outbound};
use super::outside::{Command, End, Outside};
use super::owner::{Claim, Owner, Shared};
use super::suspicion::Suspicion;
use super::unreadable::{self, Unreadable};
use crate::config::SubscriberConfig;
use crate::connection::Happening;

/// How a rest ended.
enum Rested {
    Connected,
    Disconnected,
    Leave(Option<oneshot::Sender<()>>),
}

pub(crate) struct Member {
    outside: Outside,
    client: Client,
    context: Context,
    config: SubscriberConfig,
    durable: Durable,
    /// Which of the member's durables it is, counted from 0.
    number: usize,
    outbound: Outbound,
    last_ack: LastAck,
    pin: Option<Arc<str>>,
    suspicion: Suspicion,
}

impl Member {
    pub(crate) fn new(
        client: Client,
        context: Context,
        part: (usize, SubscriberConfig, Durable),
        outside: Outside,
        outbound: Outbound,
        last_ack: LastAck,
    ) -> Self {
        let (number, config, durable) = part;
        Self {
            outside,
            client,
            context,
            config,
            durable,
            number,
            outbound,
            last_ack,
            pin: None,
            suspicion: Suspicion::default(),
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
            let end = self.turn().await.unwrap_or_else(|end| end);
            if begin.elapsed() > backoff.max {
                failures = 0;
            }
            failures += 1;
            let mut pause = backoff.ceiling(failures);
            match end {
                End::Leave(done) => return self.leave(done).await,
                End::Disconnected => {
                    self.suspicion.disconnected();
                    self.tell_outage();
                }
                End::Taken => self.pin = None,
                End::Unwanted => {}
                End::Again(why) => {
                    tracing::info!(durable = %self.durable.name, reason = why, "beginning again at the oldest unacked message");
                }
                End::GoBack(after) => {
                    self.last_ack.settle(&self.client).await;
                    pause = after;
                }
                End::Unfit(error) => self.outbound.send(Item::Failure(error)),
            }
            match self.rest(pause).await {
                Rested::Connected => {}
                Rested::Disconnected => self.tell_outage(),
                Rested::Leave(done) => return self.leave(done).await,
            }
        }
    }

    fn tell_outage(&self) {
        let lost = unavailable("the connection to NATS is lost".to_owned());
        self.outbound.send(Item::Failure(lost));
    }

    /// Stands by, owns, and loses, once. Either side of the result is how it ended.
    async fn turn(&mut self) -> Result<End, End> {
        if !self.outside.wish.is_wanted() {
            self.give_up().await;
            self.outside.until_wanted().await?;
        }
        let mut limit = None;
        if self.suspicion.is_strong() {
            let (context, durable) = (self.context.clone(), self.durable.clone());
            let search = async move { unreadable::first(&context, &durable).await };
            match self.outside.unless_interrupted(search).await?? {
                Some(found) if found.readable_before == 0 => {
                    return Ok(self.give_out_unreadable(found).await);
                }
                Some(found) => limit = Some(found.readable_before),
                None => self.suspicion.refuted(),
            }
        }
        let claim = self.claim().await?;
        self.suspicion.claimed(claim.settled);
        Ok(self.own(claim, limit).await)
    }

    /// Waits until the durable is ours and taken back to its oldest unacked message.
    async fn claim(&mut self) -> Result<Claim, End> {
        let (client, context) = (self.client.clone(), self.context.clone());
        let (config, pin) = (self.config.clone(), self.pin.clone());
        let claiming = async move {
            let durable = durable::look_again(&context, &config).await?;
            match claim::wait_for_pin(&client, &context, &durable, pin).await? {
                Pinned::By(pin) => Ok((durable, pin)),
                Pinned::Disturbed(why) | Pinned::Gone(why) => Err(End::Again(why)),
            }
        };
        let (durable, pin) = self.outside.unless_interrupted(claiming).await??;
        self.durable = durable;
        // From here on the server knows us, whatever becomes of the rest.
        self.pin = Some(pin.clone());
        let reset = claim::reset(&self.context, &self.durable, None);
        let place = self.outside.unless_interrupted(reset).await??;
        Ok(Claim {
            pin,
            settled: place.settled,
            next_delivery: place.next_delivery,
        })
    }

    /// Owns the durable until something ends that, or until `limit` deliveries are acked.
    async fn own(&mut self, claim: Claim, limit: Option<usize>) -> End {
        tracing::info!(durable = %self.durable.name, settled = claim.settled, "owner of the durable");
        let ownership = self.begin();
        let pin = claim.pin.clone();
        let end = match Inbox::open(&self.client, &self.durable).await {
            Ok(inbox) => {
                let member = Shared {
                    client: &self.client,
                    context: &self.context,
                    durable: &self.durable,
                    number: self.number,
                    outbound: &self.outbound,
                };
                let owner = Owner::new(member, claim, ownership, inbox, limit);
                owner.run(&mut self.outside).await
            }
            Err(error) => End::Unfit(error),
        };
        match end {
            End::Unwanted => self.hand_over(&pin).await,
            End::Disconnected
            | End::Taken
            | End::Again(_)
            | End::GoBack(_)
            | End::Unfit(_)
            | End::Leave(_) => {
                self.end();
                end
            }
        }
    }

    /// Lets what runs finish, for a while, and gives the durable up to the member to whom it falls.
    async fn hand_over(&mut self, pin: &str) -> End {
        let within = self.config.revoke_within;
        // What is unacked comes again, to the next owner.
        self.outbound.silence();
        let (revoking, released) = handover::announce(self.durable.partition.clone(), within);
        self.outbound.send(Item::Arrival(revoking));
        let over = handover::until_over(
            &self.client,
            &self.durable,
            pin,
            (released, within),
            &mut self.outside,
        );
        match over.await {
            Over::Released => {
                self.outbound.set_owner(false);
            }
            Over::Expired => self.end(),
            Over::Ended(end) => {
                self.end();
                return end;
            }
        }
        tracing::info!(durable = %self.durable.name, "handing the durable over");
        self.give_up().await;
        End::Unwanted
    }

    /// Gives up whatever is ours.
    async fn give_up(&mut self) {
        if let Some(pin) = self.pin.take() {
            // Acks on their way first: whoever takes over begins behind them.
            self.last_ack.settle(&self.client).await;
            claim::give_up(&self.context, &self.durable, &pin).await;
        }
    }

    /// Gives out a message that the client library cannot read, and passes it once it is settled.
    ///
    /// Nobody can be pinned with such a message, so another member may give it out too; the mark drops one of them.
    async fn give_out_unreadable(&mut self, found: Unreadable) -> End {
        let sequence = found.sequence;
        tracing::error!(durable = %self.durable.name, sequence, "a message whose headers cannot be read; reading it past the client library");
        let ownership = self.begin();
        let delivery = unreadable::delivery(found, &self.durable, self.number, ownership);
        self.outbound
            .send(Item::Arrival(Arrival::Delivery(delivery)));
        let end = self.outside.until_settled(ownership, sequence).await;
        let end = match end {
            None => match claim::reset(&self.context, &self.durable, Some(sequence + 1)).await {
                Ok(_) => End::Again("passed a message that cannot be read".to_owned()),
                Err(error) => End::Unfit(error),
            },
            Some(end) => end,
        };
        self.end();
        end
    }

    fn begin(&self) -> u64 {
        let ownership = self.outbound.set_owner(true);
        let partition = self.durable.partition.clone();
        self.outbound
            .send(Item::Arrival(Arrival::Assigned(partition)));
        ownership
    }

    fn end(&self) {
        self.outbound.set_owner(false);
        let partition = self.durable.partition.clone();
        self.outbound.send(Item::Arrival(Arrival::Lost(partition)));
    }

    /// Waits a while. An outage that is over by its end need not be told.
    async fn rest(&mut self, pause: Duration) -> Rested {
        let until = Instant::now() + pause;
        let mut rested = Rested::Connected;
        loop {
            tokio::select! {
                biased;
                command = self.outside.commands.recv() => match command {
                    Some(Command::Leave(done)) => return Rested::Leave(Some(done)),
                    None => return Rested::Leave(None),
                    Some(Command::GoBack { .. } | Command::Settled { .. }) => {}
                },
                Some(happening) = self.outside.happenings.recv() => match happening {
                    Happening::Up => rested = Rested::Connected,
                    // Nothing was being read that could have ended it.
                    Happening::Down => rested = Rested::Disconnected,
                    Happening::Told(told) => tracing::warn!(told, "NATS tells of trouble"),
                },
                () = tokio::time::sleep_until(until.into()) => return rested,
            }
        }
    }

    async fn leave(mut self, done: Option<oneshot::Sender<()>>) {
        self.give_up().await;
        if let Some(done) = done {
            done.send(()).ok();
        }
    }
}
