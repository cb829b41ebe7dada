//! A row of the log as it was read.

use std::collections::BTreeMap;

use bytes::Bytes;
use onceward_core::wire::CONTENT_TYPE;
use onceward_core::{Headers, Key, Kind, Lane, Message, MessageId, Topic};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use sqlx::{Row, ValueRef};
use time::OffsetDateTime;
use uuid::Uuid;

use super::cursor::Sequenced;
use super::read_sql::column;

/// A message in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// Its number.
    pub seq: i64,
    /// Its partition of the ring.
    pub slot: i16,
    /// Its priority class.
    pub lane: Lane,
    /// When it was written, by the database's clock.
    pub created_at: OffsetDateTime,
    pub(crate) message: Message,
}

impl LogRow {
    /// What it is about.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.message.topic
    }

    /// The message, with seq and time set; its source is the relay's to set.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The same, taken out of the row.
    #[must_use]
    pub fn into_message(self) -> Message {
        self.message
    }
}

impl Sequenced for LogRow {
    fn seq(&self) -> i64 {
        self.seq
    }
}

/// The topic and the type of the row before: they repeat, and are shared then.
#[derive(Debug, Default)]
pub(super) struct Names {
    topic: Option<Topic>,
    kind: Option<Kind>,
}

impl Names {
    fn topic(&mut self, text: &str) -> Topic {
        match &self.topic {
            Some(topic) if topic.as_str() == text => topic.clone(),
            Some(_) | None => self.topic.insert(Topic::received(text)).clone(),
        }
    }

    fn kind(&mut self, text: &str) -> Kind {
        match &self.kind {
            Some(kind) if kind.as_str() == text => kind.clone(),
            Some(_) | None => self.kind.insert(Kind::received(text)).clone(),
        }
    }
}

/// The columns of a message as they are stored, in the log and beside it.
pub(crate) struct Stored<'a> {
    pub(crate) seq: i64,
    pub(crate) id: Uuid,
    pub(crate) topic: &'a str,
    pub(crate) key: Option<&'a str>,
    pub(crate) kind: &'a str,
    /// As `jsonb` comes over the wire: a version, then JSON.
    pub(crate) headers: &'a [u8],
    pub(crate) payload: &'a [u8],
    pub(crate) created_at: OffsetDateTime,
}

impl Stored<'_> {
    /// The message. Nothing is checked again: what a producer managed to store is for the destination to refuse.
    pub(crate) fn message(&self) -> Result<Message, sqlx::Error> {
        self.message_of(&mut Names::default())
    }

    fn message_of(&self, names: &mut Names) -> Result<Message, sqlx::Error> {
        let (headers, content_type) = headers(self.headers)?;
        Ok(Message {
            id: MessageId::Uuid(self.id),
            topic: names.topic(self.topic),
            key: self.key.map(Key::received),
            kind: names.kind(self.kind),
            content_type,
            headers,
            payload: Bytes::copy_from_slice(self.payload),
            source: None,
            time: Some(self.created_at),
            seq: Some(self.seq),
        })
    }
}

/// Headers and the content type out of a stored object.
pub(crate) fn headers(stored: &[u8]) -> Result<(Headers, Option<String>), sqlx::Error> {
    let json = stored.get(1..).unwrap_or_default();
    if json == b"{}" {
        return Ok((Headers::new(), None));
    }
    // Raw values: a number that no type of ours can hold is still a text that a header can carry.
    let object: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(json).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let mut texts: BTreeMap<String, String> = object
        .into_iter()
        .map(|(name, value)| {
            let text = serde_json::from_str::<String>(value.get());
            (name, text.unwrap_or_else(|_| value.get().to_owned()))
        })
        .collect();
    let content_type = texts.remove(CONTENT_TYPE);
    Ok((Headers::received(texts), content_type))
}

/// The object that is stored for headers and content type.
pub(crate) fn stored_headers(message: &Message) -> Value {
    let headers = message.headers.iter().chain(
        message
            .content_type
            .iter()
            .map(|c| (CONTENT_TYPE, c.as_str())),
    );
    Value::Object(
        headers
            .map(|(name, value)| (name.to_owned(), Value::from(value)))
            .collect(),
    )
}

/// A row of the read's answer.
pub(super) fn decode(row: &PgRow, lane: Lane, names: &mut Names) -> Result<LogRow, sqlx::Error> {
    let seq = row.try_get_unchecked(column::SEQ)?;
    let created_at = row.try_get_unchecked(column::CREATED_AT)?;
    let stored = Stored {
        seq,
        id: row.try_get_unchecked(column::ID)?,
        topic: row.try_get_unchecked(column::TOPIC)?,
        key: row.try_get_unchecked(column::KEY)?,
        kind: row.try_get_unchecked(column::TYPE)?,
        headers: bytes(row, column::HEADERS)?,
        payload: bytes(row, column::PAYLOAD)?,
        created_at,
    };
    Ok(LogRow {
        seq,
        slot: row.try_get_unchecked(column::SLOT)?,
        lane,
        created_at,
        message: stored.message_of(names)?,
    })
}

/// What a column of type `jsonb` holds.
pub(super) fn json<T: DeserializeOwned>(row: &PgRow, column: usize) -> Result<T, sqlx::Error> {
    // A version, then JSON.
    let json = bytes(row, column)?.get(1..).unwrap_or_default();
    serde_json::from_slice(json).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// The bytes of a column as they came, without a copy.
pub(crate) fn bytes(row: &PgRow, column: usize) -> Result<&[u8], sqlx::Error> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok(&[]);
    }
    value.as_bytes().map_err(sqlx::Error::Decode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_repeat_are_the_same_and_others_are_their_own() {
        let mut names = Names::default();

        let topics = ["a", "a", "b", "a"].map(|text| names.topic(text));
        let kinds = ["k", "l", "l"].map(|text| names.kind(text));

        assert_eq!(topics.each_ref().map(Topic::as_str), ["a", "a", "b", "a"]);
        assert_eq!(kinds.each_ref().map(Kind::as_str), ["k", "l", "l"]);
        assert!(std::ptr::eq(topics[0].as_str(), topics[1].as_str()));
    }

    #[test]
    fn what_is_no_text_is_carried_as_it_was_written() {
        let stored =
            b"\x01{\"n\": 1e400, \"o\": {\"a\": 1}, \"t\": \"x\", \"content-type\": \"a/b\"}";

        let (headers, content_type) = headers(stored).unwrap();

        assert_eq!(headers.get("n"), Some("1e400"));
        assert_eq!(headers.get("o"), Some("{\"a\": 1}"));
        assert_eq!(headers.get("t"), Some("x"));
        assert_eq!(content_type.as_deref(), Some("a/b"));
    }
}
