//! Headers to and from NATS, by fallible conversions only: those that async-nats offers for convenience panic.

use std::sync::Arc;

use async_nats::header::{HeaderMap, HeaderName, HeaderValue, NATS_MESSAGE_ID, NATS_PIN_ID};
use bytes::Bytes;
use onceward_core::wire::{self, Raw, Style};
use onceward_core::{ErrorKind, Message, MessageId, Outgoing, PublishError, Undecodable};

/// The broker's name in ids, metrics and logs.
pub(crate) const BROKER: &str = "nats";

/// The headers of a message, with what the server's own dedupe goes by.
pub(crate) fn encode(outgoing: &Outgoing) -> Result<HeaderMap, PublishError> {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, value("Nats-Msg-Id", outgoing.dedupe_id())?);
    for (text, content) in wire::encode(outgoing, Style::Dash) {
        let value = value(text, content.into_owned())?;
        let name = HeaderName::try_from(text).map_err(|error| {
            PublishError::with_source(
                ErrorKind::Rejected,
                format!("the header name {text:?} cannot travel on NATS"),
                error,
            )
        })?;
        // Such headers command the server: `Nats-Rollup` empties the stream.
        if text.is_empty() || steers_the_server(text) || headers.get(name.clone()).is_some() {
            return Err(PublishError::new(
                ErrorKind::Rejected,
                format!("the header name {text:?} is not the user's to set"),
            ));
        }
        headers.insert(name, value);
    }
    Ok(headers)
}

fn steers_the_server(name: &str) -> bool {
    let prefix = name.as_bytes().get(..5);
    prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"nats-"))
}

fn value(name: &str, text: String) -> Result<HeaderValue, PublishError> {
    text.parse().map_err(|error| {
        PublishError::with_source(
            ErrorKind::Rejected,
            format!("the value of header {name:?} cannot travel on NATS"),
            error,
        )
    })
}

/// The message of a delivery. `stream` and `sequence` give an id to one that has none.
pub(crate) fn decode(
    stream: &str,
    sequence: u64,
    subject: &str,
    headers: Option<&HeaderMap>,
    payload: Bytes,
) -> Result<Message, Box<Undecodable>> {
    let headers = headers.map(HeaderMap::iter).into_iter().flatten();
    let headers = headers
        .filter_map(|(name, values)| {
            let name: &str = name.as_ref();
            Some((name, values.last()?.as_str().as_bytes()))
        })
        .filter(|(name, _)| !steers_the_server(name))
        .collect();
    let raw = Raw {
        route: subject,
        key: None,
        headers,
        payload,
        position_id: MessageId::from_position(BROKER, stream, &sequence.to_string()),
    };
    wire::decode(raw, Style::Dash)
}

/// The id under which the server delivers to us, where a delivery tells it.
pub(crate) fn pin_id(headers: &HeaderMap) -> Option<Arc<str>> {
    // The last one is the server's own: a publisher may have sent a header of that name before it.
    headers
        .get_last(NATS_PIN_ID)
        .map(|value| value.as_str().into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use onceward_core::{Headers, Route};

    use super::*;

    fn with_header(name: &str, text: &str) -> Outgoing {
        let draft = Message::bytes("orders.created", "{}").key("17");
        let mut message = draft.finish(100).unwrap().message;
        let header = (name.to_owned(), text.to_owned());
        message.headers = Headers::received(BTreeMap::from([header]));
        Outgoing {
            route: Route::new("shop.orders"),
            message,
            replay: None,
        }
    }

    #[test]
    fn a_hostile_header_is_refused_and_does_not_panic() {
        for (name, text) in [
            ("x", "a\r\nforged: 1"),
            ("x", "a\n"),
            ("a\r\nb", "v"),
            ("a:b", "v"),
            ("a b", "v"),
            ("", "v"),
            ("\u{e4}", "v"),
            ("nats-rollup", "all"),
            ("Nats-Msg-Id", "other"),
            ("ce-id", "other"),
        ] {
            let error = encode(&with_header(name, text)).unwrap_err();

            assert_eq!(error.kind, ErrorKind::Rejected, "{name:?}");
        }
    }

    #[test]
    fn a_message_survives_the_wire_and_carries_its_dedupe_id() {
        let sent = with_header("tenant", "acme");

        let headers = encode(&sent).unwrap();
        let got = decode("shop", 1, "shop.orders", Some(&headers), "{}".into()).unwrap();

        assert_eq!(got, sent.message);
        let id = headers.get(NATS_MESSAGE_ID).map(HeaderValue::as_str);
        assert_eq!(id, Some(sent.dedupe_id().as_str()));
    }

    #[test]
    fn the_pin_is_the_servers_last_word() {
        let mut headers = HeaderMap::new();
        headers.append(NATS_PIN_ID, HeaderValue::from(1));
        headers.append(NATS_PIN_ID, HeaderValue::from(2));

        assert_eq!(pin_id(&headers).as_deref(), Some("2"));
    }
}
