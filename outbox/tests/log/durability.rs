//! What is read is held back until it is durable.

use std::time::{Duration, Instant};

use onceward::{Checkpoint, CursorRead, Keeper, Lane, LogError, LogReader, PublishAfter};
use onceward_testkit::postgres::{Options, Postgres};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};

use crate::support::{PLENTY, claim, claim_of, enqueue};

/// A server on which nothing is flushed that nobody waits for.
async fn quiet() -> Postgres {
    let options = Options::default()
        .config("wal_writer_delay", "10s")
        .config("autovacuum", "off");
    let server = Postgres::start(options).await;
    let pool = sqlx::PgPool::connect(&server.url("postgres"))
        .await
        .unwrap();
    onceward_migrations::run(&pool).await.unwrap();
    server
}

async fn written_up_to(connection: &mut PgConnection) -> String {
    sqlx::query_scalar("select pg_current_wal_insert_lsn()::text")
        .fetch_one(connection)
        .await
        .unwrap()
}

async fn is_flushed(connection: &mut PgConnection, position: &str) -> bool {
    sqlx::query_scalar("select pg_current_wal_flush_lsn() >= $1::pg_lsn")
        .bind(position)
        .fetch_one(connection)
        .await
        .unwrap()
}

async fn behind(connection: &mut PgConnection) -> bool {
    let position = written_up_to(connection).await;
    !is_flushed(connection, &position).await
}

#[tokio::test]
async fn on_a_quiet_server_the_relay_flushes_by_itself() {
    let server = quiet().await;
    let url = server.url("postgres");
    let log = onceward::LogDatabase::new(url.parse().unwrap(), onceward::Schema::default());
    let mut keeper = Keeper::connect(&log).await.unwrap();
    let mut reader = LogReader::connect(&log).await.unwrap();
    let cursors = claim(&mut keeper, &claim_of("events", Duration::from_secs(60)))
        .await
        .cursors;
    let mut writer = PgConnection::connect(&url).await.unwrap();
    let ask = [CursorRead {
        lane: Lane::Standard,
        cursor: cursors[1].clone(),
        limit: 10,
        bytes: PLENTY,
    }];
    reader.read(&ask, &PublishAfter::Flushed).await.unwrap();
    writer
        .execute("set synchronous_commit = off")
        .await
        .unwrap();
    enqueue(&mut writer, "k", "x").await;
    let position = written_up_to(&mut writer).await;
    assert!(!is_flushed(&mut writer, &position).await);

    let begin = Instant::now();
    let read = reader.read(&ask, &PublishAfter::Flushed).await.unwrap();

    assert_eq!(read.steps[0].rows.len(), 1);
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    assert!(is_flushed(&mut writer, &position).await);
}

#[tokio::test]
async fn visible_is_enough_when_told_so() {
    let server = quiet().await;
    let url = server.url("postgres");
    let log = onceward::LogDatabase::new(url.parse().unwrap(), onceward::Schema::default());
    let mut keeper = Keeper::connect(&log).await.unwrap();
    let mut reader = LogReader::connect(&log).await.unwrap();
    let cursors = claim(&mut keeper, &claim_of("events", Duration::from_secs(60)))
        .await
        .cursors;
    let mut writer = PgConnection::connect(&url).await.unwrap();
    writer
        .execute("set synchronous_commit = off")
        .await
        .unwrap();
    enqueue(&mut writer, "k", "x").await;
    let ask = [CursorRead {
        lane: Lane::Standard,
        cursor: cursors[1].clone(),
        limit: 10,
        bytes: PLENTY,
    }];

    let read = reader.read(&ask, &PublishAfter::Visible).await.unwrap();

    assert_eq!(read.steps[0].rows.len(), 1);
    assert!(behind(&mut writer).await);
}

#[tokio::test]
async fn a_checkpoint_does_not_wait_for_the_disk_and_a_park_does() {
    let server = quiet().await;
    let url = server.url("postgres");
    let log = onceward::LogDatabase::new(url.parse().unwrap(), onceward::Schema::default());
    let mut keeper = Keeper::connect(&log).await.unwrap();
    let mut watcher = PgConnection::connect(&url).await.unwrap();
    claim(&mut keeper, &claim_of("events", Duration::from_secs(60))).await;
    assert!(!behind(&mut watcher).await, "a claim is on disk");

    keeper.checkpoint(&Checkpoint::default()).await.unwrap();
    assert!(behind(&mut watcher).await);

    keeper.park(&[]).await.unwrap();
    assert!(!behind(&mut watcher).await);
}

#[tokio::test]
async fn a_standby_that_lags_holds_back_what_was_read() {
    let server = Postgres::start(Options::default()).await;
    let url = server.url("postgres");
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    onceward_migrations::run(&pool).await.unwrap();
    let standby = server.standby("heir").await;
    let log = onceward::LogDatabase::new(url.parse().unwrap(), onceward::Schema::default())
        .within(Duration::from_secs(5));
    let mut keeper = Keeper::connect(&log).await.unwrap();
    let mut reader = LogReader::connect(&log).await.unwrap();
    let cursors = claim(&mut keeper, &claim_of("events", Duration::from_secs(60)))
        .await
        .cursors;
    let mut writer = PgConnection::connect(&url).await.unwrap();
    let ask = [CursorRead {
        lane: Lane::Standard,
        cursor: cursors[1].clone(),
        limit: 10,
        bytes: PLENTY,
    }];
    let heir = PublishAfter::Replicated("heir".to_owned());

    enqueue(&mut writer, "k", "x").await;
    let read = reader.read(&ask, &heir).await.unwrap();
    assert_eq!(read.steps[0].rows.len(), 1);

    standby.freeze();
    enqueue(&mut writer, "k", "y").await;
    let error = reader.read(&ask, &heir).await.unwrap_err();
    standby.cont();

    assert!(matches!(error, LogError::NotReplicated { .. }), "{error}");
    let read = reader.read(&ask, &heir).await.unwrap();
    assert_eq!(read.steps[0].rows.len(), 2);
}
