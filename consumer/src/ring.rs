//! Forgets old marks. A slot is emptied by its newest mark, never by its own time: an old message that was handled late
//! would lose its mark at once. A slot into which marks trickle is cleaned row by row instead, and one with the mark of a
//! message that still waits too: that mark is kept however long it waits.

use std::time::Duration;

use onceward_core::Schema;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use tracing::{debug, info, warn};

use crate::session::Session;
use crate::sql;
use crate::trouble::{Trouble, chain, classify};
use crate::within::{Borrowed, within};

/// How long marks are kept. Kafka keeps messages for 7 days unless told otherwise.
pub(crate) const RETENTION: Duration = Duration::from_secs(8 * 24 * 3600);

/// How much older than that a mark must be to be deleted by itself: first its slot gets the chance to be emptied whole.
const SLACK: Duration = Duration::from_secs(2 * 24 * 3600);

const BETWEEN: Duration = Duration::from_secs(600);
const AFTER_LOCK: Duration = Duration::from_secs(60);

/// Rows of one DELETE, and how many of those in one round.
const BATCH: i64 = 2_000;
const BATCHES: u32 = 50;

/// For a statement outside of a transaction. A slot may be large and its index full of what was deleted, but no such statement takes
/// minutes: so long takes only a connection that is dead.
const STATEMENT: Duration = BETWEEN;

/// For one in a transaction, of which [`BEGIN`] lets the server take 30 s, and for its commit.
const IN_TRANSACTION: Duration = Duration::from_secs(35);
const ROLL_BACK: Duration = Duration::from_secs(1);

/// The database's clock, not ours.
const SLOTS: &str = "select mark_slots, clock_timestamp() from {schema}.settings";

/// Both ends of `processed_messages_settled_at`.
const ENDS: &str = "select min(settled_at), max(settled_at) from {schema}.{slot}";

/// Short, since whoever waits for a lock makes others wait behind it. READ COMMITTED, so that the look after the lock
/// sees what was committed before it.
const BEGIN: &str = "
begin isolation level read committed read write;
set local lock_timeout = '100ms';
set local statement_timeout = '30s'";

const LOCK: &str = "lock table {schema}.{slot} in access exclusive mode";

/// Whether a message waits whose mark is in the slot. By `retries_mark_slot`. $1 slot.
const NEEDED: &str = "select exists (select from {schema}.retries where mark_slot = $1)";

const TRUNCATE: &str = "truncate {schema}.{slot}";

/// By `processed_messages_settled_at`; each of them by `retries_message`.
const DELETE: &str = "
delete from {schema}.{slot}
where ctid = any (array(
  select p.ctid
  from {schema}.{slot} p
  where p.settled_at < $1
    and not exists (
      select from {schema}.retries r
      where r.consumer = p.consumer
        and r.message_id = p.message_id)
  order by p.settled_at
  limit $2))";

/// Starts of messages that never came again. Scans the table, which is small: it holds what was in work at a crash.
const OLD_STARTS: &str = "delete from {schema}.starts where started_at < $1";

/// What is to be done with a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Keep,
    Empty,
    Clean,
}

/// What a slot's oldest and newest marks mean for it. `needed`: messages wait whose marks are in it.
fn judge(
    now: OffsetDateTime,
    retention: Duration,
    oldest: Option<OffsetDateTime>,
    newest: Option<OffsetDateTime>,
    needed: bool,
) -> Verdict {
    let (Some(oldest), Some(newest)) = (oldest, newest) else {
        return Verdict::Keep;
    };
    if newest < now - retention && !needed {
        Verdict::Empty
    } else if oldest < now - retention - SLACK {
        Verdict::Clean
    } else {
        Verdict::Keep
    }
}

/// Keeps the ring in order. Never ends; safe to drop. Any number of members may do so at once.
pub(crate) async fn keep(pool: PgPool, schema: Schema) {
    // Not all members of a deployment at the same moment.
    let mut wait = BETWEEN.mul_f64(fastrand::f64());
    loop {
        tokio::time::sleep(wait).await;
        wait = match sweep(&pool, &schema, RETENTION).await {
            Ok(swept) if swept.locked == 0 => BETWEEN.mul_f64(0.5 + fastrand::f64()),
            Ok(_) => AFTER_LOCK,
            Err(error) => {
                warn!(error = %chain(&error), "old marks could not be removed; will retry");
                // A statement that was given up on here may go on at the server for as long.
                BETWEEN
            }
        };
    }
}

/// What a round has done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) emptied: u32,
    pub(crate) deleted: u64,
    /// Slots that somebody else had locked.
    pub(crate) locked: u32,
}

