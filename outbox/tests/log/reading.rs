//! What a read delivers.

use std::time::{Duration, Instant};

use onceward::{CursorRead, Lane, LogError, LogReader, PublishAfter};
use onceward_testkit::postgres::{self, Database, Postgres};
use onceward_testkit::wait;
use sqlx::{Connection, Executor};

use crate::support::{
    PLENTY, assert_nothing, connection, enqueue, execute, log_of, migrated, pairs, read, shown,
    stream,
};

#[tokio::test]
async fn a_message_is_read_as_it_was_written() {
    let database = migrated().await;
    let (mut reader, _keeper, mut cursors) = stream(&database).await;
    execute(
        database.pool(),
        r#"select onceward.enqueue('orders.paid', '\x00ff'::bytea, 'k', 'paid', '{"tenant": "é \" \\"}', 'image/png', 'bulk',
             '0190b5a0-0000-7000-8000-000000000001')"#,
    )
    .await;

    let rows = read(&mut reader, Lane::Bulk, &mut cursors[2], 10).await;

    assert_eq!(rows.len(), 1);
    let row = rows.into_iter().next().unwrap();
    assert_eq!((row.seq, row.lane), (1, Lane::Bulk));
    let message = row.into_message();
    assert_eq!(
        message.id.to_string(),
        "0190b5a0-0000-7000-8000-000000000001"
    );
    assert_eq!(message.topic.as_str(), "orders.paid");
    assert_eq!(message.key.unwrap().as_str(), "k");
    assert_eq!(message.kind.as_str(), "paid");
    assert_eq!(message.content_type.as_deref(), Some("image/png"));
    assert_eq!(message.headers.get("tenant"), Some("é \" \\"));
    assert_eq!(message.headers.len(), 1);
    assert_eq!(&message.payload[..], [0, 255]);
    assert_eq!(message.seq, Some(1));
    assert!(message.time.is_some());
}

/// As the owner of the log may: a writer's rows go where the time says.
async fn enqueue_into(database: &Database, slot: i16, payload: &str) {
    let sql = format!(
        "insert into onceward.messages (slot, lane, id, topic, key, type, payload)
         values ({slot}, 1, gen_random_uuid(), 'orders', 'k', 'paid', '{payload}')"
    );
    execute(database.pool(), &sql).await;
}

#[tokio::test]
async fn a_slot_that_was_empty_is_gone_through_from_its_first_row_on() {
    let database = migrated().await;
    let (mut reader, _keeper, mut cursors) = stream(&database).await;
    let cursor = &mut cursors[1];
    // An empty log, then one slot, the next one, an earlier one that is late, and one that was emptied and is in use again.
    assert_nothing(&mut reader, cursor).await;
    enqueue_into(&database, 7, "first").await;
    let mut seen = shown(read(&mut reader, Lane::Standard, cursor, 10).await);
    let mut slow = connection(&database).await;
    let mut transaction = slow.begin().await.unwrap();
    transaction
        .execute(
            "insert into onceward.messages (slot, lane, id, topic, key, type, payload)
             values (3, 1, gen_random_uuid(), 'orders', 'k', 'paid', 'late')",
        )
        .await
        .unwrap();
    enqueue_into(&database, 8, "second").await;
    seen.extend(shown(read(&mut reader, Lane::Standard, cursor, 10).await));
    transaction.commit().await.unwrap();
    enqueue_into(&database, 8, "third").await;
    seen.extend(shown(read(&mut reader, Lane::Standard, cursor, 10).await));
    execute(database.pool(), "truncate onceward.messages_7").await;
    assert_nothing(&mut reader, cursor).await;
    enqueue_into(&database, 8, "fourth").await;
    enqueue_into(&database, 7, "fifth").await;
    seen.extend(shown(read(&mut reader, Lane::Standard, cursor, 10).await));

    let payloads = ["first", "second", "late", "third", "fourth", "fifth"];
    assert_eq!(seen, pairs(&payloads.map(|payload| ("k", payload))));
    assert_nothing(&mut reader, cursor).await;
}

