//! The guilty message alone pays.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onceward_consumer::{BatchTx, HandlerError, HandlerSettings};
use onceward_core::{MAX_PAYLOAD, Message, MessageId};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{all_of, write_all};
use crate::common::{Order, Stage, quick};

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
async fn copies_of_a_message_that_fails_take_no_other_batch_with_them() {
    static FAILED_TOGETHER: AtomicUsize = AtomicUsize::new(0);
    async fn counted(events: Vec<Order>, tx: &mut BatchTx) -> Result<(), HandlerError> {
        let together = events.len() > 1;
        let ran = fails_13(events, tx).await;
        if together && ran.is_err() {
            FAILED_TOGETHER.fetch_add(1, Ordering::Relaxed);
        }
        ran
    }
    let stage = Stage::new().await;
    let id = Uuid::now_v7();
    for _ in 0..3 {
        stage.publish_with(13, |message| message.id = MessageId::Uuid(id));
    }
    for order in 20..60 {
        stage.publish(order, None);
    }

    let settled = all_of(&stage, stage.builder().on_batch("*", counted)).await;

    assert_eq!(
        (settled.handled, settled.dead, settled.duplicates),
        (40, 1, 2)
    );
    assert_eq!(FAILED_TOGETHER.load(Ordering::Relaxed), 1);
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
    for (end, effects) in [
        ("commit", 6),
        ("commit; begin", 6),
        ("rollback", 0),
        ("rollback; begin", 0),
        // In a transaction of its own, which is not kept.
        (
            "commit; begin; insert into effects (order_id) values (9)",
            6,
        ),
        (
            "rollback; begin; insert into effects (order_id) values (9)",
            0,
        ),
    ] {
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
        deadline: Duration::from_secs(3),
        ..quick(1)
    };

    let builder = stage.builder().on_batch("*", sleeps).with(settings);
    let settled = all_of(&stage, builder).await;

    assert_eq!((settled.handled, settled.dead), (5, 1));
    assert_eq!(stage.sorted_effects().await, [0, 1, 2, 4, 5]);
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
