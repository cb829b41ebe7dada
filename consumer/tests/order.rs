//! Keys in order, distinct keys side by side, within the limits.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Order, SOON, Stage, effect, quick, write_effect};
use onceward_consumer::{HandlerError, HandlerSettings, Limits, Tx};
use onceward_testkit::wait;
use tokio::sync::{Barrier, Semaphore};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_messages_of_a_key_are_handled_in_order_while_attempts_fail() {
    async fn fails_often(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if fastrand::u8(..) < 64 && tx.attempt() < 5 {
            return Err("by chance".into());
        }
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    let keys = 7;
    for order in 0..300 {
        stage.publish(order, Some(order % keys));
    }

    let builder = stage.builder().on("*", fails_often).with(quick(100));
    let running = stage.run(builder);
    stage.settled(300).await;
    running.stop().await;

    let mut last: HashMap<i64, i64> = HashMap::new();
    let effects = stage.effects().await;
    assert_eq!(effects.len(), 300);
    for order in effects {
        let before = last.insert(order % keys, order);
        assert!(
            before.is_none_or(|before| before < order),
            "{order} came after {before:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeovers_in_the_middle_keep_order_and_effects() {
    let stage = Stage::new().await;
    let keys = 5;
    for order in 0..400 {
        stage.publish(order, Some(order % keys));
    }

    for round in 1..=6 {
        let running = stage.run(stage.builder().on("*", write_effect));
        wait::until_true(SOON, "some more effects", || async {
            stage.effects().await.len() >= round * 50
        })
        .await;
        running.kill().await;
    }
    let running = stage.run(stage.builder().on("*", write_effect));
    stage.settled(400).await;
    running.stop().await;

    let effects = stage.effects().await;
    assert_eq!(effects.len(), 400);
    let mut last: HashMap<i64, i64> = HashMap::new();
    for order in effects {
        let before = last.insert(order % keys, order);
        assert!(
            before.is_none_or(|before| before < order),
            "{order} came after {before:?}"
        );
    }
}

#[tokio::test]
async fn distinct_keys_and_messages_without_a_key_run_side_by_side() {
    async fn meet(all: Arc<Barrier>, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        all.wait().await;
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    for order in 0..3 {
        stage.publish(order, Some(order));
    }
    stage.publish(3, None);
    stage.publish(4, None);

    let running = stage.run(
        stage
            .builder()
            .on_with("*", Arc::new(Barrier::new(5)), meet),
    );
    stage.settled(5).await;
    running.stop().await;

    assert_eq!(stage.effects().await.len(), 5);
}

#[derive(Clone)]
struct Gauge {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

async fn measure(gauge: Gauge, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
    let now = gauge.now.fetch_add(1, Ordering::SeqCst) + 1;
    gauge.most.fetch_max(now, Ordering::SeqCst);
    effect(event.order, tx).await?;
    gauge.now.fetch_sub(1, Ordering::SeqCst);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_run_than_the_consumer_and_the_handler_allow() {
    let gauge = || Gauge {
        now: Arc::default(),
        most: Arc::default(),
    };
    for (of_consumer, of_handler, most) in [(3, None, 3), (8, Some(2), 2)] {
        let stage = Stage::new().await;
        for order in 0..60 {
            stage.publish(order, None);
        }
        let (gauge, settings) = (
            gauge(),
            HandlerSettings {
                concurrency: of_handler,
                ..quick(1)
            },
        );
        let limits = Limits {
            concurrency: of_consumer,
            ..Limits::default()
        };

        let builder = stage.builder().limits(limits);
        let running = stage.run(builder.on_with("*", gauge.clone(), measure).with(settings));
        stage.settled(60).await;
        running.stop().await;

        assert!(gauge.most.load(Ordering::SeqCst) <= most);
    }
}

#[tokio::test]
async fn a_key_that_waits_for_its_retry_does_not_stop_the_others() {
    /// The first one waits for as long as it takes until the other key's have been written.
    async fn one_waits(
        others: Arc<AtomicUsize>,
        event: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        if event.order == 0 && others.load(Ordering::SeqCst) < 5 {
            return Err(HandlerError::retry_after(Duration::from_millis(20)));
        }
        effect(event.order, tx).await?;
        if event.order % 2 == 1 {
            others.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
    let stage = Stage::new().await;
    for order in 0..10 {
        stage.publish(order, Some(order % 2));
    }

    let builder = stage.builder();
    let builder = builder.on_with("*", Arc::new(AtomicUsize::new(0)), one_waits);
    let running = stage.run(builder.with(quick(10_000)));
    stage.settled(10).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1, 3, 5, 7, 9, 0, 2, 4, 6, 8]);
}

#[tokio::test]
async fn a_partition_is_not_read_beyond_the_limits() {
    async fn waits(gate: Arc<Semaphore>, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        gate.acquire().await?.forget();
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    for order in 0..50 {
        stage.publish(order, Some(1));
    }
    let gate = Arc::new(Semaphore::new(0));
    let limits = Limits {
        messages: 8,
        ..Limits::default()
    };

    let builder = stage.builder().limits(limits);
    let (running, reads) = stage.run_watched(builder.on_with("*", gate.clone(), waits));
    wait::until_true(SOON, "the memory to be full", || async {
        reads.deliveries() >= 8
    })
    .await;
    assert_eq!(reads.deliveries(), 8);
    // What was settled makes room for as many, and in the end everything passes.
    for settled in 1..=50 {
        gate.add_permits(1);
        stage.settled(settled).await;
        let read = reads.deliveries();
        assert!(read <= settled + 8, "{read} read, {settled} settled");
    }
    running.stop().await;

    assert_eq!(stage.effects().await, (0..50).collect::<Vec<i64>>());
}
