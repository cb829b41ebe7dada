//! The user's headers: names and values that every broker can carry.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::draft::InvalidMessage;
use crate::message::number;

/// Most headers of one message.
pub const MAX_HEADERS: usize = 64;

/// Most bytes of all names and values of one message together.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Prefixes that belong to CloudEvents, the brokers and Onceward itself, in any case.
const RESERVED_PREFIXES: [&str; 4] = ["ce-", "ce_", "nats-", "onceward-"];

/// The header under which the content type travels and is stored; set through the builder only.
pub const CONTENT_TYPE: &str = "content-type";

/// The header that says until when a message is of use, as RFC 3339. With [`SEQUENCE`] the ones of ours that anybody may set.
pub const EXPIRES_AT: &str = "onceward-expires-at";

/// The header under which the producer's own number of a message is stored, in decimal digits. It travels as the
/// CloudEvents attribute `sequence`.
pub const SEQUENCE: &str = "onceward-sequence";

/// Headers by name. Names are kept as written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Headers(BTreeMap<String, String>);

/// Why a header is refused. Values are never shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidHeader {
    /// The name is empty.
    #[error("a header has an empty name")]
    EmptyName,
    /// The name holds something other than letters, digits, `-`, `_` and `.`.
    #[error("the header name {name:?} holds {character:?}; allowed are A-Z a-z 0-9 - _ .")]
    NameCharacter {
        /// The name as given.
        name: String,
        /// The first character that is not allowed.
        character: char,
    },
    /// The name is reserved.
    #[error(
        "the header name {0:?} is reserved (ce-, ce_, Nats-, onceward- and content-type, in any case); use the builder's own methods for those"
    )]
    Reserved(String),
    /// The value holds a control character other than a tab.
    #[error("the value of header {name:?} holds the control character {character:?}")]
    ValueCharacter {
        /// The header's name.
        name: String,
        /// The first character that is not allowed.
        character: char,
    },
    /// There are more than [`MAX_HEADERS`].
    #[error("{0} headers; at most {MAX_HEADERS} are allowed")]
    TooMany(usize),
    /// Names and values together are longer than [`MAX_HEADER_BYTES`].
    #[error("the headers have {0} bytes in all; at most {MAX_HEADER_BYTES} are allowed")]
    TooLong(usize),
}

impl Headers {
    /// No headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Headers that a broker delivered, taken as they are.
    #[must_use]
    pub fn received(headers: BTreeMap<String, String>) -> Self {
        Self(headers)
    }

    /// Sets a header, in place of an earlier one of the same name.
    ///
    /// # Errors
    /// Any [`InvalidHeader`]; the headers stay as they were.
    pub fn insert(&mut self, name: &str, value: &str) -> Result<(), InvalidHeader> {
        check_name(name)?;
        if let Some(character) = value.chars().find(|c| c.is_control() && *c != '\t') {
            return Err(InvalidHeader::ValueCharacter {
                name: name.to_owned(),
                character,
            });
        }
        let replaced = self.0.get(name).map(|old| name.len() + old.len());
        let count = self.0.len() + usize::from(replaced.is_none());
        if count > MAX_HEADERS {
            return Err(InvalidHeader::TooMany(count));
        }
        let bytes = self.bytes() - replaced.unwrap_or(0) + name.len() + value.len();
        if bytes > MAX_HEADER_BYTES {
            return Err(InvalidHeader::TooLong(bytes));
        }
        self.0.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// The value of a header, its name exactly as written.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Refuses what enqueueing would refuse of the producer's own number, if there is one. `has_key`: so does the message.
    ///
    /// # Errors
    /// [`InvalidMessage::Sequence`] and [`InvalidMessage::SequenceWithoutKey`].
    pub fn check_sequence(&self, has_key: bool) -> Result<(), InvalidMessage> {
        match self.get(SEQUENCE) {
            Some(text) if number(text).is_none() => Err(InvalidMessage::Sequence),
            Some(_) if !has_key => Err(InvalidMessage::SequenceWithoutKey),
            Some(_) | None => Ok(()),
        }
    }

    /// Names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all names and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(n, v)| n.len() + v.len()).sum()
    }
}

/// Whether a text can be a content type: 1 to 255 printable ASCII characters.
#[must_use]
pub fn is_content_type(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

fn check_name(name: &str) -> Result<(), InvalidHeader> {
    if name.is_empty() {
        return Err(InvalidHeader::EmptyName);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if let Some(character) = name.chars().find(|c| !allowed(*c)) {
        return Err(InvalidHeader::NameCharacter {
            name: name.to_owned(),
            character,
        });
    }
    let lower = name.to_ascii_lowercase();
    let reserved = lower == CONTENT_TYPE || RESERVED_PREFIXES.iter().any(|p| lower.starts_with(p));
    if reserved && ![EXPIRES_AT, SEQUENCE].contains(&name) {
        return Err(InvalidHeader::Reserved(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_break_a_protocol_are_refused() {
        for name in ["a\rb", "a\nb", "a\0b", "a:b", "a b", "ä"] {
            let result = Headers::new().insert(name, "v");

            assert!(
                matches!(result, Err(InvalidHeader::NameCharacter { .. })),
                "{name:?}"
            );
        }
        assert_eq!(
            Headers::new().insert("", "v"),
            Err(InvalidHeader::EmptyName)
        );
    }

    #[test]
    fn reserved_names_are_refused_in_any_case() {
        for name in [
            "ce-id",
            "CE_type",
            "Nats-Msg-Id",
            "onceward-seq",
            "Content-Type",
        ] {
            let result = Headers::new().insert(name, "v");

            assert_eq!(result, Err(InvalidHeader::Reserved(name.to_owned())));
        }
    }

    #[test]
    fn a_value_that_could_forge_a_header_is_refused() {
        for value in ["a\r\nb", "a\0"] {
            let result = Headers::new().insert("x", value);

            assert!(
                matches!(result, Err(InvalidHeader::ValueCharacter { .. })),
                "{value:?}"
            );
        }
    }

    #[test]
    fn the_sixty_fifth_header_is_refused() {
        let mut headers = Headers::new();
        for n in 0..64 {
            headers.insert(&format!("h{n}"), "v").unwrap();
        }

        assert_eq!(
            headers.insert("one-more", "v"),
            Err(InvalidHeader::TooMany(65))
        );
        assert_eq!(headers.insert("h7", "again"), Ok(()));
    }

    #[test]
    fn sixteen_kilobytes_fit_and_one_byte_more_does_not() {
        let mut headers = Headers::new();

        assert_eq!(
            headers.insert("a", &"v".repeat(MAX_HEADER_BYTES)),
            Err(InvalidHeader::TooLong(MAX_HEADER_BYTES + 1))
        );
        assert_eq!(
            headers.insert("a", &"v".repeat(MAX_HEADER_BYTES - 1)),
            Ok(())
        );
    }
}
