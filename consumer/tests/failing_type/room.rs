//! How much may wait, and what runs beside what.

use std::sync::Arc;
use std::time::Duration;

use onceward_consumer::{FailingTypes, HandlerError, HandlerSettings, Limits, Tx};
use onceward_testkit::wait;
use tokio::sync::Semaphore;

use crate::common::{Order, SOON, Stage, effect, quick};
use crate::{
    Dependency, builder, depends, let_wait, pause_by_hand, publish_failing, wait_for_calls,
    wait_for_effects, wait_until_paused,
};

#[tokio::test]
async fn a_consumer_whose_places_are_all_taken_still_tries_a_paused_type() {
    async fn hangs(gate: Arc<Semaphore>, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        gate.acquire().await?.forget();
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    publish_failing(&stage, 20);
    let (dependency, gate) = (Dependency::default(), Arc::new(Semaphore::new(0)));
    let limits = Limits {
        concurrency: 2,
        ..Limits::default()
    };
    let at_once = HandlerSettings {
        defer_after: Duration::ZERO,
        ..quick(1_000)
    };
    let builder = builder(&stage, &dependency).limits(limits);

    let builder = builder.defaults(at_once);
    let running = stage.run(builder.on_with("slow", gate.clone(), hangs));
    stage.wait_for_retries(20).await;
    for order in 100..104 {
        stage.publish_of("slow", order, None);
    }
    wait::until_true(SOON, "no place", || async {
        let busy: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and state = 'idle in transaction'",
        )
        .fetch_one(stage.pool())
        .await
        .unwrap();
        busy >= 2
    })
    .await;
    dependency.up(true);
    wait_for_effects(&stage, 20).await;
    gate.add_permits(4);
    wait_for_effects(&stage, 24).await;
    running.stop().await;

    stage.nothing_waits().await;
}

#[tokio::test]
async fn where_no_more_may_wait_a_partition_is_not_read_and_nothing_is_lost() {
    let stage = Stage::new().await;
    let dependency = Dependency::default();
    let few = FailingTypes {
        deferred: 15,
        probe_every: Duration::from_millis(100),
        ..FailingTypes::default()
    };
    let limits = Limits {
        messages: 20,
        ..Limits::default()
    };
    publish_failing(&stage, 20);

    let builder = builder(&stage, &dependency).failing_types(few);
    let running = stage.run(builder.limits(limits));
    wait::until_true(SOON, "as many as may wait", || async {
        stage.retries().await >= 15
    })
    .await;
    // Long enough for them to be counted.
    let before = dependency.calls();
    wait_for_calls(&dependency, before + 15).await;
    for order in 20..200 {
        stage.publish(order, Some(order % 50));
    }
    // Tries go on, and what came later is neither handled nor deferred.
    let before = dependency.calls();
    wait_for_calls(&dependency, before + 20).await;
    let waiting = stage.retries().await;
    assert!(waiting < 50, "{waiting} wait");

    dependency.up(true);
    wait_for_effects(&stage, 200).await;
    running.stop().await;

    stage.in_order(50).await;
    stage.nothing_waits().await;
    assert!(stage.letters().await.is_empty());
}

#[tokio::test]
async fn with_room_for_none_a_paused_type_is_tried_all_the_same() {
    let stage = Stage::new().await;
    let dependency = Dependency::default();
    let none = FailingTypes {
        deferred: 0,
        probe_every: Duration::from_millis(100),
        ..FailingTypes::default()
    };
    publish_failing(&stage, 60);

    let running = stage.run(builder(&stage, &dependency).failing_types(none));
    wait_until_paused(&stage).await;
    let before = dependency.calls();
    wait_for_calls(&dependency, before + 15).await;
    dependency.up(true);
    wait_for_effects(&stage, 60).await;
    running.stop().await;

    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_paused_type_that_is_no_longer_handled_is_not_held() {
    let stage = Stage::new().await;
    pause_by_hand(&stage, "gone", 3_600).await;
    let none = FailingTypes {
        deferred: 0,
        ..FailingTypes::default()
    };
    let builder = stage.builder().failing_types(none).ignore("gone");
    let running = stage.run(builder.on("*", crate::common::write_effect));

    // The first ones may come before the member has asked how many wait.
    for n in 1..=40 {
        stage.publish_of("gone", n, None);
        stage.settled(usize::try_from(n).unwrap()).await;
    }
    running.stop().await;

    assert!(stage.letters().await.is_empty());
    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_consumer_with_one_handler_tries_a_paused_type_while_all_its_places_are_taken() {
    async fn hangs_if_slow(
        (dependency, gate): (Dependency, Arc<Semaphore>),
        event: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        if event.order >= 100 {
            gate.acquire().await?.forget();
            return effect(event.order, tx).await;
        }
        depends(dependency, event, tx).await
    }
    let stage = Stage::new().await;
    let_wait(&stage, "paused", 20).await;
    pause_by_hand(&stage, "paused", 0).await;
    let (dependency, gate) = (Dependency::default(), Arc::new(Semaphore::new(0)));
    for order in 100..110 {
        stage.publish_of("slow", order, None);
    }
    let often = FailingTypes {
        probe_every: Duration::from_millis(100),
        ..FailingTypes::default()
    };
    let limits = Limits {
        concurrency: 2,
        ..Limits::default()
    };

    let builder = stage.builder().limits(limits).failing_types(often);
    let state = (dependency.clone(), gate.clone());
    let running = stage.run(builder.on_with("*", state, hangs_if_slow));
    wait_for_calls(&dependency, 3).await;
    dependency.up(true);
    wait_for_effects(&stage, 20).await;
    gate.add_permits(10);
    wait_for_effects(&stage, 30).await;
    running.stop().await;

    stage.nothing_waits().await;
}

#[tokio::test]
async fn messages_that_wait_for_their_type_cost_the_looks_for_others_nothing() {
    let stage = Stage::new().await;
    let_wait(&stage, "paused", 20_000).await;
    pause_by_hand(&stage, "paused", 0).await;
    let dependency = Dependency::default();

    let running = stage.run(builder(&stage, &dependency));
    // A look at what is due for each of them, at least.
    wait_for_calls(&dependency, 5).await;
    running.stop().await;
    // A backend tells what it has read when it ends, at the latest.
    stage.pool().close().await;
    let pool = sqlx::PgPool::connect(stage.database.url()).await.unwrap();
    wait::until_true(SOON, "the other backends to end", || async {
        let others: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        others == 0
    })
    .await;

    let read: i64 = sqlx::query_scalar(
        "select (select idx_tup_read from pg_stat_user_indexes where indexrelname = 'held_keys_due')
           + (select seq_tup_read from pg_stat_user_tables where relname = 'held_keys')",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(read < 10_000, "{read} rows were read");
}
