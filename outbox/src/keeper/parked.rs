//! Sets messages aside, and publishes again those that a person made due.

use std::time::Duration;

use onceward_core::{ErrorKind, Lane, Message};
use serde_json::{Value, json};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Arguments, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::detours::{self, Detour, DetourCursor, NewDetour};
use super::{Commit, Keeper, Statement};
use crate::log::LogError;
use crate::log::row::{Stored, bytes, stored_headers};
use crate::sql::{render, storable};

/// A message to set aside.
#[derive(Debug, Clone)]
pub struct Park {
    /// Where it was read.
    pub lane: Lane,
    /// The message as it was read; `seq` and `time` are set.
    pub message: Message,
    /// The kind of refusal.
    pub kind: ErrorKind,
    /// What the destination said, for people.
    pub error: String,
}

/// A parked message that somebody made due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueMessage {
    /// Its number in the log.
    pub seq: i64,
    /// Where it was read.
    pub lane: Lane,
    /// The message, as it was edited.
    pub message: Message,
    /// This run of it, for the broker's own dedupe: another run is another message to the broker.
    pub run: Uuid,
    replays: i32,
}

/// Why a destination refused a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The kind of refusal.
    pub kind: ErrorKind,
    /// What the destination said, for people.
    pub error: String,
}

/// On disk when it returns. A row that is there already stays as it is: it has a history. A detour begins at its parent's
/// stored cursor.
const PARK: Statement = Statement {
    doing: "parking messages",
    also: "",
    commit: Commit::Durable,
    text: ",
parked as (
  insert into {{schema}}.parked
    (stream, seq, lane, id, topic, key, type, headers, payload, created_at, error_kind, error, history)
  select $1, n.seq, n.lane, n.id, n.topic, n.key, n.type, n.headers, n.payload, n.created_at, n.error_kind, n.error,
    jsonb_build_array(jsonb_build_object('at', clock_timestamp(), 'what', 'parked', 'kind', n.error_kind, 'error', n.error))
  from unnest(
    $4::bigint[], $5::smallint[], $6::uuid[], $7::text[], $8::text[], $9::text[], $10::jsonb[], $11::bytea[],
    $12::timestamptz[], $13::text[], $14::text[]
  ) n(seq, lane, id, topic, key, type, headers, payload, created_at, error_kind, error)
  where exists (select from held)
  on conflict (stream, seq) do nothing
  returning 1
),
opened as (
  insert into {{schema}}.cursors (stream, lane, detour, last_seq, snapshot, pinned, late_pos, floor, late_upto, late_below)
  select $1, n.lane, n.detour, c.last_seq, c.snapshot, c.pinned, c.late_pos, c.floor, c.late_upto,
    c.late_below
  from unnest($15::smallint[], $16::text[], $17::text[]) n(lane, detour, parent)
  join {{schema}}.cursors c on c.stream = $1 and c.lane = n.lane and c.detour = n.parent
  where exists (select from held)
  on conflict do nothing
  returning *
)
select (select count(*) from held), pg_backend_pid(), (select count(*) from parked),
  (select coalesce(jsonb_agg(to_jsonb(o)), '[]') from opened o)",
};

/// By the partial index `parked_due`.
const DUE: &str = "
select seq, lane, id, topic, key, type, headers, payload, created_at, replays
from {{schema}}.parked
where stream = $1 and state = 'due' and seq > $2
order by seq
limit $3";

/// Only the run that was published: a person may have asked for another meanwhile, or discarded it.
const REPLAYED: Statement = Statement {
    doing: "storing the end of a replay",
    also: "",
    commit: Commit::Durable,
    text: ",
replayed as (
  update {{schema}}.parked
  set state = case when $6::text is null then 'published' else 'parked' end,
    error_kind = coalesce($6, error_kind),
    error = coalesce($7, error),
    changed_at = clock_timestamp(),
    history = history || jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
      'at', clock_timestamp(), 'what', case when $6::text is null then 'published' else 'refused' end, 'kind', $6::text, 'error', $7::text)))
  where stream = $1 and seq = $4 and state = 'due' and replays = $5 and exists (select from held)
  returning 1
)
select (select count(*) from held), pg_backend_pid(), (select count(*) from replayed)",
};

