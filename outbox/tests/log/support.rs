//! A migrated database, its readers and its keepers.

use std::panic::Location;
use std::time::Duration;

use onceward::{
    Claim, Claimed, Claiming, Cursor, CursorRead, Keeper, Lane, LogDatabase, LogReader, LogRow,
    PublishAfter, Schema, Start, Step, UnroutedPolicy,
};
use onceward_core::TopicGlob;
use onceward_testkit::postgres::{Database, Postgres};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Connection, Executor};

pub(crate) const PLENTY: usize = 1 << 30;

pub(crate) async fn migrated() -> Database {
    let database = Postgres::shared().await.database().await;
    onceward_migrations::run(database.pool()).await.unwrap();
    database
}

pub(crate) fn log_of(database: &Database) -> LogDatabase {
    LogDatabase::new(database.url().parse().unwrap(), Schema::default())
}

pub(crate) async fn connection(database: &Database) -> PgConnection {
    PgConnection::connect(database.url()).await.unwrap()
}

pub(crate) fn claim_of(stream: &str, ttl: Duration) -> Claim {
    Claim {
        stream: stream.to_owned(),
        owner: "a test".to_owned(),
        ttl,
        topics: vec![TopicGlob::all()],
        start: Start::Earliest,
        unrouted: UnroutedPolicy::Keep,
        previous: None,
    }
}

pub(crate) async fn claim(keeper: &mut Keeper, claim: &Claim) -> Claimed {
    match keeper.claim(claim).await.unwrap() {
        Claiming::Claimed(claimed) => claimed,
        Claiming::Taken { owner, .. } => panic!("taken by {owner:?}"),
    }
}

/// A stream of all topics, its reader, its keeper and where it begins.
pub(crate) async fn stream(database: &Database) -> (LogReader, Keeper, [Cursor; 3]) {
    let log = log_of(database);
    let reader = LogReader::connect(&log).await.unwrap();
    let mut keeper = Keeper::connect(&log).await.unwrap();
    let claimed = claim(&mut keeper, &claim_of("events", Duration::from_secs(60))).await;
    (reader, keeper, claimed.cursors)
}

/// Reads one lane on.
pub(crate) async fn read(
    reader: &mut LogReader,
    lane: Lane,
    cursor: &mut Cursor,
    limit: usize,
) -> Vec<LogRow> {
    let ask = CursorRead {
        lane,
        cursor: cursor.clone(),
        limit,
        bytes: PLENTY,
    };
    let read = reader.read(&[ask], &PublishAfter::Visible).await.unwrap();
    let Step { rows, after, .. } = read.steps.into_iter().next().unwrap();
    *cursor = after;
    rows
}

/// A read of the standard lane brings nothing.
#[track_caller]
pub(crate) fn assert_nothing(
    reader: &mut LogReader,
    cursor: &mut Cursor,
) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let rows = read(reader, Lane::Standard, cursor, 10).await;
        assert!(rows.is_empty(), "at {caller}: {:?}", shown(rows));
    }
}

pub(crate) async fn execute(pool: &PgPool, sql: &str) {
    pool.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned())))
        .await
        .unwrap();
}

/// Enqueues in the caller's transaction, if it has one.
pub(crate) async fn enqueue(connection: &mut PgConnection, key: &str, payload: &str) {
    sqlx::query("select onceward.enqueue('orders', convert_to($2, 'UTF8'), $1)")
        .bind(key)
        .bind(payload)
        .execute(connection)
        .await
        .unwrap();
}

/// Key and payload of rows, for comparing.
pub(crate) fn shown(rows: Vec<LogRow>) -> Vec<(String, String)> {
    rows.into_iter()
        .map(|row| {
            let message = row.into_message();
            let key = message.key.map(|key| key.as_str().to_owned());
            let payload = String::from_utf8(message.payload.to_vec()).unwrap();
            (key.unwrap_or_default(), payload)
        })
        .collect()
}

pub(crate) fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, payload)| ((*key).to_owned(), (*payload).to_owned()))
        .collect()
}
