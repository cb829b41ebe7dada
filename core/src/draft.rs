//! A message being written, and the border at which it becomes valid.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};
use uuid::Uuid;

use crate::headers::{EXPIRES_AT, SEQUENCE, is_content_type};
use crate::{
    Headers, InvalidHeader, InvalidKey, InvalidKind, InvalidTopic, Key, Kind, Lane, Message,
    MessageId, Topic, UnknownLane,
};

/// Largest payload in bytes unless the outbox is told otherwise. With the largest headers it stays below
/// 1 MiB, the default limit of Kafka, NATS and SQS alike.
pub const MAX_PAYLOAD: usize = 1_000_000;

/// A message being written. Nothing is checked until [`finish`](Self::finish), which enqueueing calls.
///
/// ```
/// use onceward_core::{Message, MAX_PAYLOAD};
///
/// let draft = Message::json("orders.created", &serde_json::json!({ "order": 17 }))?
///     .key(17)
///     .header("tenant", "acme");
/// let entry = draft.finish(MAX_PAYLOAD)?;
/// assert_eq!(entry.message.kind.as_str(), "orders.created");
/// # Ok::<(), onceward_core::InvalidMessage>(())
/// ```
#[derive(Clone)]
pub struct Draft {
    topic: String,
    key: Option<String>,
    kind: Option<String>,
    content_type: Option<String>,
    headers: Vec<(String, String)>,
    payload: Bytes,
    lane: Result<Lane, UnknownLane>,
    /// Whether the time of expiry that was set last can be written.
    expiry_fits: bool,
    id: Option<Uuid>,
}

/// A valid message and the lane it goes to.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The message.
    pub message: Message,
    /// Its priority class.
    pub lane: Lane,
}

