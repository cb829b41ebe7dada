//! Slots are emptied when everybody has read them, and never otherwise.

use std::time::Duration;

use onceward::{Checkpoint, Keeper, Lane, LogAdmin, LogReader, Reason, SlotReport, Unrouted};
use onceward_core::Topic;
use onceward_testkit::postgres::Database;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use tokio::task::JoinHandle;

use crate::support::{connection, execute, log_of, migrated, read, stream};

const DAY: Duration = Duration::from_secs(86_400);
const RETENTION: Duration = Duration::from_secs(3 * 86_400);

/// A slot that is neither the current nor the next.
async fn free_slot(database: &Database) -> i16 {
    sqlx::query_scalar(
        "select ((floor(date_part('epoch', clock_timestamp()) / 86400)::bigint + 5) % 12)::smallint",
    )
    .fetch_one(database.pool())
    .await
    .unwrap()
}

/// Writes a message as if it had been written days ago, when the slot was the current one.
async fn write_old(connection: &mut PgConnection, slot: i16, payload: &str) {
    let text = format!(
        "insert into onceward.messages (slot, created_at, lane, id, topic, key, type, payload)
         values ({slot}, clock_timestamp() - interval '7 days', 1, gen_random_uuid(), 'orders', 'k', 'orders', '{payload}')"
    );
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(text)))
        .await
        .unwrap();
}

async fn rows(database: &Database) -> i64 {
    sqlx::query_scalar("select count(*) from onceward.messages")
        .fetch_one(database.pool())
        .await
        .unwrap()
}

fn of(reports: Vec<SlotReport>, slot: i16) -> SlotReport {
    reports
        .into_iter()
        .find(|report| report.slot == slot)
        .unwrap()
}

fn unread() -> Reason {
    Reason::Unread {
        stream: "events".to_owned(),
        lane: "standard",
        detour: String::new(),
    }
}

async fn pass(reader: &mut LogReader, keeper: &mut Keeper, cursors: &mut [onceward::Cursor; 3]) {
    read(reader, Lane::Standard, &mut cursors[1], 100).await;
    let mut checkpoint = Checkpoint::default();
    checkpoint.cursors[1] = Some(cursors[1].clone());
    keeper.checkpoint(&checkpoint).await.unwrap();
}

#[tokio::test]
async fn an_old_slot_is_emptied_once_its_rows_are_stored_as_read() {
    let database = migrated().await;
    let slot = free_slot(&database).await;
    let (mut reader, mut keeper, mut cursors) = stream(&database).await;
    write_old(&mut connection(&database).await, slot, "old").await;
    let mut admin = LogAdmin::connect(&log_of(&database)).await.unwrap();

    let report = of(admin.empty_slots(RETENTION).await.unwrap(), slot);
    assert_eq!(report.reasons, [unread()]);

    // Read, but not stored as read.
    read(&mut reader, Lane::Standard, &mut cursors[1].clone(), 100).await;
    assert!(!of(admin.empty_slots(RETENTION).await.unwrap(), slot).emptied);

    pass(&mut reader, &mut keeper, &mut cursors).await;
    assert!(of(admin.empty_slots(RETENTION).await.unwrap(), slot).emptied);
    assert_eq!(rows(&database).await, 0);
    assert_eq!(
        of(admin.empty_slots(RETENTION).await.unwrap(), slot).reasons,
        [Reason::Empty]
    );
}

#[tokio::test]
async fn young_rows_stay_for_the_retention() {
    let database = migrated().await;
    let slot = free_slot(&database).await;
    let (mut reader, mut keeper, mut cursors) = stream(&database).await;
    write_old(&mut connection(&database).await, slot, "old").await;
    pass(&mut reader, &mut keeper, &mut cursors).await;
    let mut admin = LogAdmin::connect(&log_of(&database)).await.unwrap();

    let report = of(admin.empty_slots(8 * DAY).await.unwrap(), slot);

    assert_eq!(report.reasons, [Reason::Young]);
}

