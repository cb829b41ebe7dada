//! Becoming the owner: wait to be pinned, then go back to the oldest unacked message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::response::Response;
use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt as _;
use onceward_core::SubscribeError;
use serde::Deserialize;
use serde_json::json;

use super::durable::{self, Durable, misconfigured, no_answer};
use super::pull::{Pull, Said, said};
use crate::headers;

/// The longest that a request of a member that stands by lies at the server before it is made again.
const STAND_BY: Duration = Duration::from_secs(5);
/// How long a request lies at the server that asks whether we are still the owner.
const KNOWN_BY: Duration = Duration::from_millis(250);
/// How much longer than it should an answer may take.
pub(crate) const GRACE: Duration = Duration::from_secs(3);

/// Where a durable begins after a reset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Everything up to here is acked, in the stream's numbers.
    pub(crate) settled: u64,
    /// The number of the next delivery.
    pub(crate) next_delivery: u64,
}

/// How waiting for the pin ended.
#[derive(Debug)]
pub(crate) enum Pinned {
    By(Arc<str>),
    /// Something changed at the server: begin again in a moment.
    Disturbed(String),
    Gone(String),
}

/// The server's answer to a reset.
#[derive(Debug, Deserialize)]
struct Reset {
    #[serde(flatten)]
    info: Info,
}

/// An inbox of its own for one request or one ownership.
#[derive(Debug)]
pub(crate) struct Inbox {
    client: Client,
    next_subject: String,
    prefix: String,
    pub(crate) messages: Subscriber,
}

impl Inbox {
    pub(crate) async fn open(client: &Client, durable: &Durable) -> Result<Self, SubscribeError> {
        let prefix = format!("{}.", client.new_inbox());
        let subscribed = client.subscribe(format!("{prefix}*"));
        // While the connection is down, acks may fill the way to it.
        let subscribed = tokio::time::timeout(GRACE, subscribed).await;
        let messages = subscribed.map_err(no_answer)?.map_err(no_answer)?;
        Ok(Self {
            client: client.clone(),
            next_subject: format!(
                "$JS.API.CONSUMER.MSG.NEXT.{}.{}",
                durable.stream, durable.name
            ),
            prefix,
            messages,
        })
    }

    /// Sends request number `number`.
    pub(crate) async fn pull(&self, number: u64, pull: &Pull<'_>) -> Result<(), SubscribeError> {
        let request = serde_json::to_vec(pull).map_err(no_answer)?;
        let reply = format!("{}{number}", self.prefix);
        let subject = self.next_subject.clone();
        let sent = self
            .client
            .publish_with_reply(subject, reply, request.into());
        // While the connection is down, acks may fill the way to it.
        match tokio::time::timeout(GRACE, sent).await {
            Ok(sent) => sent.map_err(no_answer),
            Err(late) => Err(no_answer(late)),
        }
    }

    /// The number of the request that a status is about; a delivery carries its own subject instead.
    pub(crate) fn number(&self, status: &Message) -> Option<u64> {
        let number = status.subject.strip_prefix(self.prefix.as_str())?;
        number.parse().ok()
    }
}

/// Waits until the server makes us the owner, which it does with the first message that there is. `pin` is the id that we had,
/// for the server may still know us by it.
///
/// Asks for one message at a time, so that nothing more is on its way to us when the durable is reset.
pub(crate) async fn wait_for_pin(
    client: &Client,
    context: &Context,
    durable: &Durable,
    mut pin: Option<Arc<str>>,
) -> Result<Pinned, SubscribeError> {
    let mut inbox = Inbox::open(client, durable).await?;
    let stand_by = (durable.takeover_after / 2).min(STAND_BY);
    for number in 0.. {
        let expires = match &pin {
            // An owner asks for nothing: what it had is withheld from itself too, until it is reset.
            Some(id) => {
                let life = Pull::sign_of_life(KNOWN_BY, id);
                inbox.pull(number, &life).await?;
                KNOWN_BY
            }
            None => {
                let pull = Pull::new(1, stand_by, None);
                inbox.pull(number, &pull).await?;
                stand_by
            }
        };
        let until = Instant::now() + expires + GRACE;
        match (answer(&mut inbox, number, until).await, &pin) {
            (Answer::Pinned(id), _) => return Ok(Pinned::By(id)),
            (Answer::Ended, Some(id)) => return Ok(Pinned::By(id.clone())),
            (Answer::Ended, None) => release_orphans(context, durable).await?,
            (Answer::NotOwner, _) => pin = None,
            (Answer::Disturbed(why), _) => return Ok(Pinned::Disturbed(why)),
            (Answer::Gone(why), _) => return Ok(Pinned::Gone(why)),
        }
    }
    Ok(Pinned::Disturbed("asked too often".to_owned()))
}

