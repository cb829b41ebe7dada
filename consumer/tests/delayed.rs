//! Long waits are in the database: durable, in order, and without holding the broker.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{Order, SOON, Stage, effect, quick};
use onceward_consumer::{Consumer, ConsumerBuilder, HandlerError, HandlerSettings, Tx};
use onceward_testkit::wait;

/// Every wait is in the database.
fn deferring(attempts: u32) -> HandlerSettings {
    HandlerSettings {
        defer_after: Duration::ZERO,
        ..quick(attempts)
    }
}

/// What a handler does with the orders of a test: how often each fails, and for how long it then asks to wait.
#[derive(Clone, Default)]
struct Failures {
    left: Arc<HashMap<i64, AtomicU32>>,
    wait: Duration,
}

impl Failures {
    fn of(orders: &[(i64, u32)], wait: Duration) -> Self {
        let left = orders.iter().map(|(order, n)| (*order, AtomicU32::new(*n)));
        Self {
            left: Arc::new(left.collect()),
            wait,
        }
    }
}

async fn fails(failures: Failures, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
    effect(event.order, tx).await?;
    let left = failures.left.get(&event.order);
    let fails = left.is_some_and(|left| {
        left.try_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            .is_ok()
    });
    if fails {
        return Err(HandlerError::retry_after(failures.wait));
    }
    Ok(())
}

fn builder(stage: &Stage, failures: &Failures) -> ConsumerBuilder {
    stage
        .builder()
        .defaults(deferring(10))
        .on_with("*", failures.clone(), fails)
}

