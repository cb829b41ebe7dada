//! What a service says a message is about.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest topic in bytes, the limit of Kafka.
pub const MAX_TOPIC_BYTES: usize = 249;

/// A topic: 1 to 249 of `A-Z a-z 0-9 . _ -`, without an empty part between dots.
///
/// These are the names that Kafka takes as topics and NATS as subjects alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// Why a text is no topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTopic {
    /// It has no characters.
    #[error("the topic is empty; give it 1 to {MAX_TOPIC_BYTES} characters")]
    Empty,
    /// It is longer than [`MAX_TOPIC_BYTES`].
    #[error("the topic has {0} bytes; at most {MAX_TOPIC_BYTES} are allowed")]
    TooLong(usize),
    /// It holds a character that some broker refuses.
    #[error("the topic {topic:?} holds {character:?}; allowed are A-Z a-z 0-9 . _ -")]
    Character {
        /// The topic as given.
        topic: String,
        /// The first character that is not allowed.
        character: char,
    },
    /// It starts or ends with a dot, or has two in a row.
    #[error("the topic {0:?} has an empty part between its dots")]
    EmptyPart(String),
}

impl Topic {
    /// The topic as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The broker's own name of where a message came from, taken as it is: a foreign broker
    /// may allow characters that we do not.
    #[must_use]
    pub fn received(name: &str) -> Self {
        Self(name.into())
    }
}

impl TryFrom<&str> for Topic {
    type Error = InvalidTopic;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        if text.is_empty() {
            return Err(InvalidTopic::Empty);
        }
        if text.len() > MAX_TOPIC_BYTES {
            return Err(InvalidTopic::TooLong(text.len()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some(character) = text.chars().find(|c| !allowed(*c)) {
            return Err(InvalidTopic::Character {
                topic: text.to_owned(),
                character,
            });
        }
        if text.split('.').any(str::is_empty) {
            return Err(InvalidTopic::EmptyPart(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

impl FromStr for Topic {
    type Err = InvalidTopic;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Topic {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_topics_are_taken() {
        for text in ["orders", "orders.created", "a-b_c.D9", &"x".repeat(249)] {
            assert_eq!(Topic::try_from(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_a_broker_refuses_is_refused_at_the_border() {
        assert_eq!(Topic::try_from(""), Err(InvalidTopic::Empty));
        assert_eq!(
            Topic::try_from("x".repeat(250).as_str()),
            Err(InvalidTopic::TooLong(250))
        );
        for text in ["a b", "a/b", "a*", "a>", "ä", "a\0", "a\n"] {
            assert!(
                matches!(Topic::try_from(text), Err(InvalidTopic::Character { .. })),
                "{text:?}"
            );
        }
        for text in [".", "..", ".a", "a.", "a..b"] {
            assert!(
                matches!(Topic::try_from(text), Err(InvalidTopic::EmptyPart(_))),
                "{text:?}"
            );
        }
    }
}
