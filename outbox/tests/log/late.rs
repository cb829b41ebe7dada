//! Rows that commit after later ones were read.

use std::time::Duration;

use onceward::{
    Checkpoint, Cursor, CursorRead, Keeper, Lane, LogDatabase, LogReader, LogRow, PublishAfter,
    Schema, Step,
};
use onceward_testkit::postgres::{Database, Options, Postgres};
use onceward_testkit::wait;
use sqlx::Connection;
use sqlx::postgres::PgConnectOptions;

use crate::support::{
    PLENTY, assert_nothing, claim, claim_of, connection, enqueue, execute, log_of, migrated, pairs,
    read, shown, stream,
};

/// The name of the session of whoever takes a stream over.
const READER: &str = "the_next_reader";

/// A stream that has read past a transaction of these payloads, which has committed since.
async fn passed(database: &Database, payloads: &[String]) -> (LogReader, Keeper, Cursor) {
    let (mut reader, keeper, [_, mut cursor, _]) = stream(database).await;
    let (mut slow, mut quick) = (connection(database).await, connection(database).await);
    let mut transaction = slow.begin().await.unwrap();
    for payload in payloads {
        enqueue(&mut transaction, "late", payload).await;
    }
    enqueue(&mut quick, "b", "1").await;
    let seen = shown(read(&mut reader, Lane::Standard, &mut cursor, 10).await);
    assert_eq!(seen, pairs(&[("b", "1")]));
    transaction.commit().await.unwrap();
    (reader, keeper, cursor)
}

