//! What a person can see of dead letters.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onceward_core::Schema;
use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{FromRow, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::history::Attempt;
use crate::sql;

/// Which dead letters to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Of this consumer only.
    pub consumer: Option<String>,
    /// With this reason only.
    pub reason: Option<String>,
    /// In this state only: `dead`, `replayed` or `discarded`. Default `dead`.
    pub state: Option<String>,
    /// With a smaller id than this: the last one of the page before.
    pub before: Option<i64>,
    /// At most so many. Default 100.
    pub limit: u32,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            consumer: None,
            reason: None,
            state: Some("dead".to_owned()),
            before: None,
            limit: 100,
        }
    }
}

/// A dead letter in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Summary {
    /// Its number in the table.
    pub id: i64,
    /// Which consumer gave up.
    pub consumer: String,
    /// The key of its mark.
    pub message_id: Uuid,
    /// The message's topic.
    pub topic: String,
    /// The message's type; none: it could not be read.
    #[serde(rename = "type")]
    #[sqlx(rename = "type")]
    pub kind: Option<String>,
    /// The message's key.
    pub key: Option<String>,
    /// Why, as a code: `undecodable`, `payload`, `no_handler`, `rejected`, `attempts`, `transaction_ended`,
    /// `id_conflict`, `crashed`, `too_old`, `sequence_reused`, `sequence_unknown`.
    pub reason: String,
    /// The last error.
    pub error: String,
    /// How often the handler was tried.
    pub attempts: i32,
    /// `dead`, `replayed` or `discarded`.
    pub state: String,
    /// When it was given up on.
    #[serde(with = "time::serde::rfc3339")]
    pub dead_at: OffsetDateTime,
}

/// A dead letter with all that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeadLetter {
    /// What a list shows.
    #[serde(flatten)]
    pub summary: Summary,
    /// The id as it came on the wire; none: it came without.
    pub original_id: Option<String>,
    /// Where it came from, in the sense of CloudEvents.
    pub source: Option<String>,
    /// When it was written, if it says so.
    #[serde(with = "time::serde::rfc3339::option")]
    pub created_at: Option<OffsetDateTime>,
    /// Its headers.
    pub headers: Value,
    /// Broker, partition, position, how often it came before, when the broker got it, and its number in the log.
    pub origin: Value,
    /// The attempts.
    pub history: Vec<Attempt>,
    /// When the first attempt failed.
    #[serde(with = "time::serde::rfc3339::option")]
    pub first_failed_at: Option<OffsetDateTime>,
    /// How often it was replayed.
    pub replays: i32,
    /// What was decided about it: objects with `at`, `what` and `by`.
    pub decisions: Value,
    /// The payload.
    pub payload: Payload,
}

/// A payload: as text if it is UTF-8, else as base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// It is UTF-8.
    Text(String),
    /// It is not.
    Base64(String),
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(
            |error| Self::Base64(STANDARD.encode(error.as_bytes())),
            Self::Text,
        )
    }
}

/// How many dead letters a consumer has, by reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct DeadLetterCount {
    /// The consumer.
    pub consumer: String,
    /// Why they were given up on.
    pub reason: String,
    /// How many are in state `dead`.
    pub count: i64,
    /// When the oldest of them was given up on.
    #[serde(with = "time::serde::rfc3339")]
    pub oldest: OffsetDateTime,
}

/// By primary key backwards; with a consumer by `dead_letters_consumer` backwards.
const LIST: &str = "
select id, consumer, message_id, topic, type, key, reason, error, attempts, state, dead_at
from {schema}.dead_letters
where ($1::text is null or consumer = $1)
  and ($2::text is null or reason = $2)
  and ($3::text is null or state = $3)
  and ($4::bigint is null or id < $4)
order by id desc
limit $5";

/// By primary key.
const SHOW: &str = "
select
  id, consumer, message_id, topic, type, key, reason, error, attempts, state, dead_at,
  original_id, source, created_at, headers, origin, history, first_failed_at, replays, decisions, payload
from {schema}.dead_letters
where id = $1";

/// Scans the table, which is small or else somebody has much to do.
const COUNTS: &str = "
select consumer, reason, count(*) as count, min(dead_at) as oldest
from {schema}.dead_letters
where state = 'dead'
group by consumer, reason
order by consumer, reason";

/// Scans both tables, which are small or else somebody has much to do: letters of a consumer that was deleted can still be asked for.
const CONSUMERS: &str = "
select consumer
from {schema}.consumers
union
select consumer
from {schema}.dead_letters
order by consumer";

/// Dead letters, newest first.
///
/// # Errors
/// Any database error; nothing is changed.
///
/// # Cancel safety
/// Safe to drop.
pub async fn list(
    pool: &PgPool,
    schema: &Schema,
    filter: &Filter,
) -> Result<Vec<Summary>, sqlx::Error> {
    sqlx::query_as(sql::over(schema, LIST))
        .bind(&filter.consumer)
        .bind(&filter.reason)
        .bind(&filter.state)
        .bind(filter.before)
        .bind(i64::from(filter.limit))
        .fetch_all(pool)
        .await
}

#[derive(FromRow)]
struct Row {
    #[sqlx(flatten)]
    summary: Summary,
    original_id: Option<String>,
    source: Option<String>,
    created_at: Option<OffsetDateTime>,
    headers: Value,
    origin: Value,
    history: Json<Vec<Attempt>>,
    first_failed_at: Option<OffsetDateTime>,
    replays: i32,
    decisions: Value,
    payload: Vec<u8>,
}

/// One dead letter, or none if there is none with that id.
///
/// # Errors
/// Any database error; nothing is changed.
///
/// # Cancel safety
/// Safe to drop.
pub async fn show(
    pool: &PgPool,
    schema: &Schema,
    id: i64,
) -> Result<Option<DeadLetter>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(sql::over(schema, SHOW))
        .bind(id)
        .fetch_optional(pool)
        .await?;
    Ok(row.map(|row| DeadLetter {
        summary: row.summary,
        original_id: row.original_id,
        source: row.source,
        created_at: row.created_at,
        headers: row.headers,
        origin: row.origin,
        history: row.history.0,
        first_failed_at: row.first_failed_at,
        replays: row.replays,
        decisions: row.decisions,
        payload: row.payload.into(),
    }))
}

/// The names of all consumers that have ever run on this database, or have dead letters there.
///
/// # Errors
/// Any database error; nothing is changed.
///
/// # Cancel safety
/// Safe to drop.
pub async fn consumers(pool: &PgPool, schema: &Schema) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(sql::over(schema, CONSUMERS))
        .fetch_all(pool)
        .await
}

/// How many dead letters wait for a person, by consumer and reason.
///
/// # Errors
/// Any database error; nothing is changed.
///
/// # Cancel safety
/// Safe to drop.
pub async fn counts(pool: &PgPool, schema: &Schema) -> Result<Vec<DeadLetterCount>, sqlx::Error> {
    sqlx::query_as(sql::over(schema, COUNTS))
        .fetch_all(pool)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_text_where_it_can_be() {
        assert_eq!(
            Payload::from(b"{}".to_vec()),
            Payload::Text("{}".to_owned())
        );
        assert_eq!(
            Payload::from(vec![0xff, 0]),
            Payload::Base64("/wA=".to_owned())
        );
    }
}
