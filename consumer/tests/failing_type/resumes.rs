//! A type that is handled again: what has waited for it, and what others wait for meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use onceward_consumer::{FailingTypes, HandlerError, HandlerSettings, Limits, Tx};
use onceward_testkit::wait;

use crate::common::{Order, SOON, Stage, effect, quick};
use crate::{
    Dependency, builder, let_wait, lines_that_wait, pause_by_hand, paused, publish_failing,
    wait_for_effects, wait_until_forgotten, wait_until_paused,
};

#[tokio::test]
async fn a_message_that_is_deferred_while_its_type_is_resumed_is_due_at_once() {
    let stage = Stage::new().await;
    publish_failing(&stage, 12);
    let dependency = Dependency::default();
    let running = stage.run(builder(&stage, &dependency));
    wait_until_paused(&stage).await;
    running.stop().await;
    dependency.up(true);
    // This member knows of no pause yet; and the other one, which does, will be told of its end too late.
    let mut resumes = stage.pool().begin().await.unwrap();
    sqlx::query("update onceward.paused_types set resumed_at = now()")
        .execute(&mut *resumes)
        .await
        .unwrap();

    let running = stage.run(builder(&stage, &dependency));
    let published = AtomicU32::new(12);
    wait::until_true(SOON, "one to be deferred", || async {
        let order = published.fetch_add(1, Ordering::SeqCst);
        stage.publish(order.into(), Some(order.into()));
        stage.retries().await > 12
    })
    .await;
    resumes.commit().await.unwrap();
    let published = usize::try_from(published.into_inner()).unwrap();
    wait_for_effects(&stage, published).await;
    wait_until_forgotten(&stage).await;
    running.stop().await;

    stage.nothing_waits().await;
}

#[tokio::test]
async fn while_much_is_made_due_messages_of_other_types_are_not_kept_waiting() {
    async fn hangs(_: Order, _: &mut Tx) -> Result<(), HandlerError> {
        std::future::pending().await
    }
    async fn waits_once(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if tx.attempt() == 1 {
            return Err(HandlerError::retry_after(Duration::from_millis(1)));
        }
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    let_wait(&stage, "hangs", 5_000).await;
    pause_by_hand(&stage, "hangs", 0).await;
    sqlx::query("update onceward.paused_types set resumed_at = now()")
        .execute(stage.pool())
        .await
        .unwrap();
    let at_once = HandlerSettings {
        defer_after: Duration::ZERO,
        ..quick(100)
    };
    let one = HandlerSettings {
        concurrency: Some(1),
        ..quick(100)
    };
    let limits = Limits {
        grace: Duration::ZERO,
        ..Limits::default()
    };

    let builder = stage.builder().defaults(at_once).limits(limits);
    let running = stage.run(builder.on("hangs", hangs).with(one).on("works", waits_once));
    wait::until_true(SOON, "as many to be due as may", || async {
        lines_that_wait(&stage).await <= 4_000
    })
    .await;
    for order in 1..=20 {
        stage.publish_of("works", order, Some(order));
    }
    wait_for_effects(&stage, 20).await;
    let waiting = lines_that_wait(&stage).await;
    running.stop().await;

    // So many, and a few with each look.
    assert!(waiting > 3_000, "{waiting} wait");
}

#[tokio::test]
async fn a_type_that_is_resumed_too_soon_costs_few_attempts_until_it_is_paused_again() {
    /// Works once, when it is told to.
    async fn works_once(
        works: Arc<AtomicBool>,
        event: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        if works.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        Err("the dependency is down".into())
    }
    async fn attempts(stage: &Stage) -> HashMap<i64, i32> {
        sqlx::query_as("select id, attempts from onceward.retries")
            .fetch_all(stage.pool())
            .await
            .unwrap()
            .into_iter()
            .collect()
    }
    let stage = Stage::new().await;
    publish_failing(&stage, 60);
    let works = Arc::new(AtomicBool::new(false));
    let often = FailingTypes {
        probe_every: Duration::from_millis(100),
        ..FailingTypes::default()
    };
    let limits = Limits {
        concurrency: 1,
        ..Limits::default()
    };
    let at_once = HandlerSettings {
        defer_after: Duration::ZERO,
        ..quick(100)
    };
    let builder = stage.builder().defaults(at_once).limits(limits);
    let builder = builder.failing_types(often);

    let running = stage.run(builder.on_with("*", works.clone(), works_once));
    stage.wait_for_retries(60).await;
    wait::until_true(SOON, "all to wait for their type", || async {
        lines_that_wait(&stage).await >= 58
    })
    .await;
    let before = attempts(&stage).await;
    works.store(true, Ordering::SeqCst);
    wait_for_effects(&stage, 1).await;
    wait::until_true(SOON, "the type to be resumed", || async {
        paused(&stage).await.is_empty()
    })
    .await;
    wait_until_paused(&stage).await;
    running.stop().await;

    // Of those that still wait: the row of the one that was handled is gone, with as many attempts as it was tried in vain.
    let after = attempts(&stage).await;
    let cost: i32 = after.iter().map(|(id, now)| now - before[id]).sum();
    // Four that pause it again, and what runs beside them.
    assert!((3..=6).contains(&cost), "{cost} attempts");
}