/// The row must stay until the *stored* cursors have passed it, so that whoever takes over skips it: late rows lie below
/// `last` and are passed later. By the primary key of `parked` and `messages (lane, seq)`.
const SWEEP: Statement = Statement {
    doing: "removing what was parked and is done",
    also: "",
    commit: Commit::Soon,
    text: ",
swept as (
  delete from {{schema}}.parked p
  where p.stream = $1
    and p.state in ('published', 'discarded')
    and p.changed_at < clock_timestamp() - make_interval(secs => $4)
    and not exists (
      select
      from {{schema}}.cursors c
      left join lateral (
        select m.txid
        from {{schema}}.messages m
        where m.lane = p.lane and m.seq = p.seq
      ) m on true
      where c.stream = p.stream and c.lane = p.lane
        and (p.seq > c.last_seq or (m.txid is not null and not pg_visible_in_snapshot(m.txid, c.snapshot)))
    )
    and exists (select from held)
  returning 1
)
select (select count(*) from held), pg_backend_pid(), (select count(*) from swept)",
};

impl Keeper {
    /// Sets messages aside. They are on disk when this returns: only then may followers of their keys be offered.
    ///
    /// # Errors
    /// [`LogError::Fenced`]: stop at once; nothing was stored. Any other: they may or may not be stored, so offer
    /// no follower.
    ///
    /// # Cancel safety
    /// Dropped, they may or may not be stored, all or none: offer no follower. The connection is of no more use.
    pub async fn park(&mut self, parks: &[Park]) -> Result<(), LogError> {
        self.set_aside(parks, &[]).await.map(drop)
    }

    /// Sets messages aside and opens detours at their parents' *stored* cursors, all or nothing.
    ///
    /// # Errors
    /// Those of [`park`](Self::park).
    ///
    /// # Cancel safety
    /// That of [`park`](Self::park).
    pub async fn set_aside(
        &mut self,
        parks: &[Park],
        detours: &[NewDetour],
    ) -> Result<Vec<DetourCursor>, LogError> {
        let read = |park: &Park| {
            let uuid = park.message.id.as_uuid();
            let (id, seq) = (uuid?, park.message.seq?);
            Some((id, seq, park.message.time?))
        };
        let origins: Vec<(Uuid, i64, OffsetDateTime)> = parks
            .iter()
            .map(|park| read(park).ok_or("a message that was not read from the log"))
            .collect::<Result<_, _>>()
            .map_err(|what| LogError::malformed(PARK.doing, what))?;
        let row = self.under_lease(PARK, |arguments| {
            let text = |get: fn(&Park) -> &str| parks.iter().map(get).collect::<Vec<_>>();
            let headers = parks.iter().map(|park| stored_headers(&park.message));
            let keys = parks
                .iter()
                .map(|park| park.message.key.as_ref().map(|key| key.as_str()));
            arguments.add(origins.iter().map(|(_, seq, _)| *seq).collect::<Vec<_>>())?;
            arguments.add(
                parks
                    .iter()
                    .map(|park| park.lane.number())
                    .collect::<Vec<_>>(),
            )?;
            arguments.add(origins.iter().map(|(id, ..)| *id).collect::<Vec<_>>())?;
            arguments.add(text(|park| park.message.topic.as_str()))?;
            arguments.add(keys.collect::<Vec<_>>())?;
            arguments.add(text(|park| park.message.kind.as_str()))?;
            arguments.add(headers.collect::<Vec<_>>())?;
            arguments.add(
                parks
                    .iter()
                    .map(|park| &park.message.payload[..])
                    .collect::<Vec<_>>(),
            )?;
            arguments.add(origins.iter().map(|(.., time)| *time).collect::<Vec<_>>())?;
            arguments.add(text(|park| park.kind.name()))?;
            let errors = parks.iter().map(|park| storable(&park.error));
            arguments.add(errors.collect::<Vec<_>>())?;
            let lanes = detours.iter().map(|new| new.lane.number());
            let names = detours.iter().map(|new| new.detour.to_string());
            let parents = detours.iter().map(|new| new.parent.as_ref());
            arguments.add(lanes.collect::<Vec<_>>())?;
            arguments.add(names.collect::<Vec<_>>())?;
            arguments.add(
                parents
                    .map(|parent| parent.map_or_else(String::new, Detour::to_string))
                    .collect::<Vec<_>>(),
            )
        });
        opened(&row.await?).map_err(|error| LogError::malformed(PARK.doing, error))
    }

