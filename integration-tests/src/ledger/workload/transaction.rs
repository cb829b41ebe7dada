//! One business transaction of a kind.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{Mix, Workload};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Abort,
    Savepoint,
    Slow,
    Early,
    Several,
    TwoPhase,
}

impl Kind {
    /// The kind that a number below a hundred stands for.
    pub(super) fn of(number: u8, mix: Mix) -> Self {
        let kinds = [
            (Self::Abort, mix.aborts),
            (Self::Savepoint, mix.savepoints),
            (Self::Slow, mix.slow),
            (Self::Early, mix.early),
            (Self::Several, mix.several),
            (Self::TwoPhase, mix.two_phase),
        ];
        let mut from = 0_u8;
        for (kind, share) in kinds {
            from = from.saturating_add(share);
            if number < from {
                return kind;
            }
        }
        Self::Plain
    }
}

/// What a transaction is going to do, decided before it begins.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) kind: Kind,
    /// Keys by number, in ascending order: two transactions never wait for each other.
    pub(super) keys: Vec<u32>,
    pub(super) pause: Duration,
    /// The name of the transaction while it is prepared.
    pub(super) gid: String,
}

impl Plan {
    pub(super) fn random(workload: &Workload) -> Self {
        let kind = Kind::of(fastrand::u8(0..100), workload.mix);
        let many = if kind == Kind::Several {
            fastrand::usize(2..=6)
        } else {
            1
        };
        let mut keys: Vec<u32> = std::iter::repeat_with(|| fastrand::u32(0..workload.keys.max(1)))
            .take(many)
            .collect();
        keys.sort_unstable();
        let longest = u64::try_from(workload.slow_for.as_millis()).unwrap_or(u64::MAX);
        let pause = Duration::from_millis(fastrand::u64(0..=longest));
        Self {
            kind,
            keys,
            pause,
            gid: crate::unique("ledger"),
        }
    }
}

/// Runs it from `begin` to its end. Returns how many messages were committed.
pub(super) async fn run(
    connection: &mut PgConnection,
    workload: &Workload,
    plan: &Plan,
) -> Result<u64, sqlx::Error> {
    execute(connection, "begin isolation level read committed").await?;
    if plan.kind == Kind::Early {
        execute(connection, "select pg_current_xact_id()").await?;
        tokio::time::sleep(plan.pause).await;
    }
    if plan.kind == Kind::Savepoint {
        execute(connection, "savepoint before").await?;
        write(connection, workload, plan).await?;
        execute(connection, "rollback to savepoint before").await?;
    }
    write(connection, workload, plan).await?;
    match plan.kind {
        Kind::Plain | Kind::Savepoint | Kind::Early | Kind::Several => {
            execute(connection, "commit").await?
        }
        Kind::Slow => {
            tokio::time::sleep(plan.pause).await;
            execute(connection, "commit").await?;
        }
        Kind::Abort => {
            execute(connection, "rollback").await?;
            return Ok(0);
        }
        Kind::TwoPhase => {
            execute_named(connection, "prepare transaction", &plan.gid).await?;
            tokio::time::sleep(plan.pause).await;
            execute_named(connection, "commit prepared", &plan.gid).await?;
        }
    }
    Ok(u64::try_from(plan.keys.len()).unwrap_or(u64::MAX))
}

/// Ends a transaction that an error left prepared: its locks would stay for ever.
pub(super) async fn resolve(connection: &mut PgConnection, plan: &Plan) -> Result<(), sqlx::Error> {
    let statement = "select exists (select from pg_prepared_xacts where gid = $1)";
    let is_left: bool = sqlx::query_scalar(statement)
        .bind(&plan.gid)
        .fetch_one(&mut *connection)
        .await?;
    if is_left {
        execute_named(connection, "commit prepared", &plan.gid).await
    } else {
        Ok(())
    }
}

async fn write(
    connection: &mut PgConnection,
    workload: &Workload,
    plan: &Plan,
) -> Result<(), sqlx::Error> {
    for number in &plan.keys {
        let topics = u32::try_from(workload.topics.len())
            .unwrap_or(u32::MAX)
            .max(1);
        let topic = usize::try_from(number % topics)
            .ok()
            .and_then(|n| workload.topics.get(n));
        let topic = topic.expect("a workload has at least one topic");
        let payload: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
            .take(fastrand::usize(workload.payload.clone()))
            .collect();
        append(
            &mut *connection,
            topic,
            workload.lane,
            &format!("{}-{number}", workload.key_prefix),
            &payload,
        )
        .await?;
    }
    Ok(())
}

pub(super) async fn append(
    connection: &mut PgConnection,
    topic: &str,
    lane: &str,
    key: &str,
    payload: &[u8],
) -> Result<Uuid, sqlx::Error> {
    let version = lock(&mut *connection, key, 1).await?;
    // A statement of its own, after the one that took the lock: that is the order which a service has to keep.
    let statement = "
        insert into ledger.business (key, version, message_id, payload)
        values (
          $1, $2,
          onceward.enqueue($3, $4, $1, lane => $5, headers => jsonb_build_object('onceward-sequence', $2::text)),
          $4)
        returning message_id";
    sqlx::query_scalar(statement)
        .bind(key)
        .bind(version)
        .bind(topic)
        .bind(payload)
        .bind(lane)
        .fetch_one(connection)
        .await
}

/// Locks the key until the transaction ends, counts its version up, and returns that.
pub(super) async fn lock(
    connection: &mut PgConnection,
    key: &str,
    by: i64,
) -> Result<i64, sqlx::Error> {
    let statement = "
        insert into ledger.keys (key, version)
        values ($1, $2)
        on conflict (key) do update set version = keys.version + excluded.version
        returning version";
    sqlx::query_scalar(statement)
        .bind(key)
        .bind(by)
        .fetch_one(connection)
        .await
}

async fn execute(
    connection: &mut PgConnection,
    statement: &'static str,
) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(statement).execute(connection).await?;
    Ok(())
}

async fn execute_named(
    connection: &mut PgConnection,
    verb: &'static str,
    gid: &str,
) -> Result<(), sqlx::Error> {
    // No statement takes a parameter here; the name is made of our own letters.
    sqlx::raw_sql(AssertSqlSafe(format!("{verb} '{gid}'")))
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_gives_each_kind_its_share() {
        let mix = Mix {
            aborts: 10,
            savepoints: 0,
            slow: 5,
            early: 0,
            several: 0,
            two_phase: 1,
        };
        let share = |kind| (0..100).filter(|n| Kind::of(*n, mix) == kind).count();

        assert_eq!(
            [
                Kind::Abort,
                Kind::Savepoint,
                Kind::Slow,
                Kind::TwoPhase,
                Kind::Plain
            ]
            .map(share),
            [10, 0, 5, 1, 84]
        );
    }
}
