//! Parked messages for people: look, edit, replay, discard.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use onceward_core::{Headers, Lane};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::Row;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::LogAdmin;
use crate::log::LogError;
use crate::log::row::{bytes, headers};
use crate::sql::render;

/// Where a parked message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParkedState {
    /// It waits for a person.
    Parked,
    /// It is to be published again; the lease holder will.
    Due,
    /// The broker has it.
    Published,
    /// Somebody decided that it is not to be published.
    Discarded,
}

impl ParkedState {
    /// The state's name, as it is stored.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Due => "due",
            Self::Published => "published",
            Self::Discarded => "discarded",
        }
    }

    fn from_name(name: &str) -> Result<Self, sqlx::Error> {
        let all = [Self::Parked, Self::Due, Self::Published, Self::Discarded];
        all.into_iter()
            .find(|state| state.name() == name)
            .ok_or_else(|| sqlx::Error::Decode(format!("state {name}").into()))
    }
}

/// Which parked messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParkedFilter {
    /// Of this stream; none: of all.
    pub stream: Option<String>,
    /// In this state; none: in any.
    pub state: Option<ParkedState>,
    /// About this topic; none: any.
    pub topic: Option<String>,
    /// Those after this stream and number, for the next page.
    pub after: Option<(String, i64)>,
}

/// A parked message in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ParkedSummary {
    /// The stream that set it aside.
    pub stream: String,
    /// Its number in the log.
    pub seq: i64,
    /// `critical`, `standard` or `bulk`.
    pub lane: &'static str,
    /// What it is told apart by.
    pub id: Uuid,
    /// What it is about.
    pub topic: String,
    /// Its key, if it has one.
    pub key: Option<String>,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it stands.
    pub state: ParkedState,
    /// The kind of the last refusal.
    pub error_kind: String,
    /// What the destination said last.
    pub error: String,
    /// How often it was made due.
    pub replays: i32,
    /// When it was written to the log.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was set aside.
    #[serde(with = "time::serde::rfc3339")]
    pub parked_at: OffsetDateTime,
    /// When its state changed last.
    #[serde(with = "time::serde::rfc3339")]
    pub changed_at: OffsetDateTime,
    /// How many bytes its payload has.
    pub payload_bytes: i64,
}

/// A parked message with all it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ParkedMessage {
    /// What lists show.
    #[serde(flatten)]
    pub summary: ParkedSummary,
    /// The media type of the payload.
    pub content_type: Option<String>,
    /// The user's headers.
    pub headers: Headers,
    /// The payload; as JSON an object with `text` if it is UTF-8, else with `base64`, as of a dead letter.
    #[serde(serialize_with = "readable")]
    pub payload: Vec<u8>,
    /// What happened to it, oldest first.
    pub history: Value,
}

fn readable<S: serde::Serializer>(payload: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let (name, text) = match std::str::from_utf8(payload) {
        Ok(text) => ("text", text.to_owned()),
        Err(_) => ("base64", STANDARD.encode(payload)),
    };
    serializer.collect_map([(name, text)])
}

/// By the primary key; the filter on state by a scan of `parked`, which is small.
const LIST: &str = "
select stream, seq, lane, id, topic, key, type, state, error_kind, error, replays, created_at, parked_at, changed_at,
  octet_length(payload)::bigint as payload_bytes
from {{schema}}.parked
where ($1::text is null or stream = $1)
  and ($2::text is null or state = $2)
  and ($3::text is null or topic = $3)
  and ($4::text is null or (stream, seq) > ($4, $5))
order by stream, seq
limit $6";

const SHOW: &str = "
select stream, seq, lane, id, topic, key, type, state, error_kind, error, replays, created_at, parked_at, changed_at,
  octet_length(payload)::bigint as payload_bytes, headers, payload, history
from {{schema}}.parked
where stream = $1 and seq = $2";

const REPLAY: &str = "
update {{schema}}.parked
set state = 'due',
  replays = replays + 1,
  changed_at = clock_timestamp(),
  history = history || jsonb_build_array(jsonb_build_object('at', clock_timestamp(), 'what', 'made due', 'by', $3::text))
where stream = $1 and seq = any($2) and state in ('parked', 'discarded')
returning seq";

const DISCARD: &str = "
update {{schema}}.parked
set state = 'discarded',
  changed_at = clock_timestamp(),
  history = history || jsonb_build_array(jsonb_build_object('at', clock_timestamp(), 'what', 'discarded', 'by', $3::text))
where stream = $1 and seq = any($2) and state in ('parked', 'due')
returning seq";

const LISTING: &str = "listing parked messages";
const SHOWING: &str = "showing a parked message";

