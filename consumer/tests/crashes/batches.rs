//! Batches that die together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use onceward_consumer::{BatchSettings, BatchTx, HandlerError, HandlerSettings};
use onceward_core::{Arrival, MessageId};
use tokio::sync::Semaphore;

use crate::common::scripted::{Member, delivery};
use crate::common::{Order, Running, Stage, quick};
use crate::{DEADLY, Deadly, one_at_a_time, starts, wait_for_no_starts};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_batch_that_killed_its_process_only_the_guilty_message_is_given_up_on() {
    async fn deadly_batch(
        deadly: Deadly,
        events: Vec<Order>,
        tx: &mut BatchTx,
    ) -> Result<(), HandlerError> {
        for event in &events {
            sqlx::query("insert into effects (order_id) values ($1)")
                .bind(event.order)
                .execute(&mut **tx)
                .await?;
        }
        if events.iter().any(|event| event.order == DEADLY) {
            deadly.begun.add_permits(1);
            std::future::pending().await
        }
        Ok(())
    }
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    for order in 1..=5 {
        stage.publish(order, Some(order));
    }
    let deadly = Deadly::new();
    let run = || {
        let builder = stage.builder();
        stage.run(builder.on_batch_with("*", deadly.clone(), deadly_batch))
    };

    deadly.kill(run(), 1).await;
    assert_eq!(starts(&stage).await, 5, "any of them may have been the one");
    for _ in 0..3 {
        deadly.kill(run(), 1).await;
    }
    let last = run();
    stage.settled(5).await;
    last.stop().await;

    let mut effects = stage.effects().await;
    effects.sort_unstable();
    assert_eq!(effects, [2, 3, 4, 5]);
    let reasons: Vec<String> = stage.letters().await.into_iter().map(|one| one.0).collect();
    assert_eq!(reasons, ["crashed"]);
    wait_for_no_starts(&stage).await;
}

#[tokio::test]
async fn a_batch_leaves_no_starts_whether_it_is_handled_or_fails() {
    async fn first_fails(
        calls: Arc<AtomicU32>,
        events: Vec<Order>,
        tx: &mut BatchTx,
    ) -> Result<(), HandlerError> {
        if calls.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err("the first call".into());
        }
        for event in events {
            sqlx::query("insert into effects (order_id) values ($1)")
                .bind(event.order)
                .execute(&mut **tx)
                .await?;
        }
        Ok(())
    }
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    for order in 0..20 {
        stage.publish(order, None);
    }
    let calls = Arc::new(AtomicU32::new(0));

    let running = stage.run(stage.builder().on_batch_with("*", calls, first_fails));
    stage.settled(20).await;
    running.stop().await;

    assert_eq!(stage.effects().await.len(), 20);
    assert_eq!(starts(&stage).await, 0);
}

/// Of a broker that does not tell what it delivers again: so many messages without a key, with the ids that it gave them before.
fn untold(ids: &[MessageId]) -> Vec<Arrival<u64>> {
    let numbered = (0..).zip(ids);
    let arrivals = numbered.map(|(order, id)| {
        let Arrival::Delivery(mut delivery) = delivery(order, None) else {
            unreachable!("it is a delivery")
        };
        let message = delivery.message.as_mut().unwrap();
        (message.id, message.key) = (id.clone(), None);
        Arrival::Delivery(delivery)
    });
    arrivals.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_batches_that_died_together_each_message_is_a_suspect() {
    async fn hangs(
        (begun, dies): (Arc<Semaphore>, bool),
        events: Vec<Order>,
        tx: &mut BatchTx,
    ) -> Result<(), HandlerError> {
        if dies {
            begun.add_permits(1);
            return std::future::pending().await;
        }
        for event in events {
            sqlx::query("insert into effects (order_id) values ($1)")
                .bind(event.order)
                .execute(&mut **tx)
                .await?;
        }
        Ok(())
    }
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    let begun = Arc::new(Semaphore::new(0));
    let ids: Vec<MessageId> = (0..40).map(|_| MessageId::new()).collect();
    let settings = HandlerSettings {
        concurrency: Some(4),
        batch: BatchSettings {
            messages: 10,
            ..BatchSettings::default()
        },
        ..quick(3)
    };
    let run = |dies| {
        let builder = stage.builder().defaults(settings.clone());
        let builder = builder.on_batch_with("*", (begun.clone(), dies), hangs);
        let Member {
            stop, task, script, ..
        } = Member::run(builder);
        script.send(Ok(untold(&ids))).unwrap();
        Running { stop, task }
    };

    let dies = run(true);
    begun.acquire_many(4).await.unwrap().forget();
    dies.kill().await;
    assert_eq!(starts(&stage).await, 40);
    let lives = run(false);
    stage.settled(40).await;
    lives.stop().await;

    assert_eq!(stage.effects().await.len(), 40);
    assert_eq!(starts(&stage).await, 0, "none was handled without a look");
}
