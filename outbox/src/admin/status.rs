//! How far the streams have come, who holds them, and which nobody runs any more.

use std::time::Duration;

use onceward_core::{Lane, TopicGlob};
use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::LogAdmin;
use crate::keeper::PausedTopic;
use crate::log::LogError;
use crate::sql::render;

const LISTING: &str = "listing the streams";
const DROPPING: &str = "dropping the stream";

/// A stream as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamInfo {
    /// Its name.
    pub stream: String,
    /// Who holds its lease, if anybody does.
    pub holder: Option<String>,
    /// When the lease ends, or ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub lease_until: Option<OffsetDateTime>,
    /// What it reads.
    pub topics: Vec<String>,
    /// `keep` or `discard`: what becomes of topics that no stream reads.
    pub unrouted: String,
    /// What waits for its destination.
    pub paused: Vec<PausedTopic>,
    /// Its cursors: one for each lane, and its detours.
    pub cursors: Vec<CursorStatus>,
    /// Messages set aside that wait for a person.
    pub parked: i64,
    /// Messages that somebody made due and that are not published yet.
    pub due: i64,
}

/// How far a cursor has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CursorStatus {
    /// `critical`, `standard` or `bulk`.
    pub lane: &'static str,
    /// Empty for the main cursor.
    pub detour: String,
    /// The highest number that is stored as read.
    pub last_seq: i64,
    /// The highest number of the lane less the cursor, an estimate: numbers of other lanes, of transactions that
    /// failed and of topics that the stream does not read count too.
    pub depth: i64,
    /// How old the oldest message above the cursor is, of any topic.
    #[serde(serialize_with = "seconds")]
    pub oldest: Option<Duration>,
    /// It goes page by page through late rows of a large transaction.
    pub paging: bool,
}

/// How dropping a stream ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum DropStream {
    /// It is gone, with its cursors and what it had set aside.
    Dropped {
        /// How many parked messages went with it.
        parked: u64,
    },
    /// A relay holds it: stop that first.
    Held {
        /// Who.
        owner: String,
    },
    /// There is none of that name.
    Unknown,
}

fn seconds<S: serde::Serializer>(age: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match age {
        Some(age) => serializer.serialize_some(&age.as_secs_f64()),
        None => serializer.serialize_none(),
    }
}

/// By primary keys; the counts by a scan of `parked`, which is small.
const STREAMS: &str = "
select s.stream, case when s.lease_until > clock_timestamp() then s.owner end as holder, s.lease_until, s.topics,
  s.unrouted, s.paused,
  (select count(*) from {{schema}}.parked p where p.stream = s.stream and p.state = 'parked') as parked,
  (select count(*) from {{schema}}.parked p where p.stream = s.stream and p.state = 'due') as due
from {{schema}}.streams s
order by 1";

/// The highest row of a lane, and the first above a cursor, by `messages (lane, seq)`.
const CURSORS: &str = "
select c.stream, c.lane, c.detour, c.last_seq, c.pinned is not null as paging,
  greatest(coalesce(h.highest, 0) - c.last_seq, 0) as depth,
  extract(epoch from clock_timestamp() - o.created_at)::double precision as oldest
from {{schema}}.cursors c
left join lateral (
  select m.seq as highest
  from {{schema}}.messages m
  where m.lane = c.lane
  order by m.seq desc
  limit 1
) h on true
left join lateral (
  select m.created_at
  from {{schema}}.messages m
  where m.lane = c.lane and m.seq > c.last_seq
  order by m.seq
  limit 1
) o on true
order by 1, 2, 3";

/// Its cursors go with it. A lease that is held stays.
const DROP: &str = "
with gone as (
  delete from {{schema}}.streams
  where stream = $1 and (lease_until is null or lease_until <= clock_timestamp() or $2)
  returning 1
),
unparked as (
  delete from {{schema}}.parked
  where stream = $1 and exists (select from gone)
  returning 1
)
select (select count(*) from gone) as gone, (select count(*) from unparked) as parked,
  (select owner from {{schema}}.streams where stream = $1) as owner,
  exists (select from {{schema}}.streams where stream = $1) as known";

impl LogAdmin {
    /// All streams with their cursors, as they stand now.
    ///
    /// # Errors
    /// That the database failed.
    ///
    /// # Cancel safety
    /// Dropped, nothing is changed; the connection is of no more use.
    pub async fn streams(&mut self) -> Result<Vec<StreamInfo>, LogError> {
        let (streams, cursors) = (render(&self.schema, STREAMS), render(&self.schema, CURSORS));
        let (streams, cursors) = self
            .session
            .call(LISTING, async |connection| {
                let streams = sqlx::query(streams).fetch_all(&mut *connection).await?;
                let cursors = sqlx::query(cursors).fetch_all(connection).await?;
                Ok((streams, cursors))
            })
            .await?;
        decode(&streams, &cursors).map_err(|error| LogError::malformed(LISTING, error))
    }

