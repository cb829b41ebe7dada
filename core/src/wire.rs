//! The form of a message on the wire: CloudEvents binary mode.
//!
//! Source: CloudEvents 1.0.2, its Kafka, NATS and AMQP protocol bindings, and its Partitioning extension; W3C Trace Context.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::UndecodableReason;
pub use crate::headers::{CONTENT_TYPE, EXPIRES_AT, SEQUENCE, is_content_type};
use crate::{Headers, Key, Kind, Message, MessageId, Outgoing, Source, Topic, Undecodable};

/// The header that carries a message's number in its log.
pub const SEQ: &str = "onceward-seq";
/// The header that carries the topic, where the route is not the topic itself.
pub const TOPIC: &str = "onceward-topic";

/// The header of a message that was replayed as a new one: the id of the old one.
pub const REPLAY_OF: &str = "onceward-replay-of";
/// What the headers of a dead letter that was sent on begin with.
pub const DEAD_LETTER: &str = "onceward-dead-letter-";

/// Bytes of a time with nanoseconds and an offset.
const MAX_RFC3339: usize = 35;

/// How a protocol writes the names of CloudEvents attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `ce_id`, as on Kafka.
    Underscore,
    /// `ce-id`, as on NATS and HTTP.
    Dash,
}

/// The CloudEvents attributes that we write and read, in both styles.
struct Names {
    id: &'static str,
    source: &'static str,
    kind: &'static str,
    time: &'static str,
    version: &'static str,
    key: &'static str,
    sequence: &'static str,
}

const UNDERSCORE: Names = Names {
    id: "ce_id",
    source: "ce_source",
    kind: "ce_type",
    time: "ce_time",
    version: "ce_specversion",
    key: "ce_partitionkey",
    sequence: "ce_sequence",
};

const DASH: Names = Names {
    id: "ce-id",
    source: "ce-source",
    kind: "ce-type",
    time: "ce-time",
    version: "ce-specversion",
    key: "ce-partitionkey",
    sequence: "ce-sequence",
};

impl Style {
    const fn names(self) -> &'static Names {
        match self {
            Self::Underscore => &UNDERSCORE,
            Self::Dash => &DASH,
        }
    }
}

/// A header on the wire.
pub type WireHeader<'a> = (&'a str, Cow<'a, str>);

/// All headers of a message on the wire.
#[must_use]
pub fn encode(outgoing: &Outgoing, style: Style) -> Vec<WireHeader<'_>> {
    let names = style.names();
    let message = &outgoing.message;
    let mut headers: Vec<WireHeader<'_>> = Vec::with_capacity(9 + message.headers.len());
    headers.push((names.version, Cow::Borrowed("1.0")));
    headers.push((names.id, id(&message.id)));
    headers.push((names.kind, Cow::Borrowed(message.kind.as_str())));
    if let Some(source) = &message.source {
        headers.push((names.source, Cow::Borrowed(source.as_str())));
    }
    if let Some(time) = message.time.and_then(rfc3339) {
        headers.push((names.time, Cow::Owned(time)));
    }
    if let Some(key) = &message.key {
        headers.push((names.key, Cow::Borrowed(key.as_str())));
    }
    if let Some(content_type) = &message.content_type {
        headers.push((CONTENT_TYPE, Cow::Borrowed(content_type)));
    }
    if let Some(seq) = message.seq {
        headers.push((SEQ, Cow::Owned(seq.to_string())));
    }
    if outgoing.route.as_str() != message.topic.as_str() {
        headers.push((TOPIC, Cow::Borrowed(message.topic.as_str())));
    }
    headers.extend(message.headers.iter().map(|(name, value)| {
        let name = if name == SEQUENCE {
            names.sequence
        } else {
            name
        };
        (name, Cow::Borrowed(value))
    }));
    headers
}

fn id(id: &MessageId) -> Cow<'_, str> {
    match id {
        MessageId::Uuid(id) | MessageId::Position(id) => {
            let mut text = Uuid::encode_buffer();
            Cow::Owned(id.hyphenated().encode_lower(&mut text).to_owned())
        }
        MessageId::Foreign(text) => Cow::Borrowed(text),
    }
}

