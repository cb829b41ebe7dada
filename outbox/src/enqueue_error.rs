//! Why messages were not enqueued.

use std::fmt;

use onceward_core::{Chain, InvalidMessage, Schema};
use uuid::Uuid;

/// Why nothing was enqueued. None of the messages of the call was written.
#[derive(thiserror::Error)]
pub enum EnqueueError {
    /// A message was refused before the database was asked: the transaction can go on.
    #[error("message {position} of this call is refused")]
    Invalid {
        /// Which one, counted from 0.
        position: usize,
        /// Why.
        source: InvalidMessage,
    },
    /// Two messages of one call have the same id: the second would be taken for a copy of the first and dropped.
    /// The transaction can go on.
    #[error("the id {0} is given twice in this call")]
    DuplicateId(Uuid),
    /// The database has no outbox in this schema. Run the migrations, or correct the schema's name.
    #[error("the database has no outbox in the schema {schema}: run the migrations")]
    NoSchema {
        /// The schema that was looked for.
        schema: Schema,
        /// What the database said.
        source: sqlx::Error,
    },
    /// The database user may not enqueue. Grant it the role `onceward_writer`.
    #[error("this database user may not enqueue in the schema {schema}: grant it onceward_writer")]
    Forbidden {
        /// The schema.
        schema: Schema,
        /// What the database said.
        source: sqlx::Error,
    },
    /// The database failed. The transaction cannot go on: roll it back and try the whole of it again.
    #[error("the database did not take the messages")]
    Database(#[source] sqlx::Error),
}

/// As for people: with what lies behind it.
impl fmt::Debug for EnqueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Chain(self))
    }
}

impl EnqueueError {
    /// Tells the errors with a known remedy from the others.
    pub(crate) fn from_database(schema: &Schema, source: sqlx::Error) -> Self {
        let code = source
            .as_database_error()
            .and_then(|error| error.code())
            .map(|code| code.into_owned());
        let schema = schema.clone();
        match code.as_deref() {
            // invalid_schema_name, undefined_table
            Some("3F000" | "42P01") => Self::NoSchema { schema, source },
            // insufficient_privilege
            Some("42501") => Self::Forbidden { schema, source },
            Some(_) | None => Self::Database(source),
        }
    }
}
