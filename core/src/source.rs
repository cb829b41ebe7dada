//! Where messages come from, in the sense of CloudEvents.

use std::fmt;
use std::sync::Arc;

/// The CloudEvents `source`: a URI reference of 1 to 255 bytes, such as `/shop/orders`.
///
/// Ids are unique per source: two sources may use the same id for different messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source(Arc<str>);

/// Why a text is no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the source {0:?} must have 1 to 255 printable ASCII characters without spaces")]
pub struct InvalidSource(pub String);

impl Source {
    /// The source as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The source of a message on the wire, taken as it is.
    #[must_use]
    pub fn received(text: &str) -> Self {
        Self(text.into())
    }
}

impl TryFrom<&str> for Source {
    type Error = InvalidSource;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        let length = (1..=255).contains(&text.len());
        if length && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidSource(text.to_owned()))
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_source_and_a_sentence_is_not() {
        assert_eq!(
            Source::try_from("/shop/orders").unwrap().as_str(),
            "/shop/orders"
        );
        assert!(Source::try_from("the shop").is_err());
        assert!(Source::try_from("").is_err());
    }
}
