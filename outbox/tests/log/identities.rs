//! Databases that are not what they were.

use std::time::Duration;

use onceward::{Checkpoint, Keeper, Lane, LogDatabase, LogError, LogReader, Refusal, Schema};
use onceward_testkit::postgres::{Database, Options, Postgres};

use crate::support::{
    claim, claim_of, connection, enqueue, execute, log_of, migrated, read, stream,
};

const LONG: Duration = Duration::from_secs(60);

async fn refusal(database: &Database) -> Refusal {
    let mut keeper = Keeper::connect(&log_of(database)).await.unwrap();
    match keeper.claim(&claim_of("events", LONG)).await {
        Err(LogError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn cursors_of_another_cluster_are_refused() {
    let database = migrated().await;
    let mut keeper = Keeper::connect(&log_of(&database)).await.unwrap();
    claim(&mut keeper, &claim_of("events", LONG)).await;
    keeper.release().await.unwrap();
    execute(
        database.pool(),
        "update onceward.streams set system_identifier = 42",
    )
    .await;

    let refusal = refusal(&database).await;

    assert!(matches!(
        refusal,
        Refusal::AnotherCluster { stored: 42, .. }
    ));
}

#[tokio::test]
async fn a_log_with_transactions_of_the_future_is_refused() {
    let database = migrated().await;
    execute(
        database.pool(),
        "insert into onceward.messages (lane, id, topic, type, payload, txid)
         values (2, gen_random_uuid(), 't', 't', '', '999999999')",
    )
    .await;

    assert_eq!(refusal(&database).await, Refusal::FutureTransactions);
}

#[tokio::test]
async fn a_log_whose_sequence_was_left_behind_is_refused() {
    let database = migrated().await;
    let mut writer = connection(&database).await;
    for _ in 0..5 {
        enqueue(&mut writer, "k", "x").await;
    }
    execute(
        database.pool(),
        "select setval('onceward.messages_seq_seq', 3)",
    )
    .await;

    let refusal = refusal(&database).await;

    assert_eq!(
        refusal,
        Refusal::SequenceBehind {
            sequence: 3,
            highest: 5
        }
    );
}

/// What must never be done to a log, as its numbers are not in order then.
const CHANGES: [&str; 4] = [
    "alter sequence onceward.messages_seq_seq cache 20",
    "alter sequence onceward.messages_seq_seq increment by 2",
    "alter sequence onceward.messages_seq_seq cycle",
    "alter table onceward.messages drop column txid cascade;
     alter table onceward.messages add column txid xid8 not null default pg_current_xact_id();
     create index on onceward.messages (lane, txid, seq)",
];

#[tokio::test]
async fn a_log_that_gives_numbers_out_of_order_is_refused() {
    for change in CHANGES {
        let database = migrated().await;
        execute(database.pool(), change).await;

        let refusal = refusal(&database).await;

        assert_eq!(refusal, Refusal::NumbersOutOfOrder, "{change}");
    }
}

/// A stream that has read three messages, which are gone since, and whoever holds it.
async fn emptied(database: &Database) -> Keeper {
    let (mut reader, mut keeper, [_, mut cursor, _]) = stream(database).await;
    let mut writer = connection(database).await;
    for payload in ["1", "2", "3"] {
        enqueue(&mut writer, "k", payload).await;
    }
    read(&mut reader, Lane::Standard, &mut cursor, 10).await;
    let read = Checkpoint {
        cursors: [None, Some(cursor), None],
        ..Checkpoint::default()
    };
    keeper.checkpoint(&read).await.unwrap();
    execute(database.pool(), "truncate onceward.messages").await;
    keeper
}

const SET_BACK: Refusal = Refusal::SequenceBehind {
    sequence: 2,
    highest: 3,
};

#[tokio::test]
async fn a_sequence_that_was_set_back_below_what_was_read_is_refused_though_the_log_is_empty() {
    let database = migrated().await;
    emptied(&database).await.release().await.unwrap();
    let set_back = "select setval('onceward.messages_seq_seq', 2)";
    execute(database.pool(), set_back).await;

    assert_eq!(refusal(&database).await, SET_BACK);
}

#[tokio::test]
async fn who_holds_a_stream_is_told_of_such_a_change_when_it_renews_its_lease() {
    let mut changes = CHANGES
        .map(|change| (change, Refusal::NumbersOutOfOrder))
        .to_vec();
    changes.push(("select setval('onceward.messages_seq_seq', 2)", SET_BACK));
    for (change, expected) in changes {
        let database = migrated().await;
        let mut keeper = emptied(&database).await;
        keeper.renew().await.unwrap();
        execute(database.pool(), change).await;

        match keeper.renew().await {
            Err(LogError::Refused(refusal)) => assert_eq!(refusal, expected, "{change}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_reader_of_another_server_than_the_keepers_is_refused() {
    let primary = Postgres::start(Options::default()).await;
    let pool = sqlx::PgPool::connect(&primary.url("postgres"))
        .await
        .unwrap();
    onceward_migrations::run(&pool).await.unwrap();
    let standby = primary.standby("reader").await;
    standby.promote().await;
    let [here, there] = [&primary, &standby].map(|server| {
        let url = server.url("postgres").parse().unwrap();
        LogDatabase::new(url, Schema::default())
    });
    let keeper = Keeper::connect(&here).await.unwrap();
    let here = LogReader::connect(&here).await.unwrap();
    let there = LogReader::connect(&there).await.unwrap();

    let error = keeper.check_reader(&there).unwrap_err();

    assert!(matches!(error, LogError::DifferentServers), "{error}");
    keeper.check_reader(&here).unwrap();
}

#[tokio::test]
async fn a_standby_is_refused() {
    let primary = Postgres::start(Options::default()).await;
    let standby = primary.standby("reader").await;
    let log = LogDatabase::new(standby.url("postgres").parse().unwrap(), Schema::default());

    let error = Keeper::connect(&log).await.unwrap_err();

    assert!(matches!(error, LogError::Standby), "{error}");
}
