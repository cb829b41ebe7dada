//! Several messages in one transaction: once, in order, and the guilty one alone pays.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::time::Duration;

use common::{Order, SOON, Stage, quick};
use onceward_consumer::{BatchSettings, BatchTx, HandlerError, HandlerSettings, Limits, Settled};
use onceward_core::{MAX_PAYLOAD, Message, MessageId};
use onceward_memory::MemoryBroker;
use onceward_testkit::wait;
use time::OffsetDateTime;
use uuid::Uuid;

async fn write_all(events: Vec<Order>, tx: &mut BatchTx) -> Result<(), HandlerError> {
    assert_eq!(events.len(), tx.messages().len());
    let orders: Vec<i64> = events.iter().map(|event| event.order).collect();
    let keys = tx.idempotency_keys().to_vec();
    sqlx::query(
        "insert into effects (order_id, message) select * from unnest($1::bigint[], $2::uuid[])",
    )
    .bind(orders)
    .bind(keys)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// How many messages each transaction has handled, in the order of the transactions.
async fn sizes(stage: &Stage) -> Vec<i64> {
    sqlx::query_scalar("select count(*) from effects group by xmin order by min(n)")
        .fetch_all(stage.pool())
        .await
        .unwrap()
}

async fn all_of(stage: &Stage, builder: onceward_consumer::ConsumerBuilder) -> Settled {
    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    let consumer = builder.build().unwrap();
    let settled = consumer.run_until_idle(subscriber);
    tokio::time::timeout(SOON, settled).await.unwrap().unwrap()
}

fn of(batch: BatchSettings) -> HandlerSettings {
    HandlerSettings { batch, ..quick(3) }
}

impl Stage {
    fn publish_with(&self, order: i64, change: impl FnOnce(&mut Message)) {
        let event = serde_json::json!({ "order": order });
        let draft = Message::json(common::TOPIC, &event).unwrap();
        let mut message = draft.key(order).finish(MAX_PAYLOAD).unwrap().message;
        message.seq = Some(order + 1);
        change(&mut message);
        self.broker.publish(message).unwrap();
    }

    async fn sorted_effects(&self) -> Vec<i64> {
        let mut effects = self.effects().await;
        effects.sort_unstable();
        effects
    }
}

#[tokio::test]
async fn what_is_there_is_handled_in_one_transaction_and_each_message_is_marked() {
    let stage = Stage::new().await;
    for order in 0..50 {
        stage.publish(order, Some(order % 7));
    }
    stage.publish(50, None);

    let settled = all_of(&stage, stage.builder().on_batch("orders.*", write_all)).await;

    assert_eq!(settled.handled, 51);
    assert_eq!(sizes(&stage).await, [51]);
    assert_eq!(stage.outcomes().await, vec![0; 51]);
    stage.in_order(7).await;
    let same: i64 = sqlx::query_scalar(
        "select count(*) from effects e
         join onceward.processed_messages p on p.message_id = e.message and p.xmin = e.xmin",
    )
    .fetch_one(stage.pool())
    .await
    .unwrap();
    assert_eq!(same, 51, "each effect with the mark of its own message");
}

#[tokio::test]
async fn a_batch_keeps_its_limits_of_messages_and_of_bytes() {
    for (settings, most) in [
        (
            BatchSettings {
                messages: 8,
                ..BatchSettings::default()
            },
            8,
        ),
        (
            BatchSettings {
                bytes: 1,
                ..BatchSettings::default()
            },
            1,
        ),
    ] {
        let stage = Stage::new().await;
        for order in 0..20 {
            stage.publish(order, Some(order % 3));
        }

        let builder = stage.builder().on_batch("*", write_all);
        all_of(&stage, builder.with(of(settings))).await;

        let sizes = sizes(&stage).await;
        assert_eq!(sizes.iter().sum::<i64>(), 20);
        assert!(sizes.iter().all(|size| *size <= most), "{sizes:?}");
        stage.in_order(3).await;
    }
}

#[tokio::test]
async fn a_batch_waits_for_more_until_it_is_full() {
    let stage = Stage::new().await;
    let settings = BatchSettings {
        messages: 5,
        wait: Duration::from_secs(60),
        ..BatchSettings::default()
    };
    let builder = stage.builder().on_batch("*", write_all);
    let running = stage.run(builder.with(of(settings)));
    for order in 0..5 {
        stage.publish(order, Some(order % 2));
        tokio::task::yield_now().await;
    }
    stage.settled(5).await;
    assert_eq!(sizes(&stage).await, [5]);

    running.stop().await;

    assert_eq!(stage.sorted_effects().await, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_batch_that_is_not_full_starts_when_its_wait_is_over() {
    let stage = Stage::new().await;
    let settings = BatchSettings {
        wait: Duration::from_millis(300),
        ..BatchSettings::default()
    };
    for order in 0..3 {
        stage.publish(order, None);
    }

    let builder = stage.builder().on_batch("*", write_all);
    let settled = all_of(&stage, builder.with(of(settings))).await;

    assert_eq!(settled.handled, 3);
    assert_eq!(sizes(&stage).await, [3]);
}

/// Fails whenever one of these is in the batch.
async fn fails_13(events: Vec<Order>, tx: &mut BatchTx) -> Result<(), HandlerError> {
    let guilty = events.iter().any(|event| event.order == 13);
    write_all(events, tx).await?;
    if guilty {
        return Err("there is a 13".into());
    }
    Ok(())
}

#[tokio::test]
async fn when_one_message_fails_it_alone_is_retried_and_given_up() {
    let stage = Stage::new().await;
    for order in 0..40 {
        stage.publish(order, Some(order % 4));
    }

    let settled = all_of(&stage, stage.builder().on_batch("*", fails_13)).await;

    assert_eq!((settled.handled, settled.dead), (39, 1));
    let letters = stage.letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].0.as_str(), letters[0].2), ("attempts", 3));
    let expected: Vec<i64> = (0..40).filter(|order| *order != 13).collect();
    assert_eq!(stage.sorted_effects().await, expected);
    stage.in_order(4).await;
}