#[tokio::test]
async fn a_late_row_below_the_cursor_keeps_its_slot() {
    let database = migrated().await;
    let slot = free_slot(&database).await;
    let (mut reader, mut keeper, mut cursors) = stream(&database).await;
    let mut slow = connection(&database).await;
    let mut transaction = slow.begin().await.unwrap();
    write_old(&mut transaction, slot, "late").await;
    write_old(&mut connection(&database).await, slot, "quick").await;
    pass(&mut reader, &mut keeper, &mut cursors).await;
    transaction.commit().await.unwrap();
    let mut admin = LogAdmin::connect(&log_of(&database)).await.unwrap();

    assert!(!of(admin.empty_slots(RETENTION).await.unwrap(), slot).emptied);

    pass(&mut reader, &mut keeper, &mut cursors).await;
    assert!(of(admin.empty_slots(RETENTION).await.unwrap(), slot).emptied);
}

#[tokio::test]
async fn a_stream_in_the_middle_of_its_pages_keeps_the_slot() {
    let database = migrated().await;
    let slot = free_slot(&database).await;
    let (mut reader, mut keeper, mut cursors) = stream(&database).await;
    let mut slow = connection(&database).await;
    let mut transaction = slow.begin().await.unwrap();
    for _ in 0..3 {
        write_old(&mut transaction, slot, "late").await;
    }
    write_old(&mut connection(&database).await, slot, "quick").await;
    pass(&mut reader, &mut keeper, &mut cursors).await;
    transaction.commit().await.unwrap();
    read(&mut reader, Lane::Standard, &mut cursors[1], 2).await;
    assert!(cursors[1].paging.is_some());
    let mut checkpoint = Checkpoint::default();
    checkpoint.cursors[1] = Some(cursors[1].clone());
    keeper.checkpoint(&checkpoint).await.unwrap();
    let mut admin = LogAdmin::connect(&log_of(&database)).await.unwrap();

    assert!(!of(admin.empty_slots(RETENTION).await.unwrap(), slot).emptied);
}

#[tokio::test]
async fn a_producer_at_work_is_waited_for_only_briefly_and_never_lost() {
    let database = migrated().await;
    let slot = free_slot(&database).await;
    let (mut reader, mut keeper, mut cursors) = stream(&database).await;
    write_old(&mut connection(&database).await, slot, "old").await;
    pass(&mut reader, &mut keeper, &mut cursors).await;
    let mut producer = connection(&database).await;
    let mut transaction = producer.begin().await.unwrap();
    write_old(&mut transaction, slot, "under way").await;
    let mut admin = LogAdmin::connect(&log_of(&database)).await.unwrap();

    let begin = std::time::Instant::now();
    let report = of(admin.empty_slots(RETENTION).await.unwrap(), slot);
    assert_eq!(report.reasons, [Reason::Busy]);
    assert!(begin.elapsed() < Duration::from_secs(5));

    assert_eq!(rows(&database).await, 1);

    transaction.commit().await.unwrap();
    assert_eq!(rows(&database).await, 2);
    let next = read(&mut reader, Lane::Standard, &mut cursors[1], 100).await;
    assert_eq!(next.len(), 1);
}

#[tokio::test]
async fn what_is_committed_while_the_emptying_waits_for_its_lock_keeps_the_slot() {
    let database = migrated().await;
    let slot = free_slot(&database).await;
    // The look after the lock is to see the commit whatever isolation the database has as its default.
    execute(
        database.pool(),
        &format!(
            "alter database {} set default_transaction_isolation = 'repeatable read'",
            database.name()
        ),
    )
    .await;
    let (mut reader, mut keeper, mut cursors) = stream(&database).await;
    write_old(&mut connection(&database).await, slot, "old").await;
    let mut producer = connection(&database).await;
    let mut admin = LogAdmin::connect(&log_of(&database)).await.unwrap();

    // The emptying waits but briefly: when it gave up before the commit, there is another try.
    let mut tries = 0;
    let report = loop {
        tries += 1;
        assert!(tries <= 100, "no commit came while the emptying waited");
        pass(&mut reader, &mut keeper, &mut cursors).await;
        let mut transaction = producer.begin().await.unwrap();
        write_old(&mut transaction, slot, "under way").await;
        let emptying = tokio::spawn(async move {
            let reports = admin.empty_slots(RETENTION).await.unwrap();
            (admin, reports)
        });
        let waited = waits_for_the_lock(&database, slot, &emptying).await;
        transaction.commit().await.unwrap();
        let (again, reports) = emptying.await.unwrap();
        admin = again;
        let report = of(reports, slot);
        if report.reasons != [Reason::Busy] {
            assert!(waited, "nobody waited for the slot's lock: {report:?}");
            break report;
        }
    };

    assert!(!report.emptied, "{report:?}");
    assert_eq!(report.reasons, [unread()]);
    assert_eq!(rows(&database).await, 1 + tries);
    let next = read(&mut reader, Lane::Standard, &mut cursors[1], 100).await;
    assert_eq!(next.len(), 1);
}

