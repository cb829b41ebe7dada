//! How a message joins its line: the line is held or locked first, and only then is the row written at its end.

use std::time::Duration;

use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::types::Json;
use sqlx::{Error, SqlStr};
use uuid::Uuid;

use crate::history::Attempt;
use crate::mark::slot_of;
use crate::stored::Stored;
use crate::trouble::clean;

/// Longer waits than these are none that anybody means, and beyond what Postgres can add to a time.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The constraint that says that a message waits once.
const ONCE: &str = "retries_message";

/// A message that joins its line, as the database takes it.
#[derive(Debug)]
pub(crate) struct Joining<'a> {
    pub(crate) consumer: &'a str,
    pub(crate) line: Uuid,
    pub(crate) mark: Uuid,
    pub(crate) digest: Option<&'a [u8]>,
    pub(crate) content: &'a Stored,
    pub(crate) attempts: i32,
    /// Of them, those that no longer count against the limit.
    pub(crate) forgiven: i32,
    pub(crate) history: &'a [Attempt],
    pub(crate) error: &'a str,
    /// When the message itself is due.
    pub(crate) delay: Duration,
    /// When its line is due, should it be the first.
    pub(crate) line_delay: Duration,
    /// The paused type that the line waits for, should it be the first.
    pub(crate) waits_for: Option<&'a str>,
    /// The dead letter that is replayed.
    pub(crate) dead_letter: Option<i64>,
}

impl<'q> Joining<'q> {
    /// The first statement.
    pub(crate) fn hold(&self, statement: SqlStr) -> Query<'q, Postgres, PgArguments> {
        sqlx::query(statement)
            .bind(self.consumer)
            .bind(self.line)
            .bind(&self.content.topic)
            .bind(&self.content.key)
            .bind(seconds(self.line_delay))
            .bind(self.waits_for)
    }

    /// The second one.
    pub(crate) fn add(&self, statement: SqlStr) -> Query<'q, Postgres, PgArguments> {
        let content = self.content;
        sqlx::query(statement)
            .bind(self.consumer)
            .bind(self.line)
            .bind(self.mark)
            .bind(self.digest)
            .bind(&content.original_id)
            .bind(&content.topic)
            .bind(&content.key)
            .bind(&content.kind)
            .bind(&content.headers)
            .bind(&content.payload[..])
            .bind(&content.source)
            .bind(content.created_at)
            .bind(&content.origin)
            .bind(self.attempts)
            .bind(self.forgiven)
            .bind(Json(self.history))
            .bind(clean(self.error))
            .bind(seconds(self.delay))
            .bind(self.dead_letter)
            .bind(slot_of(self.mark))
    }
}

/// Whether a message could not join because it waits already: its mark was removed, by hand or by a restore, and its row was not.
pub(crate) fn waits_already(error: &Error) -> bool {
    let error = error.as_database_error();
    error.is_some_and(|error| error.constraint() == Some(ONCE))
}

pub(crate) fn seconds(delay: Duration) -> f64 {
    delay.min(LONGEST).as_secs_f64()
}