const SHORT: Duration = Duration::from_millis(30);
const LONG: Duration = Duration::from_secs(3600);

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
async fn followers_of_a_key_line_up_behind_the_one_that_waits_and_others_go_on() {
    let stage = Stage::new().await;
    let failures = Failures::of(&[(1, 3)], Duration::from_millis(200));
    for order in 1..=5 {
        stage.publish(order, Some(1));
    }
    for order in 6..=8 {
        stage.publish(order, Some(order));
    }

    let running = stage.run(builder(&stage, &failures));
    wait::until_true(SOON, "all effects", || async {
        stage.effects().await.len() == 8
    })
    .await;
    running.stop().await;

    let effects = stage.effects().await;
    let of_key: Vec<i64> = effects.iter().copied().filter(|n| *n <= 5).collect();
    assert_eq!(of_key, [1, 2, 3, 4, 5]);
    assert!(effects.iter().position(|n| *n == 8) < effects.iter().position(|n| *n == 1));
    stage.nothing_waits().await;
    assert_eq!(stage.outcomes().await, [0; 8]);
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
async fn a_dead_letter_at_the_head_of_a_line_lets_the_next_one_go_on() {
    let stage = Stage::new().await;
    let failures = Failures::of(&[(1, 99)], SHORT);
    for order in 1..=3 {
        stage.publish(order, Some(1));
    }

    let builder = builder(&stage, &failures).defaults(deferring(3));
    let running = stage.run(builder);
    wait::until_true(SOON, "the followers", || async {
        stage.effects().await.len() == 2
    })
    .await;
    running.stop().await;

    assert_eq!(stage.effects().await, [2, 3]);
    assert_eq!(stage.letters().await.len(), 1);
    assert_eq!(stage.letters().await[0].2, 3);
    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_handler_that_commits_by_itself_leaves_its_line_as_a_dead_letter() {
    async fn commits(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if event.order > 1 {
            return effect(event.order, tx).await;
        }
        if tx.attempt() == 1 {
            return Err(HandlerError::retry_after(SHORT));
        }
        effect(event.order, tx).await?;
        sqlx::raw_sql("commit").execute(&mut **tx).await?;
        Ok(())
    }
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    stage.publish(2, Some(1));

    let running = stage.run(stage.builder().defaults(deferring(5)).on("*", commits));
    wait::until_true(SOON, "the follower", || async {
        stage.effects().await.contains(&2)
    })
    .await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1, 2]);
    assert_eq!(stage.letters().await[0].0, "transaction_ended");
    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_handler_that_rolls_back_by_itself_loses_nothing_from_its_line() {
    async fn rolls_back(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if tx.attempt() == 1 {
            return Err(HandlerError::retry_after(SHORT));
        }
        sqlx::raw_sql("rollback").execute(&mut **tx).await?;
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    stage.publish(1, Some(1));

    let running = stage.run(stage.builder().defaults(deferring(5)).on("*", rolls_back));
    wait::until_true(SOON, "a dead letter", || async {
        stage.letters().await.len() == 1
    })
    .await;
    running.stop().await;

    assert_eq!(stage.letters().await[0].0, "transaction_ended");
    assert_eq!(stage.outcomes().await, [2]);
    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_swallowed_error_in_a_retry_is_found_out() {
    async fn swallows(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        match tx.attempt() {
            1 => return Err(HandlerError::retry_after(SHORT)),
            2 => drop(sqlx::query("select 1 / 0").execute(&mut **tx).await),
            _ => {}
        }
        Ok(())
    }
    let stage = Stage::new().await;
    stage.publish(1, Some(1));

    let running = stage.run(stage.builder().defaults(deferring(5)).on("*", swallows));
    wait::until_true(SOON, "the effect", || async {
        stage.effects().await == [1]
    })
    .await;
    running.stop().await;

    assert_eq!(stage.outcomes().await, [0]);
    stage.nothing_waits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_that_fail_and_die_keep_each_key_in_order() {
    async fn by_chance(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        if fastrand::u8(..) < 80 {
            return Err(HandlerError::retry_after(Duration::from_millis(
                fastrand::u64(0..40),
            )));
        }
        Ok(())
    }
    let stage = Stage::new().await;
    let keys = 9;
    for order in 0..400 {
        stage.publish(order, Some(order % keys));
    }
    let start = || {
        let builder = stage
            .builder()
            .defaults(deferring(1_000))
            .on("*", by_chance);
        stage.run(builder)
    };

    let mut members = vec![start(), start()];
    for round in 1..=6 {
        wait::until_true(SOON, "some more effects", || async {
            stage.effects().await.len() >= round * 50
        })
        .await;
        members.remove(0).kill().await;
        members.push(start());
    }
    wait::until_true(SOON, "all effects", || async {
        stage.effects().await.len() == 400
    })
    .await;
    for member in members {
        member.stop().await;
    }

    stage.in_order(keys).await;
    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_thousand_followers_of_one_key_are_handled_one_by_one_in_order() {
    let stage = Stage::new().await;
    let failures = Failures::of(&[(0, 2)], SHORT);
    for order in 0..1_000 {
        stage.publish(order, Some(0));
    }

    let running = stage.run(builder(&stage, &failures));
    wait::until_true(SOON, "all effects", || async {
        stage.effects().await.len() == 1_000
    })
    .await;
    running.stop().await;

    stage.in_order(1).await;
    stage.nothing_waits().await;
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

#[tokio::test]
async fn what_waits_in_a_line_follows_one_by_one_without_a_look_for_each() {
    let stage = Stage::new().await;
    let failures = Failures::of(&[(1, 1)], LONG);
    for order in 1..=40 {
        stage.publish(order, Some(1));
    }
    let running = stage.run(builder(&stage, &failures));
    stage.wait_for_retries(40).await;
    sqlx::raw_sql(
        "update onceward.retries set due_at = now();
         update onceward.held_keys set due_at = now();
         create sequence moves;
         create function note() returns trigger language plpgsql as $$ begin perform nextval('moves'); return null; end $$;
         create trigger note after update on onceward.held_keys for each row execute function note()",
    )
    .execute(stage.pool())
    .await
    .unwrap();

    wait::until_true(SOON, "all of the line", || async {
        stage.effects().await.len() == 40
    })
    .await;
    running.stop().await;

    assert_eq!(stage.effects().await, (1..=40).collect::<Vec<_>>());
    let moves: i64 = sqlx::query_scalar("select last_value from moves")
        .fetch_one(stage.pool())
        .await
        .unwrap();
    // One for each that leaves it, and few looks.
    assert!((39..60).contains(&moves), "{moves}");
}