#[tokio::test]
async fn each_message_of_a_batch_becomes_what_it_would_become_alone() {
    async fn some(events: Vec<Order>, tx: &mut BatchTx) -> Result<(), HandlerError> {
        if events.iter().any(|event| event.order == 5) {
            return Err(HandlerError::reject("five"));
        }
        write_all(events, tx).await
    }
    let stage = Stage::new().await;
    let past = OffsetDateTime::now_utc() - Duration::from_secs(60);
    for order in 0..8 {
        stage.publish_with(order, |message| match order {
            2 => message.payload = "no json".into(),
            3 => {
                let draft = Message::bytes("t", "").expires_at(past);
                message.headers = draft.finish(MAX_PAYLOAD).unwrap().message.headers;
            }
            6 => message.kind = onceward_core::Kind::received("unknown"),
            7 => message.kind = onceward_core::Kind::received("noise"),
            _ => {}
        });
    }

    let builder = stage.builder().on_batch("orders.*", some).ignore("noise");
    let settled = all_of(&stage, builder).await;

    assert_eq!(stage.sorted_effects().await, [0, 1, 4]);
    assert_eq!(
        (
            settled.handled,
            settled.dead,
            settled.expired,
            settled.ignored
        ),
        (3, 3, 1, 1)
    );
    let mut reasons: Vec<String> = stage.letters().await.into_iter().map(|one| one.0).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["no_handler", "payload", "rejected"]);
}

#[tokio::test]
async fn copies_in_one_batch_take_effect_once_and_another_message_with_their_id_is_a_dead_letter() {
    let stage = Stage::new().await;
    let id = Uuid::now_v7();
    for order in [1, 1, 2, 2, 1] {
        stage.publish_with(order, |message| message.id = MessageId::Uuid(id));
    }
    for order in 10..20 {
        stage.publish(order, Some(order));
    }

    let settled = all_of(&stage, stage.builder().on_batch("*", write_all)).await;

    assert_eq!(
        (settled.handled, settled.dead, settled.duplicates),
        (11, 1, 3)
    );
    assert_eq!(stage.letters().await[0].0, "id_conflict");
    assert_eq!(stage.effects().await.len(), 11);
}

#[tokio::test]
async fn what_was_settled_is_dropped_from_its_batch() {
    let stage = Stage::new().await;
    let id = Uuid::now_v7();
    stage.publish_with(0, |message| message.id = MessageId::Uuid(id));
    for order in 1..20 {
        stage.publish(order, Some(order % 3));
    }
    stage.broker.drop_acks(true);
    let first = stage.run(stage.builder().on_batch("*", write_all));
    stage.settled(20).await;
    first.kill().await;

    stage.broker.drop_acks(false);
    for order in 20..30 {
        stage.publish(order, Some(order % 3));
    }
    stage.publish_with(99, |message| message.id = MessageId::Uuid(id));
    let settled = all_of(&stage, stage.builder().on_batch("*", write_all)).await;

    assert_eq!(
        (settled.handled, settled.duplicates, settled.dead),
        (10, 20, 1)
    );
    assert_eq!(stage.sorted_effects().await, (0..30).collect::<Vec<i64>>());
}