/// None for a year that has no such form.
fn rfc3339(time: OffsetDateTime) -> Option<String> {
    // Of one piece: a text that grows as it is written is moved several times.
    let mut text = Vec::with_capacity(MAX_RFC3339);
    time.format_into(&mut text, &Rfc3339).ok()?;
    String::from_utf8(text).ok()
}

/// Bytes of a message on the wire as brokers count them: payload, key, and names and values of all headers.
#[must_use]
pub fn encoded_len(outgoing: &Outgoing, style: Style) -> usize {
    let key = outgoing
        .message
        .key
        .as_ref()
        .map_or(0, |k| k.as_str().len());
    let headers: usize = encode(outgoing, style)
        .iter()
        .map(|(n, v)| n.len() + v.len())
        .sum();
    outgoing.message.payload.len() + key + headers
}

/// A delivery as a broker gives it.
#[derive(Debug)]
pub struct Raw<'a> {
    /// The broker's name of where it came from.
    pub route: &'a str,
    /// The key, where the protocol has a place for it outside the headers.
    pub key: Option<&'a [u8]>,
    /// Names and values; of two with one name the later counts.
    pub headers: Vec<(&'a str, &'a [u8])>,
    /// The payload.
    pub payload: Bytes,
    /// The id to use for a message without one.
    pub position_id: MessageId,
}

/// Reads a delivery.
///
/// # Errors
/// [`Undecodable`] with all that came, for the dead letter.
pub fn decode(raw: Raw<'_>, style: Style) -> Result<Message, Box<Undecodable>> {
    let names = style.names();
    let mut texts = BTreeMap::new();
    let mut reason = None;
    for (name, value) in &raw.headers {
        if std::str::from_utf8(value).is_err() && reason.is_none() {
            reason = Some(UndecodableReason::HeaderNotUtf8((*name).to_owned()));
        }
        texts.insert(
            (*name).to_owned(),
            String::from_utf8_lossy(value).into_owned(),
        );
    }
    let id_text = texts.get(names.id);
    if let Some(id) = id_text.filter(|id| !(1..=1024).contains(&id.len())) {
        reason.get_or_insert(UndecodableReason::IdLength(id.len()));
    }
    let key = match raw.key.map(std::str::from_utf8).transpose() {
        Ok(key) => key.map(Key::received),
        Err(_) => {
            reason.get_or_insert(UndecodableReason::KeyNotUtf8);
            None
        }
    };
    let readable = |id: &&String| (1..=1024).contains(&id.len());
    let id = id_text
        .filter(readable)
        .map_or_else(|| raw.position_id.clone(), |id| MessageId::received(id));
    match reason {
        None => Ok(message(raw, id, key, texts, names)),
        Some(reason) => Err(Box::new(Undecodable {
            reason,
            id,
            source_name: texts.get(names.source).map(|s| Source::received(s)),
            topic: Topic::received(raw.route),
            key: raw.key.map(Bytes::copy_from_slice),
            headers: texts,
            payload: raw.payload,
        })),
    }
}

