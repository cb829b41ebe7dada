//! The commands of `onceward` on a real database, as a user runs them.

#![expect(clippy::unwrap_used, reason = "a test's helper fails the test")]

#[path = "../common/mod.rs"]
mod common;
mod database;
mod dead_letters;
mod doctor;
mod migrate;
mod parked;
mod rights;
mod status;
mod streams;
mod usage;

use common::Shell;
use onceward_testkit::postgres::{Database, Postgres};
use sqlx::PgPool;

async fn execute(pool: &PgPool, statement: &'static str) {
    sqlx::raw_sql(statement).execute(pool).await.unwrap();
}

/// Has the database refuse updates of a table's rows `when` that holds.
async fn refuse_updates(pool: &PgPool, table: &str, when: &str) {
    let refuse = format!(
        "create function refuse() returns trigger language plpgsql as $$
         begin if {when} then raise 'not today'; end if; return new; end $$;
         create trigger refuse before update on onceward.{table} for each row execute function refuse()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(refuse))
        .execute(pool)
        .await
        .unwrap();
}

/// A database with the schema, and a shell that knows it.
async fn migrated() -> (Database, Shell) {
    let database = Postgres::shared().await.database().await;
    let shell = Shell::with_database(database.url());
    shell.ok(&["migrate"]).await;
    (database, shell)
}

/// A stream that nobody runs, with two parked messages.
const PARKED: &str = r#"
    insert into onceward.streams (stream, topics) values ('events', '{*}');
    insert into onceward.cursors (stream, lane, snapshot)
    select 'events', lane, pg_current_snapshot() from generate_series(0, 2) lane;
    insert into onceward.parked (stream, seq, lane, id, topic, key, type, headers, payload, created_at, error_kind, error)
    select 'events', n, 1, gen_random_uuid(), 'orders.created', 'k' || n, 'orders.created', '{"tenant": "acme"}', '{"order": 17}',
      clock_timestamp(), 'too_large', 'the broker takes 1000 bytes'
    from generate_series(7, 8) n;
"#;

async fn with_parked() -> (Database, Shell) {
    let (database, shell) = migrated().await;
    execute(database.pool(), PARKED).await;
    (database, shell)
}