/// One round over all slots.
pub(crate) async fn sweep(
    pool: &PgPool,
    schema: &Schema,
    retention: Duration,
) -> Result<Swept, sqlx::Error> {
    let (slots, now) = slots(pool, schema).await?;
    let mut swept = Swept::default();
    for slot in 0..slots {
        let mut borrowed = Borrowed::of(pool).await?;
        let look = look(borrowed.connection(), STATEMENT, schema, slot);
        let (oldest, newest, needed) = look.await?;
        borrowed.give_back();
        match judge(now, retention, oldest, newest, needed) {
            Verdict::Keep => {}
            Verdict::Empty => match empty(pool, schema, slot, now, retention).await {
                Ok(true) => swept.emptied += 1,
                Ok(false) => {}
                Err(error) if classify(&error) == Trouble::TimedOut => swept.locked += 1,
                Err(error) => return Err(error),
            },
            Verdict::Clean => {
                swept.deleted += clean(pool, schema, slot, now - retention).await?;
            }
        }
    }
    forget_starts(pool, schema, now - retention).await?;
    if swept != Swept::default() {
        info!(?swept, "old marks were removed");
    }
    Ok(swept)
}

/// How many slots there are, and the database's time.
async fn slots(pool: &PgPool, schema: &Schema) -> Result<(i16, OffsetDateTime), sqlx::Error> {
    let mut borrowed = Borrowed::of(pool).await?;
    let ask = sqlx::query_as(sql::over(schema, SLOTS)).fetch_one(borrowed.connection());
    let slots = within(STATEMENT, ask).await?;
    borrowed.give_back();
    Ok(slots)
}

/// The times of a slot's oldest and newest marks, and whether a message waits whose mark is in it. `limit`: of each statement.
async fn look(
    connection: &mut PgConnection,
    limit: Duration,
    schema: &Schema,
    slot: i16,
) -> Result<(Option<OffsetDateTime>, Option<OffsetDateTime>, bool), sqlx::Error> {
    let ends = sqlx::query_as(sql::over_slot(schema, slot, ENDS)).fetch_one(&mut *connection);
    let (oldest, newest) = within(limit, ends).await?;
    let needed = sqlx::query_scalar(sql::over(schema, NEEDED))
        .bind(slot)
        .fetch_one(connection);
    Ok((oldest, newest, within(limit, needed).await?))
}

async fn forget_starts(
    pool: &PgPool,
    schema: &Schema,
    before: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let mut borrowed = Borrowed::of(pool).await?;
    let delete = sqlx::query(sql::over(schema, OLD_STARTS))
        .bind(before)
        .execute(borrowed.connection());
    within(STATEMENT, delete).await?;
    borrowed.give_back();
    Ok(())
}

/// Empties a slot, unless a mark came in meanwhile.
async fn empty(
    pool: &PgPool,
    schema: &Schema,
    slot: i16,
    now: OffsetDateTime,
    retention: Duration,
) -> Result<bool, sqlx::Error> {
    let begin = sql::over(schema, BEGIN);
    let connection = pool.acquire().await?;
    let mut session = within(IN_TRANSACTION, Session::begin(connection, begin)).await?;
    let connection = session.connection();
    let emptied = async {
        let lock = sqlx::query(sql::over_slot(schema, slot, LOCK)).execute(&mut *connection);
        within(IN_TRANSACTION, lock).await?;
        // New statements, which see what the lock has waited for.
        let look = look(&mut *connection, IN_TRANSACTION, schema, slot);
        let (oldest, newest, needed) = look.await?;
        if judge(now, retention, oldest, newest, needed) != Verdict::Empty {
            return Ok(false);
        }
        let truncate = sqlx::query(sql::over_slot(schema, slot, TRUNCATE)).execute(connection);
        within(IN_TRANSACTION, truncate).await?;
        Ok(true)
    };
    let emptied = emptied.await;
    match emptied {
        Ok(true) => {
            within(IN_TRANSACTION, session.commit()).await?;
            debug!(slot, "a slot of marks was emptied");
            Ok(true)
        }
        other => {
            session.roll_back(ROLL_BACK).await;
            other
        }
    }
}

/// Deletes a slot's oldest marks, some at a time.
async fn clean(
    pool: &PgPool,
    schema: &Schema,
    slot: i16,
    before: OffsetDateTime,
) -> Result<u64, sqlx::Error> {
    let mut deleted = 0;
    for _ in 0..BATCHES {
        // One each: handlers may wait for it.
        let mut borrowed = Borrowed::of(pool).await?;
        let delete = sqlx::query(sql::over_slot(schema, slot, DELETE))
            .bind(before)
            .bind(BATCH)
            .execute(borrowed.connection());
        let done = within(STATEMENT, delete).await?.rows_affected();
        borrowed.give_back();
        deleted += done;
        if done == 0 {
            break;
        }
    }
    Ok(deleted)
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