fn message(
    raw: Raw<'_>,
    id: MessageId,
    key: Option<Key>,
    mut texts: BTreeMap<String, String>,
    names: &Names,
) -> Message {
    let mut take = |name: &str| texts.remove(name);
    take(names.version);
    take(names.id);
    let kind = take(names.kind);
    let source = take(names.source);
    let time = take(names.time);
    let partition_key = take(names.key);
    let seq = take(SEQ);
    let topic = take(TOPIC);
    let content_type = take(CONTENT_TYPE);
    // What is no number stays there as it came: the message is one without a sequence then.
    if let Some(sequence) = take(names.sequence) {
        texts.insert(SEQUENCE.to_owned(), sequence);
    }
    let topic = Topic::received(topic.as_deref().unwrap_or(raw.route));
    Message {
        id,
        kind: kind.map_or_else(|| Kind::from(&topic), |kind| Kind::received(&kind)),
        key: partition_key.map(|key| Key::received(&key)).or(key),
        topic,
        content_type,
        headers: Headers::received(texts),
        payload: raw.payload,
        source: source.map(|source| Source::received(&source)),
        time: time.and_then(|time| OffsetDateTime::parse(&time, &Rfc3339).ok()),
        seq: seq.and_then(|seq| seq.parse().ok()).filter(|seq| *seq > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MAX_PAYLOAD, Route};

    fn outgoing(route: &str) -> Outgoing {
        let draft = Message::json("orders.created", &serde_json::json!({"a": 1}));
        let mut message = draft
            .unwrap()
            .key("17")
            .header("tenant", "acme")
            .sequence(9)
            .finish(MAX_PAYLOAD)
            .unwrap()
            .message;
        message.source = Some(Source::received("/shop"));
        message.time = OffsetDateTime::from_unix_timestamp(1_700_000_000).ok();
        message.seq = Some(42);
        Outgoing {
            route: Route::new(route),
            message,
            replay: None,
        }
    }

    fn arrived<'a>(outgoing: &'a Outgoing, headers: &'a [WireHeader<'a>]) -> Raw<'a> {
        Raw {
            route: outgoing.route.as_str(),
            key: Some(b"17"),
            headers: headers.iter().map(|(n, v)| (*n, v.as_bytes())).collect(),
            payload: outgoing.message.payload.clone(),
            position_id: MessageId::from_position("b", "p", "1"),
        }
    }

    #[test]
    fn a_message_survives_the_wire_in_both_styles_and_under_another_route() {
        for style in [Style::Underscore, Style::Dash] {
            for route in ["orders.created", "legacy-orders"] {
                let sent = outgoing(route);
                let headers = encode(&sent, style);

                let got = decode(arrived(&sent, &headers), style).unwrap();

                assert_eq!(got, sent.message);
            }
        }
    }

    #[test]
    fn the_sequence_travels_as_an_attribute_and_a_bad_one_is_none() {
        for (style, name) in [
            (Style::Underscore, "ce_sequence"),
            (Style::Dash, "ce-sequence"),
        ] {
            let sent = outgoing("orders.created");
            let mut headers = encode(&sent, style);
            assert!(headers.contains(&(name, Cow::Borrowed("9"))));
            assert!(!headers.iter().any(|(name, _)| *name == SEQUENCE));
            headers.push((name, Cow::Borrowed("nine")));

            let got = decode(arrived(&sent, &headers), style).unwrap();

            assert_eq!((got.sequence(), got.says_sequence()), (None, true));
        }
    }

    #[test]
    fn a_message_without_an_id_takes_that_of_its_position() {
        let raw = Raw {
            route: "t",
            key: None,
            headers: vec![],
            payload: Bytes::new(),
            position_id: MessageId::from_position("b", "p", "1"),
        };

        let got = decode(raw, Style::Dash).unwrap();

        assert_eq!(got.id, MessageId::from_position("b", "p", "1"));
        assert_eq!(got.kind.as_str(), "t");
    }

    #[test]
    fn bytes_that_are_no_text_make_a_delivery_undecodable_and_keep_it_whole() {
        let raw = |key: &'static [u8], value: &'static [u8]| Raw {
            route: "t",
            key: Some(key),
            headers: vec![("x", value), ("ce_id", b"17")],
            payload: Bytes::from_static(b"body"),
            position_id: MessageId::from_position("b", "p", "1"),
        };

        let header = decode(raw(b"k", b"\xff"), Style::Underscore).unwrap_err();
        let key = decode(raw(b"\xff", b"v"), Style::Underscore).unwrap_err();

        assert_eq!(
            header.reason,
            UndecodableReason::HeaderNotUtf8("x".to_owned())
        );
        assert_eq!(header.id, MessageId::Foreign("17".into()));
        assert_eq!(&header.payload[..], b"body");
        assert_eq!(key.reason, UndecodableReason::KeyNotUtf8);
    }
}
