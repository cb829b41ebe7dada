//! Handing a durable over to another member: what runs may finish, for a while, and until then the server must not take us
//! for gone.

use std::time::{Duration, Instant};

use async_nats::Client;
use futures_util::StreamExt as _;
use onceward_core::{Arrival, Partition, Release};
use tokio::sync::oneshot;

use super::acker::NatsToken;
use super::claim::Inbox;
use super::durable::{Durable, misconfigured};
use super::outside::{End, Outside};
use super::pull::{Pull, Said, said};

/// How waiting for the release ended.
#[derive(Debug)]
pub(crate) enum Over {
    /// All that ran is finished and acked.
    Released,
    /// The caller took longer than it was given.
    Expired,
    /// The ownership is over anyway.
    Ended(End),
}

/// Closed when the caller has released the partition.
pub(crate) type Released = oneshot::Receiver<()>;

/// What tells the caller that it is to lose the partition, and how it releases it.
pub(crate) fn announce(partition: Partition, within: Duration) -> (Arrival<NatsToken>, Released) {
    let (sender, released) = oneshot::channel();
    let revoking = Arrival::Revoking {
        partition,
        within,
        release: Release::new(move || drop(sender)),
    };
    (revoking, released)
}

/// Waits for the release, at most so long, and stays known to the server meanwhile. Asks for no more deliveries: what the server
/// counts as delivered is taken back when the durable is given up.
pub(crate) async fn until_over(
    client: &Client,
    durable: &Durable,
    pin: &str,
    (mut released, within): (Released, Duration),
    outside: &mut Outside,
) -> Over {
    let until = Instant::now() + within;
    let every = durable.takeover_after / 3;
    let mut inbox = match Inbox::open(client, durable).await {
        Ok(inbox) => inbox,
        Err(error) => return Over::Ended(End::Unfit(error)),
    };
    let mut beat = tokio::time::interval(every);
    let mut number = 0;
    loop {
        tokio::select! {
            biased;
            // Given back deliveries need no going back any more, and whether it is wanted again shows later.
            end = outside.interrupted(None) => match end {
                None | Some(End::Unwanted) => {}
                Some(end) => return Over::Ended(end),
            },
            _ = &mut released => return Over::Released,
            message = inbox.messages.next() => {
                let Some(message) = message else {
                    return Over::Ended(End::Again("the connection is closed".to_owned()));
                };
                match said(&message) {
                    Said::NotOwner => return Over::Ended(End::Taken),
                    Said::Gone(why) => {
                        let name = &durable.name;
                        let what = format!("the durable {name} is no longer what it was: {why}");
                        return Over::Ended(End::Unfit(misconfigured(what)));
                    }
                    Said::Delivery(_) | Said::Ended | Said::Disturbed(_) | Said::Nothing => {}
                }
            }
            _ = beat.tick() => {
                let life = Pull::sign_of_life(every, pin);
                if let Err(error) = inbox.pull(number, &life).await {
                    return Over::Ended(End::Unfit(error));
                }
                number += 1;
            }
            () = tokio::time::sleep_until(until.into()) => return Over::Expired,
        }
    }
}