#[tokio::test]
async fn a_look_shows_what_a_read_would_see_and_another_snapshot_once_something_is_committed() {
    // A server of its own: anybody's commit changes what is seen.
    let postgres = Postgres::start(postgres::Options::default()).await;
    let database = postgres.database().await;
    onceward_migrations::run(database.pool()).await.unwrap();
    let (mut reader, _keeper, mut cursors) = stream(&database).await;
    let (mut slow, mut quick) = (connection(&database).await, connection(&database).await);
    let mut transaction = slow.begin().await.unwrap();
    enqueue(&mut transaction, "a", "slow").await;
    enqueue(&mut quick, "b", "quick").await;

    let cursor = &mut cursors[1];
    read(&mut reader, Lane::Standard, cursor, 10).await;
    assert_eq!(reader.look(Duration::ZERO).await.unwrap(), cursor.snapshot);
    transaction.commit().await.unwrap();
    assert_ne!(reader.look(Duration::ZERO).await.unwrap(), cursor.snapshot);

    assert_eq!(
        shown(read(&mut reader, Lane::Standard, cursor, 10).await),
        pairs(&[("a", "slow")])
    );
    assert_eq!(reader.look(Duration::ZERO).await.unwrap(), cursor.snapshot);
}

#[tokio::test]
async fn a_watch_ends_at_a_commit_and_else_when_its_time_is_over() {
    // A server of its own: anybody's commit changes what is seen.
    let postgres = Postgres::start(postgres::Options::default()).await;
    let database = postgres.database().await;
    onceward_migrations::run(database.pool()).await.unwrap();
    let (mut reader, _keeper, mut cursors) = stream(&database).await;
    let mut writer = connection(&database).await;
    let every = Duration::from_millis(1);
    read(&mut reader, Lane::Standard, &mut cursors[1], 10).await;
    let seen = cursors[1].snapshot.clone();

    let in_vain = reader.watch(&seen, every, 5 * every).await.unwrap();
    let once = Duration::from_millis(20);
    let watched = Instant::now();
    let after_one_look = reader.watch(&seen, once, once).await.unwrap();
    assert!(watched.elapsed() >= once, "{:?}", watched.elapsed());
    let patience = Duration::from_secs(3);
    let watched = Instant::now();
    let commits = async {
        wait::until_true(patience, "the server to wait", || async {
            let sql = "select exists (select from pg_stat_activity where wait_event = 'PgSleep')";
            let waits = sqlx::query_scalar(sql).fetch_one(database.pool()).await;
            waits.unwrap()
        })
        .await;
        enqueue(&mut writer, "k", "new").await;
    };
    let (at_a_commit, ()) = tokio::join!(reader.watch(&seen, every, patience), commits);
    let took = watched.elapsed();
    // One that is over already is no reason to wait.
    let at_once = reader.watch(&seen, patience, patience).await.unwrap();

    assert_eq!([&in_vain, &after_one_look], [&seen, &seen]);
    let at_a_commit = at_a_commit.unwrap();
    assert!(at_a_commit != seen && at_a_commit == at_once);
    assert!(took < patience, "{took:?}");
    let new = read(&mut reader, Lane::Standard, &mut cursors[1], 10).await;
    assert_eq!(shown(new), pairs(&[("k", "new")]));
}

#[tokio::test]
async fn a_read_ends_at_its_bytes_and_never_stands_still() {
    let database = migrated().await;
    let (mut reader, _keeper, cursors) = stream(&database).await;
    let mut writer = connection(&database).await;
    let large = "x".repeat(100_000);
    for n in 0..4 {
        enqueue(&mut writer, &n.to_string(), &large).await;
    }
    let ask = |cursor: &onceward::Cursor, bytes: usize| CursorRead {
        lane: Lane::Standard,
        cursor: cursor.clone(),
        limit: 100,
        bytes,
    };

    let mut cursor = cursors[1].clone();
    let (mut sizes, mut left) = (Vec::new(), Vec::new());
    for bytes in [150_000, 1, PLENTY] {
        let read = reader
            .read(&[ask(&cursor, bytes)], &PublishAfter::Visible)
            .await
            .unwrap();
        sizes.push(read.steps[0].rows.len());
        left.push(read.steps[0].left);
        cursor = read.steps[0].after.clone();
    }

    assert_eq!(sizes, [2, 1, 1]);
    assert_eq!(left, [true, true, false]);
}