    /// Parked messages that somebody made due, by number; those with a number above `after`, at most `limit`.
    ///
    /// # Errors
    /// That the database failed, or [`LogError::Fenced`] without a claim.
    ///
    /// # Cancel safety
    /// Dropped, nothing is changed; the connection is of no more use.
    pub async fn due(&mut self, after: i64, limit: usize) -> Result<Vec<DueMessage>, LogError> {
        const LOADING: &str = "loading what is due";

        let Some(held) = &self.held else {
            return Err(LogError::Fenced);
        };
        let stream = held.stream.as_str();
        let sql = render(&self.schema, DUE);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self
            .session
            .call(LOADING, async |connection| {
                sqlx::query(sql)
                    .bind(stream)
                    .bind(after)
                    .bind(limit)
                    .fetch_all(connection)
                    .await
            })
            .await?;
        rows.iter()
            .map(|row| decode(row, stream))
            .collect::<Result<_, _>>()
            .map_err(|error| LogError::malformed(LOADING, error))
    }

    /// Stores how a replay ended; `refused` is none if the broker has it. If the message was discarded or made due
    /// again meanwhile, that stays.
    ///
    /// # Errors
    /// [`LogError::Fenced`]: stop at once. Any other: it may still be due, and is published again.
    ///
    /// # Cancel safety
    /// Dropped, it may still be due, and is published again; the connection is of no more use.
    pub async fn replayed(
        &mut self,
        due: &DueMessage,
        refused: Option<&Refused>,
    ) -> Result<(), LogError> {
        self.under_lease(REPLAYED, |arguments| {
            arguments.add(due.seq)?;
            arguments.add(due.replays)?;
            arguments.add(refused.map(|refused| refused.kind.name()))?;
            arguments.add(refused.map(|refused| storable(&refused.error)))
        })
        .await
        .map(drop)
    }

    /// Removes what was published or discarded longer ago than `keep` and lies behind the stored cursors. Returns how
    /// many rows that were. Call every few minutes.
    ///
    /// # Errors
    /// [`LogError::Fenced`]: stop at once. Any other: try again later.
    ///
    /// # Cancel safety
    /// Dropped, the rows may or may not be removed; the connection is of no more use.
    pub async fn sweep_parked(&mut self, keep: Duration) -> Result<u64, LogError> {
        let row = self
            .under_lease(SWEEP, |arguments| arguments.add(keep.as_secs_f64()))
            .await?;
        let swept: i64 = row
            .try_get(2)
            .map_err(|error| LogError::malformed(SWEEP.doing, error))?;
        Ok(swept.unsigned_abs())
    }
}

fn opened(row: &PgRow) -> Result<Vec<DetourCursor>, sqlx::Error> {
    let Json(rows): Json<Vec<Value>> = row.try_get(3)?;
    rows.iter().map(detours::detour_cursor).collect()
}

fn decode(row: &PgRow, stream: &str) -> Result<DueMessage, sqlx::Error> {
    let lane: i16 = row.try_get("lane")?;
    let lane = Lane::from_number(lane)
        .ok_or_else(|| sqlx::Error::Decode(format!("lane {lane}").into()))?;
    let seq = row.try_get("seq")?;
    let replays: i32 = row.try_get("replays")?;
    let id: Uuid = row.try_get("id")?;
    let stored = Stored {
        seq,
        id,
        topic: row.try_get("topic")?,
        key: row.try_get("key")?,
        kind: row.try_get("type")?,
        headers: bytes(row, 6)?,
        payload: row.try_get("payload")?,
        created_at: row.try_get("created_at")?,
    };
    let name = json!([stream, seq, replays]).to_string();
    Ok(DueMessage {
        seq,
        lane,
        message: stored.message()?,
        run: Uuid::new_v5(&id, name.as_bytes()),
        replays,
    })
}
