//! The name of the database schema that holds Onceward's tables.

use std::fmt;
use std::sync::Arc;

/// A schema name: 1 to 63 of `a-z 0-9 _`, not starting with a digit or with `pg_`, so that it can never inject. It may be a
/// word of SQL, such as `order`, which needs quotes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Schema(Arc<str>);

/// The text is no schema name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the schema name {0:?} must be 1 to 63 of a-z 0-9 _, not starting with a digit or with pg_"
)]
pub struct InvalidSchema(pub String);

impl Schema {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Schema {
    fn default() -> Self {
        Self("onceward".into())
    }
}

impl TryFrom<&str> for Schema {
    type Error = InvalidSchema;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        let first = text.bytes().next();
        let starts = first.is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
        let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let valid = starts && text.len() <= 63 && text.bytes().all(rest);
        // Postgres keeps names that start with pg_ for itself.
        if valid && !text.starts_with("pg_") {
            Ok(Self(text.into()))
        } else {
            Err(InvalidSchema(text.to_owned()))
        }
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_need_quoting_are_refused() {
        for text in [
            "",
            "a\"b",
            "a'b",
            "A",
            "1a",
            "a-b",
            "a.b",
            "a;drop",
            "pg_x",
            &"a".repeat(64),
        ] {
            assert!(Schema::try_from(text).is_err(), "{text:?}");
        }
        for text in ["onceward", "_x9", &"a".repeat(63)] {
            assert!(Schema::try_from(text).is_ok(), "{text:?}");
        }
    }
}
