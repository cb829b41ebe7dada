//! A message as our tables keep it: in `dead_letters` and in `retries`. What Postgres cannot store is replaced.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use onceward_core::wire::CONTENT_TYPE;
use onceward_core::{Headers, Key, Kind, Message, MessageId, Origin, Source, Topic, Undecodable};
use serde_json::{Map, Value, json};
use sqlx::FromRow;
use sqlx::types::Json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::trouble::clean;

/// The columns of a message.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub(crate) struct Stored {
    /// The id as it came; none: it came without.
    pub(crate) original_id: Option<String>,
    pub(crate) topic: String,
    pub(crate) key: Option<String>,
    /// None: it could not be read.
    #[sqlx(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) headers: Json<Map<String, Value>>,
    pub(crate) payload: Vec<u8>,
    pub(crate) source: Option<String>,
    pub(crate) created_at: Option<OffsetDateTime>,
    pub(crate) origin: Json<Value>,
}

impl Stored {
    pub(crate) fn of_message(message: &Message, origin: &Origin) -> Self {
        let mut headers = headers(message.headers.iter());
        if let Some(content_type) = &message.content_type {
            headers.insert(CONTENT_TYPE.to_owned(), clean(content_type).into());
        }
        Self {
            original_id: original_id(&message.id),
            topic: clean(message.topic.as_str()),
            key: message.key.as_ref().map(|key| clean(key.as_str())),
            kind: Some(clean(message.kind.as_str())),
            headers: Json(headers),
            payload: message.payload.to_vec(),
            source: message.source.as_ref().map(|source| clean(source.as_str())),
            created_at: message.time,
            origin: Json(origin_of(origin, message.seq)),
        }
    }

    pub(crate) fn of_undecodable(delivery: &Undecodable, origin: &Origin) -> Self {
        let key = delivery.key.as_deref().map(String::from_utf8_lossy);
        let all = delivery
            .headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()));
        let source = delivery.source_name.as_ref();
        Self {
            original_id: original_id(&delivery.id),
            topic: clean(delivery.topic.as_str()),
            key: key.map(|key: Cow<'_, str>| clean(&key)),
            kind: None,
            headers: Json(headers(all)),
            payload: delivery.payload.to_vec(),
            source: source.map(|source| clean(source.as_str())),
            created_at: None,
            origin: Json(origin_of(origin, None)),
        }
    }

    /// The message, as a handler is to get it again. `mark` is its id if it came without one.
    pub(crate) fn message(&self, mark: Uuid) -> Message {
        let topic = Topic::received(&self.topic);
        let id = self.original_id.as_deref();
        let mut headers: BTreeMap<String, String> = self.headers.0.iter().map(text).collect();
        Message {
            id: id.map_or(MessageId::Position(mark), MessageId::received),
            kind: self
                .kind
                .as_deref()
                .map_or_else(|| Kind::from(&topic), Kind::received),
            topic,
            key: self.key.as_deref().map(Key::received),
            content_type: headers.remove(CONTENT_TYPE),
            headers: Headers::received(headers),
            payload: Bytes::copy_from_slice(&self.payload),
            source: self.source.as_deref().map(Source::received),
            time: self.created_at,
            seq: self.origin.0.get("seq").and_then(Value::as_i64),
        }
    }
}

fn text((name, value): (&String, &Value)) -> (String, String) {
    let value = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    (name.clone(), value)
}

fn original_id(id: &MessageId) -> Option<String> {
    match id {
        MessageId::Uuid(id) => Some(id.to_string()),
        MessageId::Foreign(text) => Some(clean(text)),
        MessageId::Position(_) => None,
    }
}

fn headers<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    headers
        .map(|(name, value)| (clean(name), Value::String(clean(value))))
        .collect()
}

fn origin_of(origin: &Origin, seq: Option<i64>) -> Value {
    let sent_at = origin
        .sent_at
        .and_then(|at| OffsetDateTime::from(at).format(&Rfc3339).ok());
    json!({
        "broker": origin.broker,
        "partition": clean(origin.partition.as_str()),
        "position": origin.position,
        "redelivered": origin.redelivered,
        "sent_at": sent_at,
        "seq": seq,
    })
}

#[cfg(test)]
mod tests {
    use onceward_core::{MAX_PAYLOAD, Partition};

    use super::*;

    fn origin() -> Origin {
        Origin {
            broker: "memory",
            partition: Partition::new("p"),
            position: Some(7),
            redelivered: None,
            sent_at: None,
        }
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        let draft = Message::json("orders.created", &json!({"order": 17})).unwrap();
        let draft = draft.key("17").kind("created").header("tenant", "acme");
        let mut message = draft.finish(MAX_PAYLOAD).unwrap().message;
        message.source = Some(Source::received("/shop"));
        message.time = OffsetDateTime::from_unix_timestamp(1_700_000_000).ok();
        message.seq = Some(42);

        let again = Stored::of_message(&message, &origin()).message(Uuid::nil());

        assert_eq!(again, message);
    }

    #[test]
    fn a_message_without_an_id_keeps_that_of_its_position() {
        let draft = Message::bytes("orders", "x");
        let mut message = draft.finish(MAX_PAYLOAD).unwrap().message;
        message.id = MessageId::from_position("kafka", "orders/0", "17");
        let mark = message.id.as_uuid().unwrap();

        let again = Stored::of_message(&message, &origin()).message(mark);

        assert_eq!(again.id, message.id);
    }

    #[test]
    fn what_postgres_cannot_store_is_replaced() {
        let draft = Message::bytes("orders", "x");
        let mut message = draft.finish(MAX_PAYLOAD).unwrap().message;
        message.key = Some(Key::received("a\0b"));
        message.headers = Headers::received(BTreeMap::from([("h\0".to_owned(), "\0".to_owned())]));

        let stored = Stored::of_message(&message, &origin());

        assert_eq!(stored.key.as_deref(), Some("a\u{fffd}b"));
        assert!(!format!("{:?}", stored.headers).contains('\0'));
    }
}
