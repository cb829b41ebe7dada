//! Empties slots of the ring, and tells why others stay.

use std::time::Duration;

use onceward_core::{Lane, Schema};
use serde::Serialize;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Row, SqlStr};

use super::LogAdmin;
use crate::log::LogError;
use crate::log::retention::{CursorFacts, Reason, Ring, SlotFacts, judge};
use crate::sql::{render, render_slot};

const LOOKING: &str = "looking at a slot";
const EMPTYING: &str = "emptying a slot";

/// What became of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotReport {
    /// The slot.
    pub slot: i16,
    /// Whether it was emptied.
    pub emptied: bool,
    /// Why it was not; all reasons that there are.
    pub reasons: Vec<Reason>,
}

const RING: &str = "
select message_slots, message_slot_seconds
from {{schema}}.settings";

/// Everything is asked of the partition alone, by its indexes on `(lane, seq)` and `(lane, txid, seq)`.
const SLOT: &str = "
select (floor(extract(epoch from clock_timestamp()) / s.message_slot_seconds)::bigint % s.message_slots)::smallint as current,
  (
    select extract(epoch from clock_timestamp() - max(n.created_at))::double precision
    from unnest(array[0, 1, 2]::smallint[]) l
    cross join lateral (
      select m.created_at
      from {{schema}}.messages_{{slot}} m
      where m.lane = l
      order by m.seq desc
      limit 1
    ) n
  ) as age,
  array(
    select u.topic
    from {{schema}}.unrouted u
    where u.slot = {{slot}}
      and not exists (
        select
        from {{schema}}.streams t
        cross join lateral unnest(t.topics) g
        where u.topic like replace(replace(g, '_', '\\_'), '*', '%')
      )
    order by 1
  ) as unrouted,
  exists (select from {{schema}}.streams where unrouted = 'discard') as discard
from {{schema}}.settings s";

/// For every stream and lane its *stored* cursors, detours included: what lies above, and what lies below and could not
/// be seen. The pinned snapshot does not count, as its pages are not all stored. Whether there are rows is asked by no `exists`, for which
/// the planner may hash the lanes of all rows.
const CURSORS: &str = "
select t.stream, l.lane, c.detour,
  (select true from {{schema}}.messages_{{slot}} m where m.lane = l.lane limit 1) is not null as rows,
  coalesce(
    exists (
      select
      from {{schema}}.messages_{{slot}} m
      where m.lane = l.lane and m.seq > c.last_seq
    )
    or exists (
      select
      from {{schema}}.messages_{{slot}} m
      where m.lane = l.lane
        and m.txid >= pg_snapshot_xmin(c.snapshot)
        and m.seq + 0 > c.floor
        and m.seq + 0 <= c.last_seq
        and not pg_visible_in_snapshot(m.txid, c.snapshot)
    ),
    false
  ) as unread
from {{schema}}.streams t
cross join unnest(array[0, 1, 2]::smallint[]) l(lane)
left join {{schema}}.cursors c on c.stream = t.stream and c.lane = l.lane
order by 1, 2, 3";

const BEGIN: &str = "begin isolation level read committed";
const SHORT_WAIT: &str = "set local lock_timeout = '100ms'";
const LOCK: &str = "lock table only {{schema}}.messages_{{slot}} in access exclusive mode";
const TRUNCATE: &str = "truncate table only {{schema}}.messages_{{slot}}";
const FORGET_UNROUTED: &str = "delete from {{schema}}.unrouted where slot = {{slot}}";

struct Statements {
    slot: SqlStr,
    cursors: SqlStr,
    lock: SqlStr,
    truncate: SqlStr,
    forget: SqlStr,
}

impl Statements {
    fn new(schema: &Schema, slot: i16) -> Self {
        let sql = |text| render_slot(schema, text, slot);
        Self {
            slot: sql(SLOT),
            cursors: sql(CURSORS),
            lock: sql(LOCK),
            truncate: sql(TRUNCATE),
            forget: sql(FORGET_UNROUTED),
        }
    }
}

impl LogAdmin {
    /// The shape of the ring. Check a configured retention against it before anything else.
    ///
    /// # Errors
    /// That the database failed.
    ///
    /// # Cancel safety
    /// Dropped, nothing is changed; the connection is of no more use.
    pub async fn ring(&mut self) -> Result<Ring, LogError> {
        let sql = render(&self.schema, RING);
        let row = self
            .session
            .call("asking for the ring's shape", async |connection| {
                sqlx::query(sql).fetch_one(connection).await
            })
            .await?;
        let ring = || {
            let seconds: i32 = row.try_get(1)?;
            Ok(Ring {
                slots: row.try_get(0)?,
                slot_length: Duration::from_secs(u64::from(seconds.unsigned_abs())),
            })
        };
        ring()
            .map_err(|error: sqlx::Error| LogError::malformed("asking for the ring's shape", error))
    }

