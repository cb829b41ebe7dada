//! The bugs that can be planted show: a check that cannot fail is no check.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

#[path = "log/support.rs"]
#[expect(dead_code, reason = "shared with the larger suite")]
mod support;

use std::time::Duration;

use onceward::faults::{Bug, plant};
use onceward::{Checkpoint, Claiming, Keeper, Lane};
use sqlx::Connection;

use support::{claim, claim_of, connection, enqueue, log_of, migrated, read, stream};

#[tokio::test]
async fn without_late_rows_a_message_is_lost() {
    let database = migrated().await;
    let (mut reader, _keeper, mut cursors) = stream(&database).await;
    let (mut slow, mut quick) = (connection(&database).await, connection(&database).await);
    let mut transaction = slow.begin().await.unwrap();
    enqueue(&mut transaction, "a", "slow").await;
    enqueue(&mut quick, "b", "quick").await;
    plant(Bug::CursorWithoutLateRows, true);

    let mut arrived = read(&mut reader, Lane::Standard, &mut cursors[1], 10)
        .await
        .len();
    transaction.commit().await.unwrap();
    for _ in 0..3 {
        arrived += read(&mut reader, Lane::Standard, &mut cursors[1], 10)
            .await
            .len();
    }

    plant(Bug::CursorWithoutLateRows, false);
    assert_eq!(arrived, 1);
}

#[tokio::test]
async fn without_fencing_an_old_holder_moves_the_cursors_of_the_new_one() {
    let database = migrated().await;
    let short = Duration::from_millis(100);
    let mut old = Keeper::connect(&log_of(&database)).await.unwrap();
    let mut new = Keeper::connect(&log_of(&database)).await.unwrap();
    let claimed = claim(&mut old, &claim_of("events", short)).await;
    while let Claiming::Taken { expires_in, .. } =
        new.claim(&claim_of("events", short)).await.unwrap()
    {
        tokio::time::sleep(expires_in).await;
    }
    let mut ahead = claimed.cursors[1].clone();
    ahead.last = 999;
    let mut checkpoint = Checkpoint::default();
    checkpoint.cursors[1] = Some(ahead);
    plant(Bug::LostFencing, true);

    let accepted = old.checkpoint(&checkpoint).await;

    plant(Bug::LostFencing, false);
    assert!(accepted.is_ok());
    let last: i64 = sqlx::query_scalar("select max(last_seq) from onceward.cursors")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(last, 999);
}
