//! Outages are waited out and cost no attempt; a stop is graceful.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Gate, Order, SOON, Stage, effect, effects_of, pass_the_gate, quick, write_effect};
use onceward_consumer::{
    BatchSettings, BatchTx, ConsumerBuilder, HandlerError, HandlerSettings, Limits, Tx,
};
use onceward_testkit::postgres::{Options, Postgres};
use onceward_testkit::wait;
use tokio::sync::Semaphore;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_crashes_and_comes_back_costs_no_message_an_attempt() {
    crashes(&Semaphore::new(0), |builder| builder.on("*", write_effect)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_crashes_in_the_middle_of_batches_costs_no_message_an_attempt() {
    async fn write_all(
        gate: Arc<Semaphore>,
        events: Vec<Order>,
        tx: &mut BatchTx,
    ) -> Result<(), HandlerError> {
        effects_of(&events, tx).await?;
        gate.acquire().await?.forget();
        Ok(())
    }
    let settings = HandlerSettings {
        concurrency: Some(2),
        batch: BatchSettings {
            messages: 8,
            ..BatchSettings::default()
        },
        ..quick(1)
    };
    let gate = Arc::new(Semaphore::new(0));
    crashes(&gate, |builder| {
        let builder = builder.on_batch_with("*", Arc::clone(&gate), write_all);
        builder.with(settings)
    })
    .await;
}

/// One attempt each: an outage that counted would show as a dead letter. Gives a permit at each look, so that a handler
/// that takes one is in the middle of its work when the server is killed.
async fn crashes(gate: &Semaphore, handled: impl FnOnce(ConsumerBuilder) -> ConsumerBuilder) {
    let postgres = Postgres::start(Options::default()).await;
    let stage = Stage::on(&postgres).await;
    for order in 0..400 {
        stage.publish(order, Some(order % 10));
    }

    let running = stage.run(handled(stage.builder().defaults(quick(1))));
    for done in [50, 150, 250, 400] {
        wait::until_true(SOON, "some more effects", || async {
            gate.add_permits(1);
            let count = sqlx::query_scalar::<_, i64>("select count(*) from effects")
                .fetch_one(stage.pool())
                .await;
            count.is_ok_and(|count| count >= done)
        })
        .await;
        if done < 400 {
            postgres.kill();
            postgres.start_again().await;
        }
    }
    running.stop().await;

    let mut effects = stage.effects().await;
    effects.sort_unstable();
    assert_eq!(effects, (0..400).collect::<Vec<i64>>());
    assert!(
        stage.letters().await.is_empty(),
        "{:?}",
        stage.letters().await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_that_are_ended_cost_no_attempt() {
    let stage = Stage::new().await;
    for order in 0..100 {
        stage.publish(order, None);
    }

    let gate = Arc::new(Gate::new());
    let builder = stage.builder().on_with("*", Arc::clone(&gate), waits);
    let settings = HandlerSettings {
        concurrency: Some(4),
        ..quick(1)
    };
    let running = stage.run(builder.with(settings));
    for done in [20, 40, 60, 80, 100] {
        wait::until_true(SOON, "a backend to end", || async {
            let ended = sqlx::query(
                "select pg_terminate_backend(pid) from pg_stat_activity
                 where datname = current_database() and query like '%in the handler%' and state = 'idle in transaction'
                 limit 1",
            );
            ended.execute(stage.pool()).await.unwrap().rows_affected() == 1
        })
        .await;
        wait::until_true(SOON, "some more effects", || async {
            gate.add_permits(1);
            stage.effects().await.len() >= done
        })
        .await;
    }
    running.stop().await;

    let mut effects = stage.effects().await;
    effects.sort_unstable();
    assert_eq!(effects, (0..100).collect::<Vec<i64>>());
    assert!(stage.letters().await.is_empty());
}

#[tokio::test]
async fn while_a_standby_stalls_nothing_new_is_begun_and_no_commit_is_left_waiting_but_the_first_ones()
 {
    let postgres = Postgres::start(Options::default()).await;
    let stage = Stage::on(&postgres).await;
    // A commit that a deadline cut short would be one that no standby has.
    let settings = HandlerSettings {
        deadline: Duration::from_secs(2),
        ..quick(1)
    };
    let running = stage.run(stage.builder().on("*", write_effect).with(settings));
    stage.publish(0, None);
    stage.settled(1).await;

    commits_wait_for(&stage, "nobody").await;
    stage.publish(1, None);
    // The second probe waits for the commit of the first one, and then the third.
    let second = a_probe_but(&stage, 0).await;
    for order in 2..20 {
        stage.publish(order, None);
    }
    a_probe_but(&stage, second).await;
    let waiting = commits_that_wait(&stage).await;
    commits_wait_for(&stage, "").await;
    stage.settled(20).await;
    running.stop().await;

    assert_eq!(waiting, 2, "a handler's and a probe's");
    let mut effects = stage.effects().await;
    effects.sort_unstable();
    assert_eq!(effects, (0..20).collect::<Vec<i64>>());
    assert!(stage.letters().await.is_empty());
}

/// Has commits wait for a standby of this name; empty: for none.
async fn commits_wait_for(stage: &Stage, standby: &str) {
    let set = format!("alter system set synchronous_standby_names = '{standby}'");
    for statement in [set.as_str(), "select pg_reload_conf()"] {
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(stage.pool())
            .await
            .unwrap();
    }
    wait::until_true(SOON, "the setting", || async {
        let found: String = sqlx::query_scalar("show synchronous_standby_names")
            .fetch_one(stage.pool())
            .await
            .unwrap();
        found == standby
    })
    .await;
}

/// The process of a probe, another one than `before`, that waits for one before it.
async fn a_probe_but(stage: &Stage, before: i32) -> i32 {
    wait::until(SOON, "a probe that waits", || async {
        sqlx::query_scalar(
            "select pid from pg_stat_activity
             where wait_event_type = 'Lock' and query like '%.consumers%' and pid <> $1
             limit 1",
        )
        .bind(before)
        .fetch_optional(stage.pool())
        .await
        .unwrap()
    })
    .await
}

async fn commits_that_wait(stage: &Stage) -> i64 {
    sqlx::query_scalar("select count(*) from pg_stat_activity where wait_event = 'SyncRep'")
        .fetch_one(stage.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_broker_that_stops_and_starts_is_waited_for() {
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    let (running, reads) = stage.run_watched(stage.builder().on("*", write_effect));
    stage.settled(1).await;

    stage.broker.stop();
    wait::until_true(SOON, "two calls that fail", || async {
        reads.failures() >= 2
    })
    .await;
    stage.broker.start();
    stage.publish(2, Some(1));
    stage.settled(2).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1, 2]);
}

async fn waits(gate: Arc<Gate>, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
    effect(event.order, tx).await?;
    pass_the_gate(&gate, tx).await
}

#[tokio::test]
async fn a_stop_lets_what_runs_end_and_starts_nothing_more() {
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    stage.publish(2, Some(1));
    let gate = Arc::new(Gate::new());
    let running = stage.run(stage.builder().on_with("*", gate.clone(), waits));
    gate.has_a_handler().await;

    running.stop.cancel();
    gate.add_permits(2);
    running.stop().await;

    assert_eq!(stage.effects().await, [1]);
    assert_eq!(stage.outcomes().await.len(), 1);
}

#[tokio::test]
async fn at_the_end_of_the_grace_what_runs_is_rolled_back_and_comes_again() {
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    let limits = Limits {
        grace: Duration::from_millis(100),
        ..Limits::default()
    };
    let gate = Arc::new(Gate::new());
    let builder = stage.builder().limits(limits);
    let running = stage.run(builder.on_with("*", gate.clone(), waits));
    gate.has_a_handler().await;

    let began = Instant::now();
    running.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(stage.outcomes().await.is_empty());

    let again = stage.run(stage.builder().on("*", write_effect));
    stage.settled(1).await;
    again.stop().await;
    assert_eq!(stage.effects().await, [1]);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_retries_or_outages() {
    async fn later(_: Order, _: &mut Tx) -> Result<(), HandlerError> {
        Err(HandlerError::retry_after(Duration::from_secs(600)))
    }
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    let running = stage.run(stage.builder().on("*", later));
    wait::until_true(SOON, "an attempt", || async {
        let begun: i64 = sqlx::query_scalar(
            "select xact_rollback from pg_stat_database where datname = current_database()",
        )
        .fetch_one(stage.pool())
        .await
        .unwrap();
        begun > 0
    })
    .await;

    let began = Instant::now();
    running.stop().await;

    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(stage.letters().await.is_empty());
}
