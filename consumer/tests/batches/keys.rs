//! Order of keys, with others at work on them.

use std::time::Duration;

use onceward_consumer::{BatchSettings, BatchTx, HandlerError, HandlerSettings, Limits};
use onceward_memory::MemoryBroker;
use onceward_testkit::wait;
use uuid::Uuid;

use super::{all_of, sizes, write_all};
use crate::common::{Order, SOON, Stage, quick};

#[tokio::test]
async fn behind_a_key_that_is_held_its_messages_line_up_and_the_rest_of_the_batch_goes_on() {
    async fn waits_once(events: Vec<Order>, tx: &mut BatchTx) -> Result<(), HandlerError> {
        if tx.attempt() == 1 && events.iter().any(|event| event.order == 0) {
            return Err(HandlerError::retry_after(Duration::from_secs(3_600)));
        }
        write_all(events, tx).await
    }
    let stage = Stage::new().await;
    let settings = HandlerSettings {
        defer_after: Duration::ZERO,
        ..quick(3)
    };
    stage.publish(0, Some(0));
    let builder = || {
        stage
            .builder()
            .on_batch("*", waits_once)
            .with(settings.clone())
    };
    all_of(&stage, builder()).await;
    for order in 1..20 {
        stage.publish(order, Some(order % 2));
    }

    let settled = all_of(&stage, builder()).await;

    assert_eq!((settled.handled, settled.deferred), (10, 9));
    assert_eq!(sizes(&stage).await, [10]);
    sqlx::raw_sql(
        "update onceward.retries set due_at = now(); update onceward.held_keys set due_at = now()",
    )
    .execute(stage.pool())
    .await
    .unwrap();
    all_of(&stage, builder()).await;
    stage.nothing_waits().await;
    assert_eq!(stage.sorted_effects().await, (0..20).collect::<Vec<i64>>());
    stage.in_order(2).await;
}

#[tokio::test]
async fn a_message_that_somebody_else_works_on_does_not_hold_up_the_rest_for_long() {
    let stage = Stage::new().await;
    let ids: Vec<Uuid> = (0..10)
        .map(|order| stage.publish(order, Some(order)))
        .collect();
    let mut other = stage.pool().begin().await.unwrap();
    sqlx::query(
        "insert into onceward.processed_messages (slot, consumer, message_id, outcome)
         values (onceward.mark_slot($1), 'billing', $1, 0)",
    )
    .bind(ids[4])
    .execute(&mut *other)
    .await
    .unwrap();

    let running = stage.run(stage.builder().on_batch("*", write_all));
    stage.settled(9).await;
    assert!(!stage.effects().await.contains(&4));
    other.rollback().await.unwrap();
    stage.settled(10).await;
    running.stop().await;

    assert_eq!(stage.sorted_effects().await, (0..10).collect::<Vec<i64>>());
    assert!(stage.letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeovers_and_failures_in_the_middle_of_batches_keep_order_and_effects() {
    async fn fails_often(events: Vec<Order>, tx: &mut BatchTx) -> Result<(), HandlerError> {
        write_all(events, tx).await?;
        if fastrand::u8(..) < 40 {
            return Err("by chance".into());
        }
        Ok(())
    }
    let stage = Stage::new().await;
    let keys = 9;
    for order in 0..600 {
        stage.publish(order, Some(order % keys));
    }
    let settings = || HandlerSettings {
        batch: BatchSettings {
            messages: 20,
            ..BatchSettings::default()
        },
        ..quick(100)
    };
    let limits = || Limits {
        concurrency: 4,
        messages: 150,
        ..Limits::default()
    };
    let builder = || {
        let builder = stage.builder().limits(limits());
        builder.on_batch("*", fails_often).with(settings())
    };

    for round in 1..=6 {
        let running = stage.run(builder());
        wait::until_true(SOON, "some more effects", || async {
            stage.effects().await.len() >= round * 60
        })
        .await;
        running.kill().await;
    }
    all_of(&stage, builder()).await;

    assert_eq!(stage.sorted_effects().await, (0..600).collect::<Vec<i64>>());
    stage.in_order(keys).await;
    assert!(stage.letters().await.is_empty());
}

/// As when one of them does not know yet that it has lost its partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_that_get_the_same_messages_keep_order_and_effects() {
    async fn fails_often(events: Vec<Order>, tx: &mut BatchTx) -> Result<(), HandlerError> {
        write_all(events, tx).await?;
        if fastrand::u8(..) < 50 {
            return Err(HandlerError::retry_after(Duration::from_millis(20)));
        }
        Ok(())
    }
    for defer_after in [Duration::from_secs(5), Duration::ZERO] {
        let (mut stage, keys) = (Stage::new().await, 11);
        for order in 0..400 {
            stage.publish(order, Some(order % keys));
        }
        let copy = MemoryBroker::new();
        for record in stage.broker.stored(crate::common::TOPIC) {
            copy.put(crate::common::TOPIC, record.headers, record.payload)
                .unwrap();
        }
        let settings = HandlerSettings {
            defer_after,
            concurrency: Some(3),
            batch: BatchSettings {
                messages: 16,
                ..BatchSettings::default()
            },
            ..quick(1_000)
        };

        let builder = || stage.builder().on_batch("*", fails_often);
        let (first, second) = (
            builder().with(settings.clone()),
            builder().with(settings.clone()),
        );
        let first = stage.run(first);
        stage.broker = copy;
        let second = stage.run(second);
        wait::until_true(SOON, "all effects", || async {
            stage.effects().await.len() >= 400
        })
        .await;
        wait::until_true(SOON, "nothing to wait", || async {
            stage.retries().await == 0
        })
        .await;
        first.stop().await;
        second.stop().await;

        assert_eq!(stage.sorted_effects().await, (0..400).collect::<Vec<i64>>());
        stage.in_order(keys).await;
        stage.nothing_waits().await;
        assert!(stage.letters().await.is_empty());
    }
}
