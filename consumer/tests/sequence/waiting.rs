//! What waits, and what another member is at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use onceward_consumer::{HandlerError, Settled, Tx};
use onceward_core::{MAX_PAYLOAD, Message, Source};
use onceward_testkit::wait;
use time::OffsetDateTime;
use tokio::sync::Semaphore;

use super::{BEGAN, deferring, message, row};
use crate::common::{Order, SOON, Stage, TOPIC, effect, write_effect};

#[tokio::test]
async fn a_message_that_waits_and_its_followers_are_handled_once_in_order() {
    async fn fails_thrice(
        calls: Arc<AtomicU32>,
        event: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        if event.order == 2 && calls.fetch_add(1, Ordering::SeqCst) < 3 {
            return Err(HandlerError::retry_after(Duration::from_millis(30)));
        }
        Ok(())
    }
    let stage = Stage::new().await;
    (1..=6).for_each(|number| stage.number(number));
    let builder = || {
        let calls = Arc::new(AtomicU32::new(0));
        let builder = stage.by_sequence().defaults(deferring(10));
        builder.on_with("*", calls, fails_thrice)
    };
    stage.broker.drop_acks(true);
    let first = stage.run(builder());
    wait::until_true(SOON, "all effects", || async {
        stage.effects().await.len() == 6
    })
    .await;
    first.kill().await;
    stage.broker.drop_acks(false);

    let settled = stage.settle(builder()).await;

    assert_eq!((settled.duplicates, settled.handled), (6, 0));
    assert_eq!(stage.effects().await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(stage.row().await, row(6, "{}", 6));
    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_copy_of_a_message_that_waits_is_a_duplicate() {
    async fn waits(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        Err(HandlerError::retry_after(Duration::from_secs(3_600)))
    }
    let stage = Stage::new().await;
    (1..=3).for_each(|number| stage.number(number));
    let builder = || stage.by_sequence().defaults(deferring(10)).on("*", waits);
    stage.broker.drop_acks(true);
    let first = stage.run(builder());
    stage.wait_for_retries(3).await;
    first.kill().await;
    stage.broker.drop_acks(false);

    let settled = stage.settle(builder()).await;

    assert_eq!(settled.duplicates, 3);
    assert_eq!(stage.retries().await, 3);
    assert_eq!(stage.outcomes().await, [1; 3]);
}

#[tokio::test]
async fn what_is_rejected_ignored_or_expired_takes_its_number() {
    async fn rejects(_: Order, _: &mut Tx) -> Result<(), HandlerError> {
        Err(HandlerError::reject("no"))
    }
    let stage = Stage::new().await;
    let of_type = |kind: &str, number: i64| {
        let mut sent = message(number, number, number);
        sent.kind = onceward_core::Kind::received(kind);
        sent
    };
    let past = OffsetDateTime::now_utc() - Duration::from_secs(60);
    let expired = Message::json(TOPIC, &serde_json::json!({ "order": 5 })).unwrap();
    let expired = expired.key("k").sequence(5).expires_at(past);
    let mut expired = expired.finish(MAX_PAYLOAD).unwrap().message;
    expired.source = Some(Source::try_from("/shop").unwrap());
    expired.seq = Some(5);
    expired.time = Some(*BEGAN);
    let all = [
        of_type("handled", 1),
        of_type("rejected", 2),
        of_type("ignored", 3),
        of_type("unknown", 4),
        expired,
        of_type("handled", 6),
    ];
    all.iter()
        .chain(&all)
        .for_each(|sent| stage.send(sent.clone()));

    let builder = stage.by_sequence().on("handled", write_effect);
    let builder = builder.on("rejected", rejects).ignore("ignored");
    let settled = stage.settle(builder.on(TOPIC, write_effect)).await;

    let expected = Settled {
        handled: 2,
        dead: 2,
        ignored: 1,
        expired: 1,
        duplicates: 6,
        ..Settled::default()
    };
    assert_eq!(settled, expected);
    assert_eq!(stage.reasons().await, ["rejected", "no_handler"]);
    assert_eq!(stage.row().await, row(6, "{}", 6));
    assert_eq!(stage.marks().await, 3, "of the first and of both letters");
}

#[tokio::test]
async fn of_two_members_with_one_message_the_second_waits_and_finds_it_settled() {
    async fn slow(gate: Arc<Semaphore>, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        if event.order == 2 {
            gate.acquire().await?.forget();
        }
        Ok(())
    }
    let stage = Stage::new().await;
    let (one, two) = (message(1, 1, 1), message(2, 2, 2));
    stage.send(one.clone());
    stage.write_all().await;
    let gate = Arc::new(Semaphore::new(0));
    let builder = || stage.by_sequence().on_with("*", gate.clone(), slow);
    stage.send(two.clone());
    let owner = stage.run(builder());
    wait::until_true(SOON, "the owner at work", || async {
        locks(&stage).await > 0
    })
    .await;

    // The same deliveries, to one who thinks that they are his.
    let other = onceward_memory::MemoryBroker::new();
    other.publish(one).unwrap();
    other.publish(two).unwrap();
    let zombie = builder().build().unwrap();
    let subscriber = other.subscriber("billing", &[TOPIC]);
    let zombie = tokio::spawn(zombie.run_until_idle(subscriber));
    wait::until_true(SOON, "the other to wait", || async {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock' and query like '%key_sequences%'",
        )
        .fetch_one(stage.pool())
        .await
        .unwrap();
        waiting == 1
    })
    .await;
    gate.add_permits(2);

    let settled = zombie.await.unwrap().unwrap();
    owner.stop().await;
    assert_eq!((settled.handled, settled.duplicates), (0, 2));
    assert_eq!(stage.effects().await, [1, 2]);
}

/// How many transactions have written numbers and are not over.
async fn locks(stage: &Stage) -> i64 {
    sqlx::query_scalar(
        "select count(*) from pg_locks l
         where l.relation = 'onceward.key_sequences'::regclass and l.mode = 'RowExclusiveLock'",
    )
    .fetch_one(stage.pool())
    .await
    .unwrap()
}