/// Why a message is refused at the border. Payloads, keys and header values are never shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMessage {
    /// The topic is not valid.
    #[error(transparent)]
    Topic(#[from] InvalidTopic),
    /// The key is not valid.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// The type is not valid.
    #[error(transparent)]
    Kind(#[from] InvalidKind),
    /// A header is refused.
    #[error(transparent)]
    Header(#[from] InvalidHeader),
    /// The lane is unknown.
    #[error(transparent)]
    Lane(#[from] UnknownLane),
    /// The content type is empty, longer than 255 bytes or not printable ASCII.
    #[error("the content type {0:?} must have 1 to 255 printable ASCII characters")]
    ContentType(String),
    /// The payload is larger than the cap.
    #[error("the payload has {bytes} bytes; at most {cap} are allowed")]
    PayloadTooLarge {
        /// Its size.
        bytes: usize,
        /// The largest size allowed.
        cap: usize,
    },
    /// The sequence is no whole number from 1 to `i64::MAX`.
    #[error("the sequence must be a whole number from 1 to {}", i64::MAX)]
    Sequence,
    /// The time of expiry is not in the years 0 to 9999 in UTC.
    #[error("the time of expiry must be in the years 0 to 9999 in UTC")]
    ExpiresAt,
    /// A message with a sequence has no key.
    #[error("the message has a sequence and no key; a sequence numbers the messages of one key")]
    SequenceWithoutKey,
    /// The event could not be written as JSON.
    #[error("the event could not be written as JSON")]
    Json(#[source] serde_json::Error),
}

impl Message {
    /// A message whose payload is the event as JSON, with content type `application/json`.
    ///
    /// # Errors
    /// [`InvalidMessage::Json`] when the event cannot be written as JSON, such as a map whose keys are no strings.
    pub fn json<E: Serialize + ?Sized>(topic: &str, event: &E) -> Result<Draft, InvalidMessage> {
        let payload = serde_json::to_vec(event).map_err(InvalidMessage::Json)?;
        Ok(Self::bytes(topic, payload).content_type("application/json"))
    }

    /// A message of any bytes. Say what they are with [`Draft::content_type`].
    #[must_use]
    pub fn bytes(topic: &str, payload: impl Into<Bytes>) -> Draft {
        Draft {
            topic: topic.to_owned(),
            key: None,
            kind: None,
            content_type: None,
            headers: Vec::new(),
            payload: payload.into(),
            lane: Ok(Lane::default()),
            expiry_fits: true,
            id: None,
        }
    }
}

impl Draft {
    /// The ordering key, 1 to 1,024 bytes without control characters: usually the id of the aggregate that changed.
    /// Without a key a message has no order.
    #[must_use]
    pub fn key(mut self, key: impl ToString) -> Self {
        self.key = Some(key.to_string());
        self
    }

    /// The type, 1 to 255 bytes without control characters, when it is not the topic. Handlers are chosen by it.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Sets a header, in place of an earlier one of the same name: at most 64, 16 KiB with their names; names of letters,
    /// digits, `-`, `_` and `.`, none of the reserved ones ([`InvalidHeader`](crate::InvalidHeader)).
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Until when the message is of use: after that a consumer counts it and does not handle it. It is published all the
    /// same. Travels as the header `onceward-expires-at`, in UTC, to the second; its year in UTC is 0 to 9999.
    #[must_use]
    pub fn expires_at(mut self, at: OffsetDateTime) -> Self {
        let text = in_utc(at);
        self.expiry_fits = text.is_some();
        match text {
            Some(text) => self.header(EXPIRES_AT, text),
            None => self,
        }
    }

    /// The producer's own number of the message among those of its topic and key, 1 to `i64::MAX`, such as the version of
    /// the aggregate. It needs a key, grows with each message of it, and is never given twice. Consumers may dedupe by it.
    /// Travels as the CloudEvents attribute `sequence`; from SQL it is the header `onceward-sequence`. Who copies the headers of
    /// a message to a new one copies its number too: leave out `onceward-sequence`, or give the new one a number of its own.
    #[must_use]
    pub fn sequence(self, number: i64) -> Self {
        self.header(SEQUENCE, number.to_string())
    }

    /// The media type of the payload, 1 to 255 printable ASCII characters.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// The priority class, [`Lane::Standard`] unless set. Messages of one key in two lanes have no order.
    #[must_use]
    pub fn lane(mut self, lane: Lane) -> Self {
        self.lane = Ok(lane);
        self
    }

    /// The priority class by name, for names that come from outside.
    #[must_use]
    pub fn lane_named(mut self, name: &str) -> Self {
        self.lane = name.parse();
        self
    }

    /// The id, when the caller has one already; should be a uuid of version 7.
    #[must_use]
    pub fn id(mut self, id: Uuid) -> Self {
        self.id = Some(id);
        self
    }

    /// Whether a header of that name was set, in any case.
    #[must_use]
    pub fn has_header(&self, name: &str) -> bool {
        self.headers
            .iter()
            .any(|(n, _)| n.eq_ignore_ascii_case(name))
    }

    /// Checks everything and gives the message its id. `max_payload` is in bytes.
    ///
    /// # Errors
    /// The first [`InvalidMessage`] found. Nothing was written: correct the message and try again.
    pub fn finish(self, max_payload: usize) -> Result<Entry, InvalidMessage> {
        let topic = Topic::try_from(self.topic.as_str())?;
        let key = self.key.as_deref().map(Key::try_from).transpose()?;
        let kind = match self.kind.as_deref() {
            Some(kind) => Kind::try_from(kind)?,
            None => Kind::from(&topic),
        };
        let mut headers = Headers::new();
        for (name, value) in &self.headers {
            headers.insert(name, value)?;
        }
        headers.check_sequence(key.is_some())?;
        if !self.expiry_fits {
            return Err(InvalidMessage::ExpiresAt);
        }
        if let Some(content_type) = &self.content_type
            && !is_content_type(content_type)
        {
            return Err(InvalidMessage::ContentType(content_type.clone()));
        }
        if self.payload.len() > max_payload {
            return Err(InvalidMessage::PayloadTooLarge {
                bytes: self.payload.len(),
                cap: max_payload,
            });
        }
        let message = Message {
            id: self.id.map_or_else(MessageId::new, MessageId::Uuid),
            topic,
            key,
            kind,
            content_type: self.content_type,
            headers,
            payload: self.payload,
            source: None,
            time: None,
            seq: None,
        };
        Ok(Entry {
            message,
            lane: self.lane?,
        })
    }
}

/// A time as RFC 3339, in UTC and to the second; none for a year that this cannot write.
fn in_utc(at: OffsetDateTime) -> Option<String> {
    let at = at.checked_to_offset(UtcOffset::UTC)?;
    let whole = at.replace_nanosecond(0).ok()?;
    whole.format(&Rfc3339).ok()
}

impl fmt::Debug for Draft {
    /// Shows neither payload nor key nor header values: they may be personal data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("topic", &self.topic)
            .field("kind", &self.kind)
            .field("lane", &self.lane)
            .field("id", &self.id)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use time::Date;

    use super::*;

    #[test]
    fn a_time_of_expiry_in_any_offset_is_written_in_utc() {
        let offset = UtcOffset::from_hms(1, 0, 30).unwrap();
        let at = OffsetDateTime::from_unix_timestamp(1_767_225_570).unwrap();
        let within = at.replace_nanosecond(900_000_000).unwrap();

        let draft = Message::bytes("t", "x").expires_at(within.to_offset(offset));
        let message = draft.finish(9).unwrap().message;

        let text = message.headers.get(EXPIRES_AT);
        assert_eq!(text, Some("2025-12-31T23:59:30Z"));
        assert_eq!(message.expires_at(), Some(at));
    }

    #[test]
    fn a_time_of_expiry_that_cannot_be_written_is_refused() {
        let draft = || Message::bytes("t", "x");
        let date = Date::from_ordinal_date(9999, 365).unwrap();
        let last = date.with_hms(23, 30, 0).unwrap();
        let west = UtcOffset::from_hms(-1, 0, 0).unwrap();
        let before_year_0 = OffsetDateTime::from_unix_timestamp(-62_167_219_201).unwrap();

        assert!(draft().expires_at(last.assume_utc()).finish(9).is_ok());
        for bad in [last.assume_offset(west), before_year_0] {
            let draft = draft().expires_at(bad);
            let corrected = draft.clone().expires_at(last.assume_utc());
            let refused = draft.finish(9);
            assert!(matches!(refused, Err(InvalidMessage::ExpiresAt)), "{bad}");
            assert!(corrected.finish(9).is_ok());
        }
    }

    #[test]
    fn the_payload_fits_at_the_cap_and_not_one_byte_over() {
        let at = Message::bytes("t", vec![0; 10]).finish(10);
        let over = Message::bytes("t", vec![0; 11]).finish(10);

        assert!(at.is_ok());
        assert!(matches!(
            over,
            Err(InvalidMessage::PayloadTooLarge { bytes: 11, cap: 10 })
        ));
    }

    #[test]
    fn a_draft_shows_no_secrets() {
        let draft = Message::bytes("t", "hush").key("hush").header("x", "hush");

        assert!(!format!("{draft:?}").contains("hush"));
    }

    #[test]
    fn a_draft_takes_its_type_from_its_topic_and_makes_an_id() {
        let entry = Message::bytes("orders.created", "x").finish(10).unwrap();

        assert_eq!(entry.message.kind.as_str(), "orders.created");
        assert_eq!(entry.lane, Lane::Standard);
        assert_eq!(entry.message.id.as_uuid().unwrap().get_version_num(), 7);
    }

    #[test]
    fn a_sequence_is_a_positive_number_of_a_key() {
        let draft = |number| Message::bytes("t", "x").sequence(number);

        let entry = draft(i64::MAX).key("k").finish(9).unwrap();

        assert_eq!(entry.message.sequence(), Some(i64::MAX));
        for bad in [0, -1, i64::MIN] {
            let refused = draft(bad).key("k").finish(9);
            assert!(matches!(refused, Err(InvalidMessage::Sequence)), "{bad}");
        }
        assert!(matches!(
            draft(1).finish(9),
            Err(InvalidMessage::SequenceWithoutKey)
        ));
    }

    #[test]
    fn a_bad_part_is_refused_by_its_own_kind() {
        let draft = || Message::bytes("t", "x");

        assert!(matches!(
            draft().lane_named("urgent").finish(9),
            Err(InvalidMessage::Lane(_))
        ));
        assert!(matches!(
            draft().key("").finish(9),
            Err(InvalidMessage::Key(InvalidKey::Empty))
        ));
        assert!(matches!(
            draft().header("ce-id", "1").finish(9),
            Err(InvalidMessage::Header(InvalidHeader::Reserved(_)))
        ));
        assert!(matches!(
            draft().content_type("a\r\nb").finish(9),
            Err(InvalidMessage::ContentType(_))
        ));
        assert!(matches!(
            draft().kind("").finish(9),
            Err(InvalidMessage::Kind(InvalidKind::Empty))
        ));
    }
}
