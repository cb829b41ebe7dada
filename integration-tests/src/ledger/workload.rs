//! A service under load: business rows and messages in one transaction, by several writers at once, with all that
//! transactions do in life: abort, roll back to a savepoint, stay open, commit in two phases. Each message says its version as
//! its sequence.

mod transaction;
mod writer;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgPool};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::facts::Committed;

const TABLES: &str = "
create schema if not exists ledger;
create table if not exists ledger.keys (
  key text primary key,
  version bigint not null
);
create table if not exists ledger.business (
  key text not null references ledger.keys,
  version bigint not null,
  message_id uuid not null unique,
  payload bytea not null,
  primary key (key, version)
);
grant usage on schema ledger to public;
grant select, insert, update on ledger.keys to public;
grant select, insert on ledger.business to public;
";

/// How many of a hundred transactions are of each kind; the rest commits at once.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Roll back.
    pub aborts: u8,
    /// Roll back to a savepoint, and write again.
    pub savepoints: u8,
    /// Stay open between enqueue and commit.
    pub slow: u8,
    /// Take their transaction id, and enqueue only later.
    pub early: u8,
    /// Write several messages, some of one key.
    pub several: u8,
    /// Commit in two phases. The server needs `max_prepared_transactions`, the writer's role must own what it prepares.
    pub two_phase: u8,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            aborts: 8,
            savepoints: 5,
            slow: 5,
            early: 5,
            several: 15,
            two_phase: 0,
        }
    }
}

/// What to write, and how fast.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Topics; a key always belongs to the same one.
    pub topics: Vec<String>,
    /// The lane of all messages: one key in two lanes has no order.
    pub lane: &'static str,
    /// How many keys, each with its own order.
    pub keys: u32,
    /// What their names begin with: workloads that run side by side in several lanes need different ones.
    pub key_prefix: &'static str,
    /// How many writers at once, a connection each.
    pub writers: u32,
    /// Ends once about this many messages are committed.
    pub messages: u64,
    /// Transactions per second of all writers; `None` is as fast as it goes.
    pub per_second: Option<u32>,
    /// The size of payloads, in bytes.
    pub payload: RangeInclusive<usize>,
    /// The kinds of transactions.
    pub mix: Mix,
    /// The longest time that a slow one stays open.
    pub slow_for: Duration,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            topics: vec!["orders.created".to_owned()],
            lane: "standard",
            keys: 20,
            key_prefix: "key",
            writers: 4,
            messages: 1_000,
            per_second: None,
            payload: 0..=300,
            mix: Mix::default(),
            slow_for: Duration::from_millis(300),
        }
    }
}

/// What the writers believe to have done. The truth is in the business table: an answer to a commit may be lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Messages whose commit was answered.
    pub messages: u64,
    /// Transactions that were rolled back on purpose.
    pub aborted: u64,
    /// Transactions that ended in an error, their outcome unknown.
    pub unknown: u64,
}

/// What all writers share.
#[derive(Debug)]
struct Shared {
    url: String,
    workload: Workload,
    messages: AtomicU64,
    aborted: AtomicU64,
    unknown: AtomicU64,
}

impl Workload {
    /// Writes until enough is committed or `stop` is cancelled. A database that is away is waited for.
    ///
    /// # Cancel safety
    /// Dropped, the writers end where they are; their transactions are rolled back.
    ///
    /// # Panics
    /// When a writer does.
    pub async fn run(self, url: &str, stop: CancellationToken) -> Written {
        let writers = self.writers;
        let shared = Arc::new(Shared {
            url: url.to_owned(),
            workload: self,
            messages: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..writers {
            tasks.spawn(writer::run(Arc::clone(&shared), stop.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("a writer does not panic");
        }
        Written {
            messages: shared.messages.load(Ordering::SeqCst),
            aborted: shared.aborted.load(Ordering::SeqCst),
            unknown: shared.unknown.load(Ordering::SeqCst),
        }
    }
}

pub(super) async fn install(pool: &PgPool) {
    sqlx::raw_sql(TABLES)
        .execute(pool)
        .await
        .expect("the business tables can be made");
}

pub(super) async fn count(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar("select count(*) from ledger.business")
        .fetch_one(pool)
        .await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

pub(super) async fn committed(pool: &PgPool) -> Result<Vec<Committed>, sqlx::Error> {
    let rows = sqlx::query("select message_id, key, version, payload from ledger.business")
        .fetch_all(pool)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Committed {
                id: row.try_get("message_id")?,
                key: Some(row.try_get("key")?),
                version: row.try_get("version")?,
                payload: Some(row.try_get("payload")?),
            })
        })
        .collect()
}

/// One message of `key` and its business row, in the caller's transaction, in the standard lane. The key stays
/// locked until that ends, so versions count up in the order of commits.
///
/// # Errors
/// The database's own.
pub async fn append(
    connection: &mut PgConnection,
    topic: &str,
    key: &str,
    payload: &[u8],
) -> Result<uuid::Uuid, sqlx::Error> {
    transaction::append(connection, topic, "standard", key, payload).await
}

/// As [`append`], `count` times in one statement, with payloads of 16 bytes.
///
/// # Errors
/// The database's own.
pub async fn append_many(
    connection: &mut PgConnection,
    topic: &str,
    key: &str,
    count: i32,
) -> Result<(), sqlx::Error> {
    let last = transaction::lock(&mut *connection, key, i64::from(count)).await?;
    let statement = "
        insert into ledger.business (key, version, message_id, payload)
        select
          $1, $2 + n,
          onceward.enqueue($3, decode(md5($2::text || n), 'hex'), $1, headers => jsonb_build_object('onceward-sequence', ($2 + n)::text)),
          decode(md5($2::text || n), 'hex')
        from generate_series(1, $4) n";
    sqlx::query(statement)
        .bind(key)
        .bind(last - i64::from(count))
        .bind(topic)
        .bind(count)
        .execute(connection)
        .await?;
    Ok(())
}