/// One read behind `cursor`.
async fn step(reader: &mut LogReader, cursor: &Cursor, limit: usize, bytes: usize) -> Step<LogRow> {
    let ask = CursorRead {
        lane: Lane::Standard,
        cursor: cursor.clone(),
        limit,
        bytes,
    };
    let read = reader.read(&[ask], &PublishAfter::Visible).await.unwrap();
    read.steps.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_message_that_commits_after_a_later_one_is_delivered_late_and_once() {
    let database = migrated().await;
    let (mut reader, _keeper, mut cursors) = stream(&database).await;
    let (mut slow, mut quick) = (connection(&database).await, connection(&database).await);
    let mut transaction = slow.begin().await.unwrap();
    enqueue(&mut transaction, "a", "slow").await;
    enqueue(&mut quick, "b", "quick").await;

    let cursor = &mut cursors[1];
    assert_eq!(
        shown(read(&mut reader, Lane::Standard, cursor, 10).await),
        pairs(&[("b", "quick")])
    );

    transaction.commit().await.unwrap();
    enqueue(&mut quick, "b", "next").await;
    assert_eq!(
        shown(read(&mut reader, Lane::Standard, cursor, 10).await),
        pairs(&[("a", "slow"), ("b", "next")])
    );
    assert_nothing(&mut reader, cursor).await;
}

#[tokio::test]
async fn a_large_late_transaction_comes_page_by_page_before_anything_new() {
    let database = migrated().await;
    let payloads: Vec<String> = (1..=5).map(|n| n.to_string()).collect();
    let (mut reader, _keeper, mut cursor) = passed(&database, &payloads).await;
    enqueue(&mut connection(&database).await, "b", "2").await;

    let mut pages = Vec::new();
    loop {
        let page = read(&mut reader, Lane::Standard, &mut cursor, 2).await;
        if page.is_empty() {
            break;
        }
        pages.push(shown(page));
    }

    assert_eq!(
        pages,
        [
            pairs(&[("late", "1"), ("late", "2")]),
            pairs(&[("late", "3"), ("late", "4")]),
            pairs(&[("late", "5")]),
            pairs(&[("b", "2")]),
        ]
    );
}

#[tokio::test]
async fn late_rows_that_exceed_the_bytes_come_page_by_page() {
    let database = migrated().await;
    let large = "x".repeat(50_000);
    let payloads: Vec<String> = (1..=3).map(|n| format!("{n}{large}")).collect();
    let (mut reader, _keeper, mut cursor) = passed(&database, &payloads).await;

    let mut seqs = Vec::new();
    for _ in 0..3 {
        let step = step(&mut reader, &cursor, 100, 1_000).await;
        seqs.extend(step.rows.iter().map(|row| row.seq));
        cursor = step.after;
    }

    assert_eq!(seqs, [1, 2, 3]);
    assert!(cursor.paging.is_none());
}

#[tokio::test]
async fn late_rows_that_just_fill_a_page_leave_nothing() {
    let database = migrated().await;
    let payloads = ["1", "2"].map(str::to_owned);
    let (mut reader, _keeper, cursor) = passed(&database, &payloads).await;

    for (limit, left) in [(1, true), (2, false), (3, false)] {
        let step = step(&mut reader, &cursor, limit, PLENTY).await;
        assert_eq!(step.rows.len(), limit.min(2));
        assert_eq!((step.left, step.after.paging.is_some()), (left, left));
    }
}

/// The reader and the standard lane's cursor of whoever takes the stream over from one that stored this cursor and gave up the lease.
async fn taken_over(
    database: &Database,
    mut keeper: Keeper,
    cursor: Cursor,
) -> (LogReader, Cursor) {
    let mut checkpoint = Checkpoint::default();
    checkpoint.cursors[1] = Some(cursor);
    keeper.checkpoint(&checkpoint).await.unwrap();
    keeper.release().await.unwrap();
    let mut next = Keeper::connect(&log_of(database)).await.unwrap();
    let claimed = claim(&mut next, &claim_of("events", Duration::from_secs(60))).await;
    let [_, cursor, _] = claimed.cursors;
    let options: PgConnectOptions = database.url().parse().unwrap();
    let log = LogDatabase::new(options.application_name(READER), Schema::default());
    (LogReader::connect(&log).await.unwrap(), cursor)
}

#[tokio::test]
async fn what_had_not_begun_by_the_snapshot_is_found_late_behind_a_stored_cursor() {
    // A server of its own, where no other transaction ends meanwhile: that would move the snapshot's end.
    let options = Options::default().config("autovacuum", "off");
    let postgres = Postgres::start(options).await;
    let database = postgres.database().await;
    onceward_migrations::run(database.pool()).await.unwrap();
    let (mut reader, keeper, [_, mut cursor, _]) = stream(&database).await;
    let (mut slow, mut quick) = (connection(&database).await, connection(&database).await);
    let id = "select pg_current_xact_id()::text::bigint";
    let mut first = quick.begin().await.unwrap();
    let mut second = slow.begin().await.unwrap();
    let low: i64 = sqlx::query_scalar(id).fetch_one(&mut *first).await.unwrap();
    let high: i64 = sqlx::query_scalar(id)
        .fetch_one(&mut *second)
        .await
        .unwrap();
    assert!(low < high);
    enqueue(&mut second, "a", "late").await;
    enqueue(&mut first, "b", "passes it").await;
    first.commit().await.unwrap();
    let seen = shown(read(&mut reader, Lane::Standard, &mut cursor, 10).await);
    assert_eq!(seen, pairs(&[("b", "passes it")]));
    assert_eq!(cursor.snapshot.xmax(), high.unsigned_abs());

    let (mut reader, mut cursor) = taken_over(&database, keeper, cursor).await;
    assert_nothing(&mut reader, &mut cursor.clone()).await;
    second.commit().await.unwrap();

    let seen = shown(read(&mut reader, Lane::Standard, &mut cursor, 10).await);
    assert_eq!(seen, pairs(&[("a", "late")]));
    assert_nothing(&mut reader, &mut cursor).await;
}

/// How many entries of the log's indexes were read, once the last reader's session has ended: it has told then.
async fn entries(database: &Database) -> i64 {
    let others = "
        select count(*)
        from pg_stat_activity
        where datname = current_database() and application_name = $1";
    wait::until_true(Duration::from_secs(30), "the reader to end", || async {
        let count = sqlx::query_scalar::<_, i64>(others).bind(READER);
        count.fetch_one(database.pool()).await.unwrap() == 0
    })
    .await;
    let entries = "
        select sum(idx_tup_read)::bigint
        from pg_stat_user_indexes
        where relname ~ '^messages_[0-9]+$'";
    let entries = sqlx::query_scalar(entries).fetch_one(database.pool());
    entries.await.unwrap()
}

#[tokio::test]
async fn behind_a_long_absence_nothing_that_was_written_meanwhile_is_gone_through() {
    let database = migrated().await;
    let (mut reader, keeper, [_, mut cursor, _]) = stream(&database).await;
    enqueue(&mut connection(&database).await, "a", "1").await;
    assert_eq!(
        read(&mut reader, Lane::Standard, &mut cursor, 10)
            .await
            .len(),
        1
    );
    reader.close().await;
    let (mut reader, cursor) = taken_over(&database, keeper, cursor).await;
    for _ in 0..4 {
        let many = "
            insert into onceward.messages (lane, id, topic, key, type, payload)
            select 1, gen_random_uuid(), 'orders', 'k', 'orders', ''
            from generate_series(1, 1000)";
        execute(database.pool(), many).await;
    }

    let step = step(&mut reader, &cursor, 10, PLENTY).await;

    assert_eq!(step.rows.len(), 10);
    reader.close().await;
    let entries = entries(&database).await;
    // Those that it brought are counted at least.
    assert!((10..200).contains(&entries), "{entries} entries");
}