    /// Removes a stream with its cursors and what it has set aside, so that it holds no slot any more. A stream whose
    /// lease is held is only dropped by `force`, which fences its holder.
    ///
    /// # Errors
    /// That the database failed.
    ///
    /// # Cancel safety
    /// Dropped, the change may or may not have been made; the connection is of no more use.
    pub async fn drop_stream(&mut self, stream: &str, force: bool) -> Result<DropStream, LogError> {
        let sql = render(&self.schema, DROP);
        let row = self
            .session
            .call(DROPPING, async |connection| {
                sqlx::query(sql)
                    .bind(stream)
                    .bind(force)
                    .fetch_one(connection)
                    .await
            })
            .await?;
        let outcome = || {
            let gone: i64 = row.try_get("gone")?;
            let parked: i64 = row.try_get("parked")?;
            if gone > 0 {
                return Ok(DropStream::Dropped {
                    parked: parked.unsigned_abs(),
                });
            }
            // The statement sees what was before it, so a stream that is known here was held.
            let owner: Option<String> = row.try_get("owner")?;
            if row.try_get("known")? {
                return Ok(DropStream::Held {
                    owner: owner.unwrap_or_default(),
                });
            }
            Ok(DropStream::Unknown)
        };
        outcome().map_err(|error: sqlx::Error| LogError::malformed(DROPPING, error))
    }
}

/// The streams that hold slots although nobody runs them: not configured, and without a holder.
#[must_use]
pub fn forgotten<'a>(streams: &'a [StreamInfo], configured: &[&str]) -> Vec<&'a StreamInfo> {
    streams
        .iter()
        .filter(|info| info.holder.is_none() && !configured.contains(&info.stream.as_str()))
        .collect()
}

fn decode(streams: &[PgRow], cursors: &[PgRow]) -> Result<Vec<StreamInfo>, sqlx::Error> {
    let mut infos: Vec<StreamInfo> = streams
        .iter()
        .map(decode_stream)
        .collect::<Result<_, _>>()?;
    for row in cursors {
        let stream: &str = row.try_get("stream")?;
        let cursor = decode_cursor(row)?;
        if let Some(info) = infos.iter_mut().find(|info| info.stream == stream) {
            info.cursors.push(cursor);
        }
    }
    Ok(infos)
}

fn decode_stream(row: &PgRow) -> Result<StreamInfo, sqlx::Error> {
    let Json(paused): Json<Vec<PausedTopic>> = row.try_get("paused")?;
    Ok(StreamInfo {
        stream: row.try_get("stream")?,
        holder: row.try_get("holder")?,
        lease_until: row.try_get("lease_until")?,
        topics: row.try_get("topics")?,
        unrouted: row.try_get("unrouted")?,
        paused,
        cursors: Vec::new(),
        parked: row.try_get("parked")?,
        due: row.try_get("due")?,
    })
}

fn decode_cursor(row: &PgRow) -> Result<CursorStatus, sqlx::Error> {
    let number: i16 = row.try_get("lane")?;
    let lane = Lane::from_number(number)
        .ok_or_else(|| sqlx::Error::Decode(format!("lane {number}").into()))?;
    let oldest: Option<f64> = row.try_get("oldest")?;
    Ok(CursorStatus {
        lane: lane.name(),
        detour: row.try_get("detour")?,
        last_seq: row.try_get("last_seq")?,
        depth: row.try_get("depth")?,
        oldest: oldest.map(|age| Duration::try_from_secs_f64(age).unwrap_or_default()),
        paging: row.try_get("paging")?,
    })
}

/// Topics that lie in the log and that no stream reads, out of what readers have noted.
const UNROUTED: &str = "
select distinct topic
from {{schema}}.unrouted
order by 1";

impl LogAdmin {
    /// Topics in the log that no stream reads now.
    ///
    /// # Errors
    /// That the database failed.
    ///
    /// # Cancel safety
    /// Dropped, nothing is changed; the connection is of no more use.
    pub async fn unrouted_topics(&mut self) -> Result<Vec<String>, LogError> {
        const ASKING: &str = "asking for topics without a reader";

        let streams = self.streams().await?;
        let globs: Vec<TopicGlob> = streams
            .iter()
            .flat_map(|info| &info.topics)
            .filter_map(|glob| TopicGlob::try_from(glob.as_str()).ok())
            .collect();
        let sql = render(&self.schema, UNROUTED);
        let noted: Vec<String> = self
            .session
            .call(ASKING, async |connection| {
                sqlx::query_scalar(sql).fetch_all(connection).await
            })
            .await?;
        let read = |topic: &String| globs.iter().any(|glob| glob.matches(topic));
        Ok(noted.into_iter().filter(|topic| !read(topic)).collect())
    }
}
