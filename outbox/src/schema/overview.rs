//! Where each stream stands: what `status` shows.

use onceward_core::Schema;
use sqlx::{FromRow, PgConnection};

use super::{InspectError, begin_reading, end_reading};
use crate::sql::render;

/// A stream, its lease and its cursors.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct StreamOverview {
    /// Its name.
    pub stream: String,
    /// Who holds or held the lease.
    pub owner: Option<String>,
    /// For how long the lease still runs; negative: since when it has run out; none: never held.
    pub lease_seconds: Option<f64>,
    /// Its topic patterns.
    pub topics: Vec<String>,
    /// `keep`, or `discard`: topics that no stream asks for may be emptied with their slot.
    pub unrouted: String,
    /// Topics that wait for their destination: an array of objects.
    pub paused: serde_json::Value,
    /// The cluster in which the cursors are true.
    pub system_identifier: Option<i64>,
    /// Its timeline.
    pub timeline: Option<i64>,
    /// For how long it has existed, in seconds.
    pub age_seconds: f64,
    /// Its cursors, by lane, the main one before the detours.
    #[sqlx(skip)]
    pub cursors: Vec<CursorOverview>,
    /// Its parked messages, by state.
    #[sqlx(skip)]
    pub parked: Vec<ParkedCount>,
}

impl StreamOverview {
    /// Who holds the stream now, if anybody does.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        let held = self.lease_seconds.is_some_and(|left| left > 0.0);
        held.then(|| self.owner.as_deref().unwrap_or("a relay"))
    }
}

/// A cursor and what lies beyond it.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct CursorOverview {
    /// Whose it is.
    pub stream: String,
    /// 0 critical, 1 standard, 2 bulk.
    pub lane: i16,
    /// Empty for the main cursor.
    pub detour: String,
    /// The highest number read.
    pub last_seq: i64,
    /// The highest number of the lane less `last_seq`: an estimate of what is to be published that costs nothing.
    /// It counts other lanes' numbers and other streams' topics too.
    pub depth: i64,
    /// The age of the oldest message of the lane that the cursor has not passed, late ones included, in seconds; none: it
    /// has passed all. For a detour that of the oldest of its own topic and key; if none is among the next 10,000 of the
    /// lane, that of the last of these: its own are younger.
    pub oldest_seconds: Option<f64>,
}

/// How many parked messages are in a state.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct ParkedCount {
    /// Whose they are.
    pub stream: String,
    /// `parked`, `due`, `published` or `discarded`.
    pub state: String,
    /// How many.
    pub count: i64,
    /// How long ago the oldest of them was set aside, in seconds.
    pub oldest_seconds: f64,
    /// How many keys wait for them: their later messages are held.
    pub held_keys: i64,
    /// How long ago the oldest message that holds a key was set aside, in seconds; none: none does.
    pub held_seconds: Option<f64>,
}

/// A topic in the log that no stream asks for.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct UnroutedTopic {
    /// The topic.
    pub topic: String,
    /// In how many slots it lies.
    pub slots: i64,
    /// When it was first noted, in seconds ago.
    pub noted_seconds: f64,
}

/// New rows and the newest come from (lane, seq), late ones from (lane, txid, seq). The first late row of each
/// transaction that ran at the snapshot, then of those that began after it. A backlog is not scanned: for a detour, of which only rows of
/// its own count, 10,000 of the new rows are looked at and no more. Of what was written by transactions that began since, what comes before
/// `late_below` is looked at, where that is known, and no more than 1,000 rows.
const CURSORS: &str = "
select c.stream,
       c.lane,
       c.detour,
       c.last_seq,
       greatest(coalesce(newest.seq, 0) - c.last_seq, 0) as depth,
       extract(epoch from clock_timestamp() - least(next.created_at, ran.created_at, began.created_at))::float8
         as oldest_seconds
from {{schema}}.cursors c
left join lateral (
  select m.seq
  from {{schema}}.messages m
  where m.lane = c.lane
  order by m.seq desc
  limit 1
) newest on true
left join lateral (
  select ahead.created_at
  from (
    select m.seq, m.created_at, m.topic, m.key, row_number() over (order by m.seq) as place
    from {{schema}}.messages m
    where m.lane = c.lane and m.seq > greatest(c.last_seq, c.floor)
    order by m.seq
    limit 10000
  ) ahead
  where c.detour in ('', 'topic:' || ahead.topic, 'key:' || ahead.topic || ':' || ahead.key) or ahead.place = 10000
  order by ahead.seq
  limit 1
) next on true
left join lateral (
  select min(late.created_at) as created_at
  from pg_snapshot_xip(c.snapshot) x (txid)
  cross join lateral (
    select m.created_at
    from {{schema}}.messages m
    where m.lane = c.lane and m.txid = x.txid and m.seq <= c.last_seq and m.seq > c.floor
      and c.detour in ('', 'topic:' || m.topic, 'key:' || m.topic || ':' || m.key)
    order by m.seq
    limit 1
  ) late
) ran on true
left join lateral (
  select min(after.created_at) as created_at
  from (
    select m.seq, m.created_at, m.topic, m.key
    from {{schema}}.messages m
    where m.lane = c.lane and m.txid >= pg_snapshot_xmax(c.snapshot)
      and m.txid < coalesce(case when c.last_seq <= c.late_upto then c.late_below end, pg_snapshot_xmax(pg_current_snapshot()))
    order by m.txid, m.seq
    limit 1000
  ) after
  where after.seq <= c.last_seq and after.seq > c.floor
    and c.detour in ('', 'topic:' || after.topic, 'key:' || after.topic || ':' || after.key)
) began on true
order by c.stream, c.lane, c.detour";