#[tokio::test]
async fn lanes_are_read_together_and_a_lane_that_is_left_out_misses_nothing() {
    let database = migrated().await;
    let (mut reader, _keeper, mut cursors) = stream(&database).await;
    let (mut slow, mut quick) = (connection(&database).await, connection(&database).await);
    let mut transaction = slow.begin().await.unwrap();
    transaction
        .execute("select onceward.enqueue('t', 'late', lane => 'bulk')")
        .await
        .unwrap();
    quick
        .execute("select onceward.enqueue('t', 'bulk', lane => 'bulk')")
        .await
        .unwrap();
    quick
        .execute("select onceward.enqueue('t', 'critical', lane => 'critical')")
        .await
        .unwrap();
    let ask = |lanes: &[usize], cursors: &[onceward::Cursor; 3]| -> Vec<CursorRead> {
        lanes
            .iter()
            .map(|lane| CursorRead {
                lane: Lane::ALL[*lane],
                cursor: cursors[*lane].clone(),
                limit: 10,
                bytes: PLENTY,
            })
            .collect()
    };

    let mut seen = Vec::new();
    for lanes in [&[0, 1, 2][..], &[0], &[0, 2]] {
        if lanes == [0, 2] {
            transaction = {
                transaction.commit().await.unwrap();
                slow.begin().await.unwrap()
            };
        }
        let read = reader
            .read(&ask(lanes, &cursors), &PublishAfter::Visible)
            .await
            .unwrap();
        for (lane, step) in lanes.iter().zip(read.steps) {
            cursors[*lane] = step.after;
            seen.extend(shown(step.rows).into_iter().map(|(_, payload)| payload));
        }
    }
    drop(transaction);

    assert_eq!(seen, ["critical", "bulk", "late"]);
}

#[tokio::test]
async fn a_reader_that_is_told_of_no_server_says_so() {
    let database = migrated().await;
    let options: sqlx::postgres::PgConnectOptions = database.url().parse().unwrap();
    let nowhere = onceward::LogDatabase::new(options.port(1), onceward::Schema::default());

    let error = LogReader::connect(&nowhere).await.unwrap_err();

    assert!(matches!(error, LogError::Database { .. }), "{error}");
}

#[tokio::test]
async fn a_call_that_hangs_ends_by_its_deadline() {
    let database = migrated().await;
    let within = std::time::Duration::from_secs(2);
    let mut reader = LogReader::connect(&log_of(&database).within(within))
        .await
        .unwrap();
    let mut blocker = connection(&database).await;
    let mut transaction = blocker.begin().await.unwrap();
    transaction
        .execute("lock table onceward.messages_3 in access exclusive mode")
        .await
        .unwrap();
    let (_other, _keeper, cursors) = {
        // The claim looks at the log too.
        transaction.rollback().await.unwrap();
        let stream = stream(&database).await;
        transaction = blocker.begin().await.unwrap();
        transaction
            .execute("lock table onceward.messages_3 in access exclusive mode")
            .await
            .unwrap();
        stream
    };
    let ask = CursorRead {
        lane: Lane::Standard,
        cursor: cursors[1].clone(),
        limit: 10,
        bytes: PLENTY,
    };

    let begin = std::time::Instant::now();
    let result = reader.read(&[ask], &PublishAfter::Visible).await;

    assert!(result.unwrap_err().is_slow_read());
    assert!(begin.elapsed() < std::time::Duration::from_secs(20));
    drop(transaction);
}

#[tokio::test]
async fn a_partition_that_was_attached_later_ends_the_session_and_is_read_by_the_next_one() {
    let database = migrated().await;
    let (mut reader, _keeper, mut cursors) = stream(&database).await;
    let cursor = &mut cursors[1];
    assert_nothing(&mut reader, cursor).await;
    execute(
        database.pool(),
        "create table onceward.messages_12 partition of onceward.messages for values in (12)",
    )
    .await;
    enqueue_into(&database, 12, "unforeseen").await;
    let ask = CursorRead {
        lane: Lane::Standard,
        cursor: cursor.clone(),
        limit: 10,
        bytes: PLENTY,
    };

    let ended = reader.read(&[ask], &PublishAfter::Visible).await;
    let mut next = LogReader::connect(&log_of(&database)).await.unwrap();
    let rows = shown(read(&mut next, Lane::Standard, cursor, 10).await);

    assert!(
        matches!(ended, Err(LogError::Malformed { .. })),
        "{ended:?}"
    );
    assert_eq!(rows, pairs(&[("k", "unforeseen")]));
}
