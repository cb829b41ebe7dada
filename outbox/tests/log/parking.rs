//! Messages that are set aside.

use std::time::Duration;

use onceward::{Checkpoint, Keeper, Lane, LogReader, Park, PausedTopic, Refused};
use onceward_core::ErrorKind;
use onceward_testkit::postgres::Database;
use sqlx::Row;

use crate::support::{claim, claim_of, connection, enqueue, execute, migrated, read, stream};

async fn parked(database: &Database) -> (LogReader, Keeper, [onceward::Cursor; 3]) {
    parked_with(database, "1 MB is the most").await
}

async fn parked_with(
    database: &Database,
    error: &str,
) -> (LogReader, Keeper, [onceward::Cursor; 3]) {
    let (mut reader, mut keeper, mut cursors) = stream(database).await;
    let mut writer = connection(database).await;
    enqueue(&mut writer, "k", "poison").await;
    let row = read(&mut reader, Lane::Standard, &mut cursors[1], 10)
        .await
        .remove(0);
    let park = Park {
        lane: Lane::Standard,
        message: row.into_message(),
        kind: ErrorKind::TooLarge,
        error: error.to_owned(),
    };
    keeper.park(&[park]).await.unwrap();
    (reader, keeper, cursors)
}

async fn state(database: &Database) -> Option<String> {
    sqlx::query_scalar("select state from onceward.parked")
        .fetch_optional(database.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_parked_message_is_kept_whole_and_known_to_whoever_takes_over() {
    let database = migrated().await;
    let (_reader, mut keeper, _) = parked(&database).await;
    keeper.release().await.unwrap();

    let claimed = claim(&mut keeper, &claim_of("events", Duration::from_secs(60))).await;

    assert_eq!(claimed.parked, [1]);
    assert_eq!(claimed.cursors[1].last, 0);
    let row = sqlx::query("select payload, error_kind, error, history from onceward.parked")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(row.get::<Vec<u8>, _>(0), b"poison");
    assert_eq!(row.get::<String, _>(1), "too_large");
    assert_eq!(row.get::<serde_json::Value, _>(3)[0]["what"], "parked");
}

#[tokio::test]
async fn a_message_made_due_is_loaded_with_its_edits_and_marked_when_published() {
    let database = migrated().await;
    let (_reader, mut keeper, _) = parked(&database).await;
    assert!(keeper.due(0, 10).await.unwrap().is_empty());
    execute(
        database.pool(),
        "update onceward.parked set state = 'due', replays = 1, payload = 'cured'",
    )
    .await;

    let due = keeper.due(0, 10).await.unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(&due[0].message.payload[..], b"cured");
    assert_eq!(due[0].run, keeper.due(0, 10).await.unwrap()[0].run);
    keeper.replayed(&due[0], None).await.unwrap();

    assert_eq!(state(&database).await.as_deref(), Some("published"));
    assert!(keeper.due(0, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_replay_that_is_refused_is_parked_again_with_its_reason() {
    let database = migrated().await;
    let (_reader, mut keeper, _) = parked(&database).await;
    execute(
        database.pool(),
        "update onceward.parked set state = 'due', replays = 1",
    )
    .await;
    let due = keeper.due(0, 10).await.unwrap();
    let refused = Refused {
        kind: ErrorKind::Rejected,
        error: "no".to_owned(),
    };

    keeper.replayed(&due[0], Some(&refused)).await.unwrap();

    let row = sqlx::query("select state, error_kind, history from onceward.parked")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(row.get::<String, _>(0), "parked");
    assert_eq!(row.get::<String, _>(1), "rejected");
    assert_eq!(row.get::<serde_json::Value, _>(2)[1]["what"], "refused");
}

#[tokio::test]
async fn what_a_broker_says_is_stored_though_it_holds_a_nul() {
    const SAID: &str = "no\0way";
    let database = migrated().await;

    let (_reader, mut keeper, _) = parked_with(&database, SAID).await;
    let paused = PausedTopic {
        topic: "orders".to_owned(),
        reason: SAID.to_owned(),
        since: time::OffsetDateTime::UNIX_EPOCH,
    };
    keeper.store_paused(&[paused]).await.unwrap();
    execute(
        database.pool(),
        "update onceward.parked set state = 'due', replays = 1",
    )
    .await;
    let due = keeper.due(0, 10).await.unwrap();
    let refused = Refused {
        kind: ErrorKind::Rejected,
        error: SAID.to_owned(),
    };
    keeper.replayed(&due[0], Some(&refused)).await.unwrap();

    let told = "
select p.error, p.history -> 0 ->> 'error', p.history -> 1 ->> 'error', s.paused -> 0 ->> 'reason'
from onceward.parked p, onceward.streams s";
    let row = sqlx::query(told).fetch_one(database.pool()).await.unwrap();
    for column in 0..4 {
        assert_eq!(row.get::<String, _>(column), "no\u{fffd}way", "{column}");
    }
}

#[tokio::test]
async fn a_discard_while_the_replay_was_under_way_stays() {
    let database = migrated().await;
    let (_reader, mut keeper, _) = parked(&database).await;
    execute(
        database.pool(),
        "update onceward.parked set state = 'due', replays = 1",
    )
    .await;
    let due = keeper.due(0, 10).await.unwrap();
    execute(
        database.pool(),
        "update onceward.parked set state = 'discarded'",
    )
    .await;

    keeper.replayed(&due[0], None).await.unwrap();

    assert_eq!(state(&database).await.as_deref(), Some("discarded"));
}

#[tokio::test]
async fn a_row_that_is_done_stays_until_the_stored_cursor_has_passed_it() {
    let database = migrated().await;
    let (_reader, mut keeper, cursors) = parked(&database).await;
    execute(
        database.pool(),
        "update onceward.parked set state = 'published'",
    )
    .await;

    assert_eq!(keeper.sweep_parked(Duration::ZERO).await.unwrap(), 0);

    let mut checkpoint = Checkpoint::default();
    checkpoint.cursors[1] = Some(cursors[1].clone());
    keeper.checkpoint(&checkpoint).await.unwrap();
    assert_eq!(
        keeper
            .sweep_parked(Duration::from_secs(3600))
            .await
            .unwrap(),
        0
    );
    assert_eq!(keeper.sweep_parked(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(state(&database).await, None);
}

#[tokio::test]
async fn a_late_row_that_is_done_stays_although_higher_numbers_are_passed() {
    use sqlx::Connection;

    let database = migrated().await;
    let (mut reader, mut keeper, mut cursors) = stream(&database).await;
    let (mut slow, mut quick) = (connection(&database).await, connection(&database).await);
    let mut transaction = slow.begin().await.unwrap();
    enqueue(&mut transaction, "k", "late").await;
    enqueue(&mut quick, "b", "1").await;
    read(&mut reader, Lane::Standard, &mut cursors[1], 10).await;
    let mut checkpoint = Checkpoint::default();
    checkpoint.cursors[1] = Some(cursors[1].clone());
    keeper.checkpoint(&checkpoint).await.unwrap();
    transaction.commit().await.unwrap();
    let row = read(&mut reader, Lane::Standard, &mut cursors[1], 10)
        .await
        .remove(0);
    let park = Park {
        lane: Lane::Standard,
        message: row.into_message(),
        kind: ErrorKind::Rejected,
        error: String::new(),
    };
    keeper.park(&[park]).await.unwrap();
    execute(
        database.pool(),
        "update onceward.parked set state = 'published'",
    )
    .await;

    assert_eq!(keeper.sweep_parked(Duration::ZERO).await.unwrap(), 0);

    checkpoint.cursors[1] = Some(cursors[1].clone());
    keeper.checkpoint(&checkpoint).await.unwrap();
    assert_eq!(keeper.sweep_parked(Duration::ZERO).await.unwrap(), 1);
}