    /// Why each slot is not emptied now. Locks nothing.
    ///
    /// # Errors
    /// That the database failed.
    ///
    /// # Cancel safety
    /// Dropped, nothing is changed; the connection is of no more use.
    pub async fn inspect_slots(
        &mut self,
        retention: Duration,
    ) -> Result<Vec<SlotReport>, LogError> {
        let ring = self.ring().await?;
        let mut reports = Vec::new();
        for slot in 0..ring.slots {
            let reasons = self.inspect(slot, ring, retention).await?;
            reports.push(SlotReport {
                slot,
                emptied: false,
                reasons,
            });
        }
        Ok(reports)
    }

    /// Empties every slot that may go. Waits at most 100 ms for each; what is busy is reported and can be tried again
    /// in a minute.
    ///
    /// # Errors
    /// That the database failed. Slots that were emptied before stay so.
    ///
    /// # Cancel safety
    /// Dropped, a slot is emptied whole or not at all; the connection is of no more use.
    pub async fn empty_slots(&mut self, retention: Duration) -> Result<Vec<SlotReport>, LogError> {
        let ring = self.ring().await?;
        let mut reports = Vec::new();
        for slot in 0..ring.slots {
            // Only what looks free is locked: a lock makes producers and readers wait.
            let mut reasons = self.inspect(slot, ring, retention).await?;
            let free = reasons.is_empty();
            if free {
                reasons = self.empty(slot, ring, retention).await?;
            }
            reports.push(SlotReport {
                slot,
                emptied: free && reasons.is_empty(),
                reasons,
            });
        }
        Ok(reports)
    }

    async fn inspect(
        &mut self,
        slot: i16,
        ring: Ring,
        retention: Duration,
    ) -> Result<Vec<Reason>, LogError> {
        let statements = Statements::new(&self.schema, slot);
        let facts = self
            .session
            .call(LOOKING, async |connection| {
                look(connection, &statements, slot, ring).await
            })
            .await?;
        Ok(judge(&facts, retention))
    }

    /// Locks, looks again, and truncates only if it may still go.
    async fn empty(
        &mut self,
        slot: i16,
        ring: Ring,
        retention: Duration,
    ) -> Result<Vec<Reason>, LogError> {
        let statements = Statements::new(&self.schema, slot);
        let emptied = self
            .session
            .call(EMPTYING, async |connection| {
                let emptied = empty(connection, &statements, slot, ring, retention).await;
                if emptied.as_ref().is_ok_and(Vec::is_empty) {
                    return emptied;
                }
                sqlx::raw_sql("rollback").execute(connection).await?;
                emptied
            })
            .await;
        match emptied {
            Err(LogError::Database { source, .. }) if is_busy(&source) => Ok(vec![Reason::Busy]),
            other => other,
        }
    }
}

/// The transaction is READ COMMITTED: under REPEATABLE READ the look would see what was there before the wait for the
/// lock, and not what a producer committed meanwhile.
async fn empty(
    connection: &mut PgConnection,
    statements: &Statements,
    slot: i16,
    ring: Ring,
    retention: Duration,
) -> Result<Vec<Reason>, sqlx::Error> {
    sqlx::raw_sql(BEGIN).execute(&mut *connection).await?;
    sqlx::raw_sql(SHORT_WAIT).execute(&mut *connection).await?;
    sqlx::raw_sql(statements.lock.clone())
        .execute(&mut *connection)
        .await?;
    let facts = look(connection, statements, slot, ring).await?;
    let reasons = judge(&facts, retention);
    if reasons.is_empty() {
        sqlx::raw_sql(statements.truncate.clone())
            .execute(&mut *connection)
            .await?;
        sqlx::raw_sql(statements.forget.clone())
            .execute(&mut *connection)
            .await?;
        sqlx::raw_sql("commit").execute(connection).await?;
    }
    Ok(reasons)
}

/// `lock_not_available`, or the time for the whole statement ran out.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("55P03" | "57014"))
}

async fn look(
    connection: &mut PgConnection,
    statements: &Statements,
    slot: i16,
    ring: Ring,
) -> Result<SlotFacts, sqlx::Error> {
    // Cursors first: what they have passed then, they have passed still when the slot is looked at.
    let cursors = sqlx::query(statements.cursors.clone())
        .fetch_all(&mut *connection)
        .await?;
    let row = sqlx::query(statements.slot.clone())
        .fetch_one(connection)
        .await?;
    let age: Option<f64> = row.try_get("age")?;
    Ok(SlotFacts {
        slot,
        current: row.try_get("current")?,
        ring,
        newest: age.map(|age| Duration::try_from_secs_f64(age).unwrap_or_default()),
        cursors: cursors.iter().map(decode).collect::<Result<_, _>>()?,
        unrouted: row.try_get("unrouted")?,
        discard_unrouted: row.try_get("discard")?,
    })
}

fn decode(row: &PgRow) -> Result<CursorFacts, sqlx::Error> {
    let lane: i16 = row.try_get("lane")?;
    Ok(CursorFacts {
        stream: row.try_get("stream")?,
        lane: Lane::from_number(lane)
            .ok_or_else(|| sqlx::Error::Decode(format!("lane {lane}").into()))?,
        detour: row.try_get("detour")?,
        unread: row.try_get("unread")?,
        rows: row.try_get("rows")?,
    })
}
