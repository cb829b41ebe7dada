//! The pull protocol: what a member asks, and what the server answers. Pure.

use std::time::{Duration, SystemTime};

use async_nats::{Message, StatusCode};
use serde::Serialize;

/// The one priority group of our durables.
pub(crate) const GROUP: &str = "onceward";

/// A request for deliveries.
#[derive(Debug, Serialize)]
pub(crate) struct Pull<'a> {
    batch: usize,
    expires: u64,
    group: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    max_bytes: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's signature for a predicate"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> Pull<'a> {
    /// Asks for up to `batch` deliveries, under the id by which we own the durable if we do.
    pub(crate) fn new(batch: usize, expires: Duration, id: Option<&'a str>) -> Self {
        Self {
            batch,
            expires: u64::try_from(expires.as_nanos()).unwrap_or(u64::MAX),
            group: GROUP,
            id,
            max_bytes: 0,
        }
    }

    /// Asks for nothing that could be delivered: it only tells the server that the owner is alive.
    pub(crate) fn sign_of_life(expires: Duration, id: &'a str) -> Self {
        Self {
            // No message is as small as that, so the request ends without a delivery.
            max_bytes: 1,
            ..Self::new(1, expires, Some(id))
        }
    }
}

/// What the server said on a member's inbox.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A message of the stream.
    Delivery(Place),
    /// A request is over as expected, its rest undelivered.
    Ended,
    /// A request is over because something changed at the server.
    Disturbed(String),
    /// Somebody else owns the durable, or nobody.
    NotOwner,
    /// The durable is gone.
    Gone(String),
    /// Nothing of interest.
    Nothing,
}

/// Where a delivery stands, as told by the subject to ack it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its number in the stream.
    pub(crate) stream_sequence: u64,
    /// Its number among all deliveries of the durable, which has no gaps.
    pub(crate) delivery_sequence: u64,
    /// How often it was delivered, this time included; counted from the last reset.
    pub(crate) delivered: u32,
    /// When the stream got it.
    pub(crate) stored_at: Option<SystemTime>,
}

/// Reads what the server said.
pub(crate) fn said(message: &Message) -> Said {
    // A status has no subject to be acked by. A message has one, and a publisher may give it whatever status it likes.
    if let Some(place) = message.reply.as_ref().and_then(|reply| place(reply)) {
        return Said::Delivery(place);
    }
    let description = message.description.as_deref().unwrap_or_default();
    match message.status {
        None | Some(StatusCode::OK) => Said::Nothing,
        Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => Said::Ended,
        Some(StatusCode::PIN_ID_MISMATCH) => Said::NotOwner,
        Some(StatusCode::REQUEST_TERMINATED) => match description {
            "Consumer Deleted" | "Consumer is push based" => Said::Gone(description.to_owned()),
            "Message Size Exceeds MaxBytes" | "Batch Completed" => Said::Ended,
            _ => Said::Disturbed(description.to_owned()),
        },
        Some(StatusCode::NO_RESPONDERS) => Said::Disturbed("nobody answers".to_owned()),
        Some(status) if status.is_server_error() => Said::Disturbed(description.to_owned()),
        Some(_) => Said::Nothing,
    }
}

/// Reads `$JS.ACK.<stream>.<durable>.<delivered>.<stream seq>.<delivery seq>.<time>.<pending>`, with a domain and an
/// account's hash before the stream in newer servers.
pub(crate) fn place(reply: &str) -> Option<Place> {
    let rest = reply.strip_prefix("$JS.ACK.")?;
    let tokens: Vec<&str> = rest.split('.').collect();
    let tokens = match tokens.len() {
        7 => tokens.as_slice(),
        9.. => tokens.get(2..9)?,
        _ => return None,
    };
    let number = |index: usize| tokens.get(index)?.parse::<u64>().ok();
    Some(Place {
        delivered: u32::try_from(number(2)?).unwrap_or(u32::MAX),
        stream_sequence: number(3)?,
        delivery_sequence: number(4)?,
        stored_at: SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(number(5)?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, description: &str) -> Message {
        Message {
            subject: "inbox".into(),
            reply: None,
            payload: "".into(),
            headers: None,
            status: StatusCode::try_from(code).ok(),
            description: Some(description.to_owned()),
            length: 0,
        }
    }

    #[test]
    fn a_place_is_read_from_both_forms_of_its_subject() {
        let short = "$JS.ACK.orders.billing.2.17.23.1700000000000000000.5";
        let long = "$JS.ACK.hub.acc.orders.billing.2.17.23.1700000000000000000.5.x";

        let read = place(short).unwrap();

        assert_eq!(read.stream_sequence, 17);
        assert_eq!(read.delivery_sequence, 23);
        assert_eq!(read.delivered, 2);
        assert_eq!(place(long), Some(read));
        for text in ["", "$JS.ACK.a.b", "$JS.ACK.a.b.c.d.e.f.g", "orders"] {
            assert_eq!(place(text), None, "{text}");
        }
    }

    #[test]
    fn statuses_are_told_apart_by_what_a_member_must_do() {
        assert_eq!(said(&status(408, "Request Timeout")), Said::Ended);
        assert_eq!(
            said(&status(409, "Message Size Exceeds MaxBytes")),
            Said::Ended
        );
        assert_eq!(said(&status(423, "Nats-Wrong-Pin-Id")), Said::NotOwner);
        assert!(matches!(
            said(&status(409, "Consumer Deleted")),
            Said::Gone(_)
        ));
        assert!(matches!(
            said(&status(409, "Leadership Change")),
            Said::Disturbed(_)
        ));
        for code in [500, 503] {
            assert!(matches!(said(&status(code, "")), Said::Disturbed(_)));
        }
        assert_eq!(said(&status(100, "Idle Heartbeat")), Said::Nothing);
    }

    #[test]
    fn a_pull_says_only_what_is_set() {
        let first = serde_json::to_string(&Pull::new(1, Duration::from_secs(1), None)).unwrap();
        let life = Pull::sign_of_life(Duration::from_secs(1), "p");

        assert_eq!(
            first,
            r#"{"batch":1,"expires":1000000000,"group":"onceward"}"#
        );
        assert!(
            serde_json::to_string(&life)
                .unwrap()
                .ends_with(r#""id":"p","max_bytes":1}"#)
        );
    }
}