/// Makes deliveries of an owner that is gone available again. The server pins a member with a message only, and those are
/// withheld until `ack_wait` ends; without new messages everybody would wait for that.
async fn release_orphans(context: &Context, durable: &Durable) -> Result<(), SubscribeError> {
    let info = durable::info(context, &durable.stream, &durable.name).await?;
    let orphaned = info.is_some_and(|info| {
        let mut groups = info.priority_groups.iter();
        let owned = groups.any(|group| group.pinned_client_id.is_some());
        !owned && info.num_ack_pending > 0 && info.num_pending == 0
    });
    if orphaned {
        // If somebody becomes the owner at this very moment, it is given what it has once more.
        reset(context, durable, None).await?;
    }
    Ok(())
}

enum Answer {
    Pinned(Arc<str>),
    Ended,
    NotOwner,
    Disturbed(String),
    Gone(String),
}

async fn answer(inbox: &mut Inbox, number: u64, until: Instant) -> Answer {
    loop {
        let message = match tokio::time::timeout_at(until.into(), inbox.messages.next()).await {
            Ok(Some(message)) => message,
            Ok(None) => return Answer::Disturbed("the connection is closed".to_owned()),
            Err(_) => return Answer::Disturbed("the server does not answer".to_owned()),
        };
        let ours = inbox.number(&message).is_none_or(|n| n == number);
        match said(&message) {
            Said::Delivery(_) => {
                let pin = message.headers.as_ref().and_then(headers::pin_id);
                return match pin {
                    Some(pin) => Answer::Pinned(pin),
                    None => Answer::Disturbed("a delivery without the owner's id".to_owned()),
                };
            }
            Said::Ended if ours => return Answer::Ended,
            Said::NotOwner if ours => return Answer::NotOwner,
            Said::Disturbed(why) if ours => return Answer::Disturbed(why),
            Said::Gone(why) => return Answer::Gone(why),
            Said::Ended | Said::NotOwner | Said::Disturbed(_) | Said::Nothing => {}
        }
    }
}

/// Takes the durable back to its oldest unacked message, or to the one at `next`. What the owner before us had in work is
/// delivered again, to us.
pub(crate) async fn reset(
    context: &Context,
    durable: &Durable,
    next: Option<u64>,
) -> Result<Place, SubscribeError> {
    let subject = format!("CONSUMER.RESET.{}.{}", durable.stream, durable.name);
    let request = next.map_or_else(|| json!({}), |next| json!({ "seq": next }));
    match context.request(subject, &request).await {
        Ok(Response::Ok(Reset { info })) => Ok(Place {
            settled: info.ack_floor.stream_sequence,
            // Deliveries are counted anew; what is told as delivered may be one that found nobody.
            next_delivery: info.ack_floor.consumer_sequence + 1,
        }),
        Ok(Response::Err { error }) if durable::is_passing(&error) => Err(no_answer(error)),
        Ok(Response::Err { error }) => Err(misconfigured(format!(
            "the durable {} of stream {} cannot be taken back to its oldest unacked message: {error}",
            durable.name, durable.stream
        ))),
        Err(error) => Err(no_answer(error)),
    }
}

/// Gives the ownership up at once, so that another member need not wait for the server to miss us; unless somebody else has it
/// already. Best effort.
pub(crate) async fn give_up(context: &Context, durable: &Durable, pin: &str) {
    match durable::info(context, &durable.stream, &durable.name).await {
        Ok(Some(info)) if is_owner(&info, pin) => {}
        Ok(_) => return,
        Err(error) => {
            tracing::debug!(%error, "ownership was not given up; another member takes over in time");
            return;
        }
    }
    // What we leave unacked would be withheld until `ack_wait` ends.
    if let Err(error) = reset(context, durable, None).await {
        tracing::debug!(%error, "unacked deliveries were not given back; they come again in time");
    }
    let subject = format!("CONSUMER.UNPIN.{}.{}", durable.stream, durable.name);
    let request = json!({ "group": super::pull::GROUP });
    let answer: Result<Response<serde_json::Value>, _> = context.request(subject, &request).await;
    if let Err(error) = answer {
        tracing::debug!(%error, "ownership was not given up; another member takes over in time");
    }
}

fn is_owner(info: &Info, pin: &str) -> bool {
    let mut groups = info.priority_groups.iter();
    groups.any(|group| group.pinned_client_id.as_deref() == Some(pin))
}
