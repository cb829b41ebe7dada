//! Messages that kill their process: they are found out, and their neighbours are not buried with them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Order, SOON, Stage, effect, quick};
use onceward_consumer::{HandlerError, HandlerSettings, Tx};
use onceward_testkit::wait;
use tokio::sync::Semaphore;

/// Order 1 never ends: the test then ends the process. Others take as long as they are told.
#[derive(Clone)]
struct Deadly {
    begun: Arc<Semaphore>,
    neighbours_wait: Arc<AtomicBool>,
}

async fn deadly(deadly: Deadly, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
    effect(event.order, tx).await?;
    if event.order == 1 || deadly.neighbours_wait.load(Ordering::SeqCst) {
        deadly.begun.add_permits(1);
        std::future::pending().await
    }
    Ok(())
}

impl Deadly {
    fn new() -> Self {
        Self {
            begun: Arc::new(Semaphore::new(0)),
            neighbours_wait: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Runs a consumer until so many handlers hang, and kills it.
    async fn kill_once(&self, stage: &Stage, hang: u32) {
        let running = stage.run(stage.builder().on_with("*", self.clone(), deadly));
        self.begun.acquire_many(hang).await.unwrap().forget();
        running.kill().await;
    }
}

async fn starts(stage: &Stage) -> i64 {
    sqlx::query_scalar("select count(*) from onceward.starts")
        .fetch_one(stage.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_message_that_kills_its_process_is_given_up_on_and_its_neighbours_are_handled() {
    let stage = Stage::new().await;
    for order in 1..=5 {
        stage.publish(order, Some(order));
    }
    let deadly = Deadly::new();
    // All five are in work when the process dies.
    deadly.kill_once(&stage, 5).await;
    assert_eq!(starts(&stage).await, 5);
    deadly.neighbours_wait.store(false, Ordering::SeqCst);

    for _ in 0..3 {
        deadly.kill_once(&stage, 1).await;
    }
    let last = stage.run(stage.builder().on_with("*", deadly.clone(), self::deadly));
    stage.settled(5).await;
    last.stop().await;

    let mut effects = stage.effects().await;
    effects.sort_unstable();
    assert_eq!(effects, [2, 3, 4, 5]);
    let letters = stage.letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].0, "crashed");
    assert_eq!(starts(&stage).await, 0);
}

#[tokio::test]
async fn a_message_that_waits_and_kills_its_process_is_given_up_on_too() {
    async fn dies_later(deadly: Deadly, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if tx.attempt() == 1 {
            return Err(HandlerError::retry_after(Duration::from_millis(10)));
        }
        self::deadly(deadly, event, tx).await
    }
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    stage.publish(2, Some(1));
    let deadly = Deadly::new();
    deadly.neighbours_wait.store(false, Ordering::SeqCst);
    let builder = || {
        let settings = HandlerSettings {
            defer_after: Duration::ZERO,
            ..quick(5)
        };
        let builder = stage.builder().defaults(settings);
        builder.on_with("*", deadly.clone(), dies_later)
    };

    for _ in 0..4 {
        let running = stage.run(builder());
        deadly.begun.acquire().await.unwrap().forget();
        running.kill().await;
    }
    let last = stage.run(builder());
    wait::until_true(SOON, "the follower", || async {
        stage.effects().await == [2]
    })
    .await;
    last.stop().await;

    assert_eq!(stage.letters().await[0].0, "crashed");
    assert_eq!(starts(&stage).await, 0);
    stage.nothing_waits().await;
}

#[tokio::test]
async fn an_attempt_that_fails_or_is_stopped_is_no_crash() {
    async fn fails(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if tx.attempt() < 6 {
            return Err("not yet".into());
        }
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    stage.publish(1, Some(1));

    let running = stage.run(stage.builder().defaults(quick(9)).on("*", fails));
    stage.settled(1).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1]);
    assert_eq!(starts(&stage).await, 0);
}
