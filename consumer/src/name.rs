//! The name of a consumer: what its marks are kept under.

use std::fmt;
use std::sync::Arc;

/// A consumer's name: `[a-z][a-z0-9_]*`, at most 63 characters.
///
/// Its marks are kept under it: a renamed consumer is a new one, which handles again whatever the broker still has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConsumerName(Arc<str>);

/// The text is no consumer's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the consumer name {0:?} must be 1 to 63 of a-z 0-9 _, starting with a letter")]
pub struct InvalidName(pub String);

impl ConsumerName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for ConsumerName {
    type Error = InvalidName;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        let starts = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if starts && text.len() <= 63 && text.bytes().all(rest) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName(text.to_owned()))
        }
    }
}

impl fmt::Display for ConsumerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_small_letters_digits_and_underscores() {
        for text in ["billing", "b2_x", &"a".repeat(63)] {
            assert!(ConsumerName::try_from(text).is_ok(), "{text:?}");
        }
        for text in ["", "1a", "_a", "A", "a-b", "a.b", "a'b", &"a".repeat(64)] {
            assert!(ConsumerName::try_from(text).is_err(), "{text:?}");
        }
    }
}