#[tokio::test]
async fn a_swallowed_database_error_in_a_batch_is_found_out_before_the_ack() {
    async fn swallows(events: Vec<Order>, tx: &mut BatchTx) -> Result<(), HandlerError> {
        let guilty = events.iter().any(|event| event.order == 3);
        write_all(events, tx).await?;
        if guilty {
            drop(sqlx::query("select 1 / 0").execute(&mut **tx).await);
        }
        Ok(())
    }
    let stage = Stage::new().await;
    for order in 0..6 {
        stage.publish(order, Some(order));
    }

    let settled = all_of(&stage, stage.builder().on_batch("*", swallows)).await;

    assert_eq!((settled.handled, settled.dead), (5, 1));
    assert_eq!(stage.sorted_effects().await, [0, 1, 2, 4, 5]);
    assert!(stage.letters().await[0].1.contains("went on"));
}

#[tokio::test]
async fn a_batch_whose_transaction_the_handler_ends_is_given_up_and_never_run_again() {
    for (end, effects) in [("commit", 6), ("rollback", 0)] {
        let stage = Stage::new().await;
        for order in 0..6 {
            stage.publish(order, Some(order));
        }
        let ends = async |end: &'static str, events: Vec<Order>, tx: &mut BatchTx| {
            write_all(events, tx).await?;
            sqlx::raw_sql(end).execute(&mut **tx).await?;
            Ok(())
        };

        let builder = stage.builder().on_batch_with("*", end, ends);
        let settled = all_of(&stage, builder).await;

        assert_eq!((settled.handled, settled.dead), (0, 6), "{end}");
        assert_eq!(stage.outcomes().await, vec![2; 6]);
        assert_eq!(stage.effects().await.len(), effects);
        let letters = stage.letters().await;
        assert!(letters.iter().all(|one| one.0 == "transaction_ended"));
    }
}

#[tokio::test]
async fn a_batch_that_does_not_end_is_ended_on_the_server_and_the_guilty_message_found() {
    async fn sleeps(events: Vec<Order>, tx: &mut BatchTx) -> Result<(), HandlerError> {
        let guilty = events.iter().any(|event| event.order == 3);
        write_all(events, tx).await?;
        if guilty {
            sqlx::query("select pg_sleep(60)")
                .execute(&mut **tx)
                .await?;
        }
        Ok(())
    }
    let stage = Stage::new().await;
    for order in 0..6 {
        stage.publish(order, Some(order));
    }
    let settings = HandlerSettings {
        deadline: Duration::from_millis(300),
        ..quick(1)
    };

    let builder = stage.builder().on_batch("*", sleeps).with(settings);
    let settled = all_of(&stage, builder).await;

    assert_eq!((settled.handled, settled.dead), (5, 1));
    assert_eq!(stage.sorted_effects().await, [0, 1, 2, 4, 5]);
}

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

/// An event whose reading panics.
struct Fragile(i64);

impl<'de> serde::Deserialize<'de> for Fragile {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let event = Order::deserialize(deserializer)?;
        assert_ne!(event.order, 3, "three");
        Ok(Self(event.order))
    }
}

#[tokio::test]
async fn a_panic_anywhere_in_a_handler_of_batches_fails_its_message_alone() {
    async fn panics(events: Vec<Fragile>, tx: &mut BatchTx) -> Result<(), HandlerError> {
        assert!(!events.iter().any(|event| event.0 == 4), "four");
        let events = events.into_iter().map(|event| Order { order: event.0 });
        write_all(events.collect(), tx).await
    }
    let stage = Stage::new().await;
    for order in 0..6 {
        stage.publish(order, Some(order));
    }

    let settled = all_of(&stage, stage.builder().on_batch("*", panics)).await;

    assert_eq!((settled.handled, settled.dead), (4, 2));
    assert_eq!(stage.sorted_effects().await, [0, 1, 2, 5]);
    let letters = stage.letters().await;
    assert!(letters.iter().all(|one| one.1.contains("panicked")));
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
        for record in stage.broker.stored(common::TOPIC) {
            copy.put(common::TOPIC, record.headers, record.payload)
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

#[tokio::test]
async fn settings_of_batches_that_make_no_sense_are_refused() {
    let stage = Stage::new().await;
    let settings = of(BatchSettings {
        messages: 0,
        ..BatchSettings::default()
    });

    let built = stage.builder().on_batch("*", write_all).with(settings);

    assert!(built.build().unwrap_err().to_string().contains("batch"));
}
