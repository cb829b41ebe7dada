//! What travels.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::headers::{EXPIRES_AT, SEQUENCE};
use crate::{Headers, Key, MessageId, Source, Topic};

/// Longest type in bytes.
pub const MAX_KIND_BYTES: usize = 255;

/// What happened, as a name: the CloudEvents `type`, such as `orders.created`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(Arc<str>);

/// Why a text is no type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKind {
    /// It has no characters.
    #[error("the type is empty; leave it out to use the topic")]
    Empty,
    /// It is longer than [`MAX_KIND_BYTES`].
    #[error("the type has {0} bytes; at most {MAX_KIND_BYTES} are allowed")]
    TooLong(usize),
    /// It holds a control character.
    #[error("the type {kind:?} holds the control character {character:?}")]
    Control {
        /// The type as given.
        kind: String,
        /// The first control character.
        character: char,
    },
}

impl Kind {
    /// The type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The type of a message on the wire, taken as it is.
    #[must_use]
    pub fn received(text: &str) -> Self {
        Self(text.into())
    }
}

impl TryFrom<&str> for Kind {
    type Error = InvalidKind;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        if text.is_empty() {
            return Err(InvalidKind::Empty);
        }
        if text.len() > MAX_KIND_BYTES {
            return Err(InvalidKind::TooLong(text.len()));
        }
        match text.chars().find(|c| c.is_control()) {
            Some(character) => Err(InvalidKind::Control {
                kind: text.to_owned(),
                character,
            }),
            None => Ok(Self(text.into())),
        }
    }
}

impl From<&Topic> for Kind {
    fn from(topic: &Topic) -> Self {
        Self(topic.as_str().into())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An event with id, topic, key, type, headers and payload. Cloning is cheap for the payload, which is shared.
///
/// Services write one with a [`Draft`](crate::Draft); handlers get one from their consumer.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is told apart by.
    pub id: MessageId,
    /// What it is about.
    pub topic: Topic,
    /// Messages with one key keep order; none: no order.
    pub key: Option<Key>,
    /// What happened; the topic unless the service said otherwise.
    pub kind: Kind,
    /// The media type of the payload.
    pub content_type: Option<String>,
    /// The user's own headers, trace context among them.
    pub headers: Headers,
    /// The bytes, never changed on the way.
    pub payload: Bytes,
    /// Which service it came from; set by the relay.
    pub source: Option<Source>,
    /// When it was written to the log; set by the log.
    pub time: Option<OffsetDateTime>,
    /// Its number in the log: grows per key within one history of the database. For those who keep only
    /// the last value of a key; never an identity. Set by the log.
    pub seq: Option<i64>,
}

impl Message {
    /// Until when it is of use, if it says so: after that consumers settle it without handling it. A time that cannot be
    /// read is none.
    #[must_use]
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        let text = self.headers.get(EXPIRES_AT)?;
        OffsetDateTime::parse(text, &Rfc3339).ok()
    }

    /// The producer's own number of it among the messages of its topic and key, from 1 on, if it says so. What is no
    /// such number is none. It is the producer's word; [`seq`](Self::seq) is that of the log.
    #[must_use]
    pub fn sequence(&self) -> Option<i64> {
        self.headers.get(SEQUENCE).and_then(number)
    }

    /// Whether it has something in the place of the producer's number, be it a number or not.
    #[must_use]
    pub fn says_sequence(&self) -> bool {
        self.headers.get(SEQUENCE).is_some()
    }

    /// Bytes that the message holds in memory, roughly: payload, headers, key and names.
    #[must_use]
    pub fn weight(&self) -> usize {
        let key = self.key.as_ref().map_or(0, |key| key.as_str().len());
        self.payload.len() + self.headers.bytes() + key + self.topic.as_str().len() + 200
    }
}

/// Decimal digits that make a number from 1 to `i64::MAX`; neither sign nor space.
pub(crate) fn number(text: &str) -> Option<i64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| *number > 0);
    number.filter(|_| digits)
}

impl fmt::Debug for Message {
    /// Shows neither payload nor key nor header values: they may be personal data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("topic", &self.topic.as_str())
            .field("kind", &self.kind.as_str())
            .field("seq", &self.seq)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_digits_only_and_lies_between_one_and_the_largest() {
        for (text, expected) in [
            ("1", Some(1)),
            ("007", Some(7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("0", None),
            ("-1", None),
            ("+1", None),
            (" 1", None),
            ("1.0", None),
            ("\u{0661}", None),
            ("", None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }
}
