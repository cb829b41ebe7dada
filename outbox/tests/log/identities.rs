//! Databases that are not what they were.

use std::time::Duration;

use onceward::{Keeper, LogError, Refusal};

use crate::support::{claim, claim_of, connection, enqueue, execute, log_of, migrated};

const LONG: Duration = Duration::from_secs(60);

async fn refusal(database: &onceward_testkit::postgres::Database) -> Refusal {
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

#[tokio::test]
async fn a_log_that_gives_numbers_out_of_order_is_refused() {
    for change in [
        "alter sequence onceward.messages_seq_seq cache 20",
        "alter sequence onceward.messages_seq_seq increment by 2",
        "alter sequence onceward.messages_seq_seq cycle",
        "alter table onceward.messages drop column txid cascade;
         alter table onceward.messages add column txid xid8 not null default pg_current_xact_id();
         create index on onceward.messages (lane, txid, seq)",
    ] {
        let database = migrated().await;
        execute(database.pool(), change).await;

        assert_eq!(
            refusal(&database).await,
            Refusal::NumbersOutOfOrder,
            "{change}"
        );
    }
}

#[tokio::test]
async fn a_standby_is_refused() {
    use onceward_testkit::postgres::{Options, Postgres};

    let primary = Postgres::start(Options::default()).await;
    let standby = primary.standby("reader").await;
    let log = onceward::LogDatabase::new(
        standby.url("postgres").parse().unwrap(),
        onceward::Schema::default(),
    );

    let error = Keeper::connect(&log).await.unwrap_err();

    assert!(matches!(error, LogError::Standby), "{error}");
}