impl LogAdmin {
    /// Parked messages by stream and number, at most `limit`.
    ///
    /// # Errors
    /// That the database failed.
    ///
    /// # Cancel safety
    /// Dropped, nothing is changed; the connection is of no more use.
    pub async fn parked(
        &mut self,
        filter: &ParkedFilter,
        limit: usize,
    ) -> Result<Vec<ParkedSummary>, LogError> {
        let sql = render(&self.schema, LIST);
        let (after_stream, after_seq) = filter.after.clone().unzip();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self
            .session
            .call(LISTING, async |connection| {
                sqlx::query(sql)
                    .bind(&filter.stream)
                    .bind(filter.state.map(ParkedState::name))
                    .bind(&filter.topic)
                    .bind(after_stream)
                    .bind(after_seq)
                    .bind(limit)
                    .fetch_all(connection)
                    .await
            })
            .await?;
        rows.iter()
            .map(summary)
            .collect::<Result<_, _>>()
            .map_err(|error| LogError::malformed(LISTING, error))
    }

    /// One parked message with everything it holds, or `None` if there is no such message.
    ///
    /// # Errors
    /// That the database failed.
    ///
    /// # Cancel safety
    /// Dropped, nothing is changed; the connection is of no more use.
    pub async fn parked_message(
        &mut self,
        stream: &str,
        seq: i64,
    ) -> Result<Option<ParkedMessage>, LogError> {
        let sql = render(&self.schema, SHOW);
        let row = self
            .session
            .call(SHOWING, async |connection| {
                sqlx::query(sql)
                    .bind(stream)
                    .bind(seq)
                    .fetch_optional(connection)
                    .await
            })
            .await?;
        row.as_ref()
            .map(message)
            .transpose()
            .map_err(|error| LogError::malformed(SHOWING, error))
    }

    /// Makes messages due: the lease holder publishes them again. Returns the numbers of those that were parked or
    /// discarded; others are left as they are.
    ///
    /// # Errors
    /// That the database failed: some may be due.
    ///
    /// # Cancel safety
    /// Dropped, the change may or may not have been made; the connection is of no more use.
    pub async fn replay_parked(
        &mut self,
        stream: &str,
        seqs: &[i64],
        by: &str,
    ) -> Result<Vec<i64>, LogError> {
        self.change("making parked messages due", REPLAY, stream, seqs, by)
            .await
    }

    /// Decides that messages are not to be published. Returns the numbers of those that were parked or due.
    ///
    /// # Errors
    /// That the database failed: some may be discarded.
    ///
    /// # Cancel safety
    /// Dropped, the change may or may not have been made; the connection is of no more use.
    pub async fn discard_parked(
        &mut self,
        stream: &str,
        seqs: &[i64],
        by: &str,
    ) -> Result<Vec<i64>, LogError> {
        self.change("discarding parked messages", DISCARD, stream, seqs, by)
            .await
    }

    async fn change(
        &mut self,
        doing: &'static str,
        text: &'static str,
        stream: &str,
        seqs: &[i64],
        by: &str,
    ) -> Result<Vec<i64>, LogError> {
        let sql = render(&self.schema, text);
        let mut changed: Vec<i64> = self
            .session
            .call(doing, async |connection| {
                sqlx::query_scalar(sql)
                    .bind(stream)
                    .bind(seqs)
                    .bind(by)
                    .fetch_all(connection)
                    .await
            })
            .await?;
        changed.sort_unstable();
        Ok(changed)
    }
}

fn summary(row: &PgRow) -> Result<ParkedSummary, sqlx::Error> {
    let number: i16 = row.try_get("lane")?;
    let lane = Lane::from_number(number)
        .ok_or_else(|| sqlx::Error::Decode(format!("lane {number}").into()))?;
    Ok(ParkedSummary {
        stream: row.try_get("stream")?,
        seq: row.try_get("seq")?,
        lane: lane.name(),
        id: row.try_get("id")?,
        topic: row.try_get("topic")?,
        key: row.try_get("key")?,
        kind: row.try_get("type")?,
        state: ParkedState::from_name(row.try_get("state")?)?,
        error_kind: row.try_get("error_kind")?,
        error: row.try_get("error")?,
        replays: row.try_get("replays")?,
        created_at: row.try_get("created_at")?,
        parked_at: row.try_get("parked_at")?,
        changed_at: row.try_get("changed_at")?,
        payload_bytes: row.try_get("payload_bytes")?,
    })
}

fn message(row: &PgRow) -> Result<ParkedMessage, sqlx::Error> {
    const HEADERS: usize = 15;

    let (headers, content_type) = headers(bytes(row, HEADERS)?)?;
    Ok(ParkedMessage {
        summary: summary(row)?,
        content_type,
        headers,
        payload: row.try_get("payload")?,
        history: row.try_get("history")?,
    })
}
