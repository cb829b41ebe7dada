//! A type of which most messages fail is paused; one is tried now and then.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use common::{Order, SOON, Stage, effect, quick};
use onceward_consumer::{HandlerError, Tx};
use onceward_testkit::wait;

#[derive(Clone, Default)]
struct Dependency {
    up: Arc<AtomicBool>,
    calls: Arc<AtomicU32>,
}

async fn depends(on: Dependency, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
    on.calls.fetch_add(1, Ordering::SeqCst);
    if !on.up.load(Ordering::SeqCst) {
        return Err("the dependency is down".into());
    }
    effect(event.order, tx).await
}

async fn paused(stage: &Stage) -> Vec<String> {
    sqlx::query_scalar("select type from onceward.paused_types")
        .fetch_all(stage.pool())
        .await
        .unwrap()
}

/// Makes the next try due, as time would.
async fn let_time_pass(stage: &Stage) {
    sqlx::query("update onceward.paused_types set probe_at = now()")
        .execute(stage.pool())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_dead_dependency_costs_a_few_attempts_and_no_dead_letters() {
    let stage = Stage::new().await;
    for order in 0..200 {
        stage.publish(order, Some(order % 50));
    }
    let dependency = Dependency::default();
    let builder = || {
        let builder = stage.builder().defaults(quick(100));
        builder.on_with("*", dependency.clone(), depends)
    };

    let members = [stage.run(builder()), stage.run(builder())];
    stage.wait_for_retries(200).await;
    assert_eq!(paused(&stage).await, [common::TOPIC]);
    let before = dependency.calls.load(Ordering::SeqCst);
    assert!(before < 200, "{before} calls");
    for tries in 1..=3 {
        let_time_pass(&stage).await;
        wait::until_true(SOON, "one to be tried", || async {
            dependency.calls.load(Ordering::SeqCst) >= before + tries
        })
        .await;
    }
    assert_eq!(stage.retries().await, 200);
    assert!(stage.letters().await.is_empty());

    dependency.up.store(true, Ordering::SeqCst);
    let_time_pass(&stage).await;
    wait::until_true(SOON, "all effects", || async {
        stage.effects().await.len() == 200
    })
    .await;
    for member in members {
        member.stop().await;
    }

    assert!(paused(&stage).await.is_empty());
    stage.in_order(50).await;
    stage.nothing_waits().await;
}
