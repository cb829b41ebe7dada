//! What takes steps that no release has.

use std::time::{Duration, Instant};

use onceward_testkit::postgres::{Database, Postgres};

use crate::migration::{ALL, LATEST, Migration};
use crate::{MigrateError, Migrations, Schema, State};

/// The version after the last one of this release.
const NEXT: i32 = LATEST + 1;

const MORE: Migration = Migration {
    version: NEXT,
    name: "more",
    sql: "alter table {{schema}}.messages add column more text;",
};

const BROKEN: Migration = Migration {
    version: NEXT,
    name: "broken",
    sql: "create table {{schema}}.half (); select 1 / 0;",
};

fn with(step: Migration) -> Migrations {
    let mut steps = ALL.to_vec();
    steps.push(step);
    Migrations::with_steps(Schema::default(), steps)
}

async fn migrated() -> Database {
    let database = Postgres::shared().await.database().await;
    crate::run(database.pool()).await.unwrap();
    database
}

#[tokio::test]
async fn a_step_gives_way_to_a_long_transaction_and_so_does_whoever_queued_behind_it() {
    let database = migrated().await;
    let mut long = database.pool().begin().await.unwrap();
    sqlx::query("select count(*) from onceward.messages")
        .execute(&mut *long)
        .await
        .unwrap();
    let migrations = with(MORE).attempts(1);

    let begin = Instant::now();
    let (result, ()) = tokio::join!(migrations.run(database.pool()), async {
        // While the step waits, a producer queues behind it, and gets through once the step gives up.
        onceward_testkit::wait::until_true(Duration::from_secs(10), "the step waits", || async {
            sqlx::query_scalar(
                "select exists (
                   select from pg_locks where mode = 'AccessExclusiveLock' and not granted
                     and database = (select oid from pg_database where datname = current_database())
                 )",
            )
            .fetch_one(database.pool())
            .await
            .unwrap()
        })
        .await;
        sqlx::query("select onceward.enqueue('t', 'x')")
            .execute(database.pool())
            .await
            .unwrap();
    });

    assert!(
        matches!(result, Err(MigrateError::Locked { version: NEXT, .. })),
        "{result:?}"
    );
    assert!(begin.elapsed() < Duration::from_secs(10));
    long.rollback().await.unwrap();
    let report = migrations.run(database.pool()).await.unwrap();
    assert_eq!(report.applied, [NEXT]);
}

#[tokio::test]
async fn a_step_that_fails_leaves_nothing_and_is_still_pending() {
    let database = migrated().await;
    let migrations = with(BROKEN);

    let error = migrations.run(database.pool()).await.unwrap_err();

    assert!(matches!(error, MigrateError::Step { version: NEXT, .. }));
    let half: Option<String> = sqlx::query_scalar("select to_regclass('onceward.half')::text")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(half, None);
    let check = migrations.check(database.pool()).await.unwrap();
    assert_eq!(check.state, State::Pending(vec![NEXT]));
    assert_eq!(check.version, Some(LATEST));
}
