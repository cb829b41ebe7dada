//! Messages with one key keep their order.

use std::fmt;
use std::sync::Arc;

/// Longest key in bytes.
pub const MAX_KEY_BYTES: usize = 1024;

/// The ordering key: 1 to 1,024 bytes of text without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

/// Why a text is no key. The key itself is not shown: it may be personal data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// It has no characters. A message without order has no key at all.
    #[error("the key is empty; leave it out for a message without order")]
    Empty,
    /// It is longer than [`MAX_KEY_BYTES`].
    #[error("the key has {0} bytes; at most {MAX_KEY_BYTES} are allowed")]
    TooLong(usize),
    /// It holds a control character.
    #[error("the key holds the control character {0:?}")]
    Control(char),
}

impl Key {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A key that a broker delivered, taken as it is.
    #[must_use]
    pub fn received(text: &str) -> Self {
        Self(text.into())
    }
}

impl TryFrom<&str> for Key {
    type Error = InvalidKey;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        if text.is_empty() {
            return Err(InvalidKey::Empty);
        }
        if text.len() > MAX_KEY_BYTES {
            return Err(InvalidKey::TooLong(text.len()));
        }
        match text.chars().find(|c| c.is_control()) {
            Some(character) => Err(InvalidKey::Control(character)),
            None => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_ten_kilobytes_is_refused_without_being_shown() {
        let long = "k".repeat(10_240);

        let error = Key::try_from(long.as_str()).unwrap_err();

        assert_eq!(error, InvalidKey::TooLong(10_240));
        assert!(!error.to_string().contains("kkk"));
    }

    #[test]
    fn an_empty_key_and_control_characters_are_refused() {
        assert_eq!(Key::try_from(""), Err(InvalidKey::Empty));
        assert_eq!(Key::try_from("a\r\nb"), Err(InvalidKey::Control('\r')));
        assert_eq!(Key::try_from("a\0"), Err(InvalidKey::Control('\0')));
    }
}