/// Whether the emptying was seen to wait for the lock on the slot, before it was done.
async fn waits_for_the_lock<T>(database: &Database, slot: i16, emptying: &JoinHandle<T>) -> bool {
    while !emptying.is_finished() {
        let waits: bool = sqlx::query_scalar(
            "select exists (
               select
               from pg_locks l
               where l.database = (select oid from pg_database where datname = current_database())
                 and l.relation = to_regclass('onceward.messages_' || $1)
                 and l.mode = 'AccessExclusiveLock'
                 and not l.granted
             )",
        )
        .bind(slot)
        .fetch_one(database.pool())
        .await
        .unwrap();
        if waits {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn topics_that_nobody_reads_keep_their_slot_until_a_stream_says_discard() {
    let database = migrated().await;
    let slot = free_slot(&database).await;
    let (mut reader, mut keeper, mut cursors) = stream(&database).await;
    execute(
        database.pool(),
        "update onceward.streams set topics = '{orders.*}'",
    )
    .await;
    write_old(&mut connection(&database).await, slot, "old").await;
    pass(&mut reader, &mut keeper, &mut cursors).await;
    let checkpoint = Checkpoint {
        unrouted: vec![Unrouted {
            slot,
            lane: Lane::Standard,
            topic: Topic::try_from("orders").unwrap(),
        }],
        ..Checkpoint::default()
    };
    keeper.checkpoint(&checkpoint).await.unwrap();
    let mut admin = LogAdmin::connect(&log_of(&database)).await.unwrap();

    let report = of(admin.empty_slots(RETENTION).await.unwrap(), slot);
    assert_eq!(
        report.reasons,
        [Reason::Unrouted {
            topic: "orders".to_owned()
        }]
    );

    execute(
        database.pool(),
        "update onceward.streams set unrouted = 'discard'",
    )
    .await;
    assert!(of(admin.empty_slots(RETENTION).await.unwrap(), slot).emptied);
}

#[tokio::test]
async fn a_log_that_no_stream_reads_is_never_emptied() {
    let database = migrated().await;
    let slot = free_slot(&database).await;
    write_old(&mut connection(&database).await, slot, "old").await;
    let mut admin = LogAdmin::connect(&log_of(&database)).await.unwrap();

    let report = of(admin.empty_slots(RETENTION).await.unwrap(), slot);

    assert_eq!(report.reasons, [Reason::NoStreams]);
    assert_eq!(rows(&database).await, 1);
}

#[tokio::test]
async fn the_ring_tells_the_longest_retention() {
    let database = migrated().await;
    let mut admin = LogAdmin::connect(&log_of(&database)).await.unwrap();

    let ring = admin.ring().await.unwrap();

    assert_eq!(ring.longest_retention(), 9 * DAY);
    assert!(ring.check_retention(10 * DAY).is_err());
}

#[tokio::test]
async fn the_relays_role_may_empty_slots() {
    let database = migrated().await;
    let slot = free_slot(&database).await;
    let (mut reader, mut keeper, mut cursors) = stream(&database).await;
    write_old(&mut connection(&database).await, slot, "old").await;
    pass(&mut reader, &mut keeper, &mut cursors).await;
    let name = format!("emptier_{}", database.name());
    execute(
        database.pool(),
        &format!("create role {name} login; grant onceward_relay to {name}"),
    )
    .await;
    let log = onceward::LogDatabase::new(
        database.url_as(&name).parse().unwrap(),
        onceward::Schema::default(),
    );
    let mut admin = LogAdmin::connect(&log).await.unwrap();

    let emptied = of(admin.empty_slots(RETENTION).await.unwrap(), slot).emptied;

    assert!(emptied);
    execute(database.pool(), &format!("drop role {name}")).await;
}
