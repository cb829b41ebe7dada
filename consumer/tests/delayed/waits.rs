//! A wait in the database, through restarts, copies and lost marks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use onceward_consumer::{Consumer, HandlerError, Tx};
use onceward_testkit::wait;

use crate::common::{self, Order, SOON, Stage};
use crate::{Failures, LONG, SHORT, builder, deferring};

#[tokio::test]
async fn a_long_wait_moves_the_message_to_the_database_and_the_broker_is_told() {
    let stage = Stage::new().await;
    let id = stage.publish(1, Some(7));
    let failures = Failures::of(&[(1, 1)], LONG);

    let running = stage.run(builder(&stage, &failures));
    stage.wait_for_retries(1).await;
    running.stop().await;

    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    let again = builder(&stage, &failures).build().unwrap();
    let settled = again.run_until_idle(subscriber).await.unwrap();
    assert_eq!(settled, onceward_consumer::Settled::default());
    assert_eq!(stage.outcomes().await, [1]);
    assert!(stage.effects().await.is_empty());
    let row: (uuid::Uuid, String, Option<String>, i32, String, bool) = sqlx::query_as(
        "select r.message_id, r.topic, r.key, r.attempts, r.error, h.due_at > now() + interval '50 min'
         from onceward.retries r
         join onceward.held_keys h using (consumer, line)",
    )
    .fetch_one(stage.pool())
    .await
    .unwrap();
    assert_eq!((row.0, row.3, row.5), (id, 1, true));
    assert_eq!(
        (row.1.as_str(), row.2.as_deref()),
        (common::TOPIC, Some("7"))
    );
    assert!(row.4.contains("asked to wait"), "{}", row.4);
}

#[tokio::test]
async fn attempts_and_their_history_go_on_after_a_restart() {
    async fn counts(seen: Arc<AtomicU32>, _: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        seen.fetch_max(tx.attempt(), Ordering::SeqCst);
        Err(HandlerError::retry_after(SHORT))
    }
    let stage = Stage::new().await;
    stage.publish(1, None);
    let seen = Arc::new(AtomicU32::new(0));
    for attempts in [2, 4] {
        let builder = stage.builder().defaults(deferring(6));
        let running = stage.run(builder.on_with("*", seen.clone(), counts));
        wait::until_true(SOON, "some attempts", || async {
            seen.load(Ordering::SeqCst) >= attempts
        })
        .await;
        running.kill().await;
    }

    let builder = stage.builder().defaults(deferring(6));
    let running = stage.run(builder.on_with("*", seen.clone(), counts));
    wait::until_true(SOON, "a dead letter", || async {
        stage.letters().await.len() == 1
    })
    .await;
    running.stop().await;

    let (reason, _, attempts) = stage.letters().await.remove(0);
    assert_eq!((reason.as_str(), attempts), ("attempts", 6));
    assert_eq!(seen.load(Ordering::SeqCst), 6);
    let told: Vec<i64> = sqlx::query_scalar(
        "select (attempt ->> 'number')::bigint
         from onceward.dead_letters, jsonb_array_elements(history) with ordinality h (attempt, n)
         order by n",
    )
    .fetch_all(stage.pool())
    .await
    .unwrap();
    assert_eq!(told, [1, 2, 3, 4, 5, 6]);
    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_message_without_a_key_holds_nobody_and_is_held_by_nobody() {
    let stage = Stage::new().await;
    let failures = Failures::of(&[(1, 1)], LONG);
    stage.publish(1, None);

    let running = stage.run(builder(&stage, &failures));
    stage.wait_for_retries(1).await;
    stage.publish(2, None);
    stage.settled(2).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [2]);
}

#[tokio::test]
async fn a_copy_of_a_message_that_waits_is_a_duplicate() {
    let stage = Stage::new().await;
    let failures = Failures::of(&[(1, 1)], LONG);
    stage.publish(1, Some(1));
    stage.broker.drop_acks(true);
    let running = stage.run(builder(&stage, &failures));
    stage.wait_for_retries(1).await;
    running.kill().await;
    stage.broker.drop_acks(false);

    let again = stage.run(builder(&stage, &failures));
    stage.publish(2, Some(2));
    stage.settled(2).await;
    again.stop().await;

    assert_eq!(stage.effects().await, [2]);
    assert_eq!(stage.retries().await, 1);
}

#[tokio::test]
async fn a_run_until_idle_handles_what_is_due_and_leaves_what_is_not() {
    let stage = Stage::new().await;
    let failures = Failures::of(&[(1, 2)], SHORT);
    stage.publish(1, Some(1));
    stage.publish(2, Some(2));
    let subscriber = || stage.broker.subscriber("billing", &[common::TOPIC]);

    let consumer: Consumer = builder(&stage, &failures).build().unwrap();
    let settled = consumer.run_until_idle(subscriber()).await.unwrap();
    assert_eq!((settled.handled, settled.deferred), (2, 1));

    let failures = Failures::of(&[(3, 1)], LONG);
    stage.publish(3, Some(3));
    let consumer = builder(&stage, &failures).build().unwrap();
    let settled = consumer.run_until_idle(subscriber()).await.unwrap();
    assert_eq!((settled.handled, settled.deferred), (0, 1));
    assert_eq!(stage.retries().await, 1);
}

#[tokio::test]
async fn a_message_that_waits_and_whose_mark_was_removed_is_a_duplicate_and_no_outage() {
    let stage = Stage::new().await;
    let failures = Failures::of(&[(1, 1), (2, 2)], LONG);
    stage.publish(1, Some(1));
    stage.publish(2, None);
    stage.broker.drop_acks(true);
    let running = stage.run(builder(&stage, &failures));
    stage.wait_for_retries(2).await;
    running.kill().await;
    stage.broker.drop_acks(false);
    sqlx::query("delete from onceward.processed_messages")
        .execute(stage.pool())
        .await
        .unwrap();

    stage.publish(3, Some(3));
    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    let again = builder(&stage, &failures).build().unwrap();
    let settled = again.run_until_idle(subscriber).await.unwrap();

    assert_eq!((settled.duplicates, settled.handled), (2, 1));
    assert_eq!(stage.effects().await, [3]);
    assert_eq!(stage.retries().await, 2);
}