/// Every stream with its cursors and counts.
///
/// Reads [the log](super#what-is-read-of-the-log) in a transaction.
///
/// # Errors
/// [`InspectError`], also if the user may not read a table; it takes the rights of
/// [`Duty::Relay`](super::Duty::Relay) or [`Duty::Administer`](super::Duty::Administer).
///
/// # Cancel safety
/// Nothing is changed; the connection is not to be used again.
pub async fn overview(
    connection: &mut PgConnection,
    schema: &Schema,
) -> Result<Vec<StreamOverview>, InspectError> {
    let mut reading = begin_reading(connection).await?;
    let streams = read(&mut reading, schema).await?;
    end_reading(reading).await?;
    Ok(streams)
}

/// As [`overview`], by whoever has begun to read.
pub(super) async fn read(
    connection: &mut PgConnection,
    schema: &Schema,
) -> Result<Vec<StreamOverview>, InspectError> {
    let mut streams: Vec<StreamOverview> = sqlx::query_as(render(
        schema,
        "select stream,
                owner,
                extract(epoch from lease_until - clock_timestamp())::float8 as lease_seconds,
                topics,
                unrouted,
                paused,
                system_identifier,
                timeline,
                extract(epoch from clock_timestamp() - created_at)::float8 as age_seconds
         from {{schema}}.streams
         order by stream",
    ))
    .fetch_all(&mut *connection)
    .await
    .map_err(InspectError::about("the streams"))?;
    let cursors = cursors(connection, schema).await?;
    let parked = parked(connection, schema).await?;
    for stream in &mut streams {
        let own = |name: &str| name == stream.stream;
        stream.cursors = cursors.iter().filter(|c| own(&c.stream)).cloned().collect();
        stream.parked = parked.iter().filter(|p| own(&p.stream)).cloned().collect();
    }
    Ok(streams)
}

async fn cursors(
    connection: &mut PgConnection,
    schema: &Schema,
) -> Result<Vec<CursorOverview>, InspectError> {
    sqlx::query_as(render(schema, CURSORS))
        .fetch_all(connection)
        .await
        .map_err(InspectError::about("the cursors"))
}

/// By a scan of `parked`, which is small; the detour of a key by the primary key of `cursors`.
async fn parked(
    connection: &mut PgConnection,
    schema: &Schema,
) -> Result<Vec<ParkedCount>, InspectError> {
    sqlx::query_as(render(
        schema,
        "select p.stream,
                p.state,
                count(*) as count,
                extract(epoch from clock_timestamp() - min(p.parked_at))::float8 as oldest_seconds,
                count(distinct (p.lane, p.topic, p.key)) filter (where held.stream is not null) as held_keys,
                extract(epoch from clock_timestamp() - min(p.parked_at) filter (where held.stream is not null))::float8
                  as held_seconds
         from {{schema}}.parked p
         left join {{schema}}.cursors held
           on held.stream = p.stream and held.lane = p.lane and held.detour = 'key:' || p.topic || ':' || p.key
         group by p.stream, p.state
         order by p.stream, p.state",
    ))
    .fetch_all(connection)
    .await
    .map_err(InspectError::about("parked messages"))
}

/// Topics in the log that no stream asks for, as readers have noted them.
///
/// # Errors
/// Those of [`overview`].
///
/// # Cancel safety
/// That of [`overview`].
pub async fn unrouted(
    connection: &mut PgConnection,
    schema: &Schema,
) -> Result<Vec<UnroutedTopic>, InspectError> {
    sqlx::query_as(render(
        schema,
        "select topic,
                count(distinct slot) as slots,
                extract(epoch from clock_timestamp() - min(noted_at))::float8 as noted_seconds
         from {{schema}}.unrouted
         group by topic
         order by topic",
    ))
    .fetch_all(connection)
    .await
    .map_err(InspectError::about("unrouted topics"))
}
