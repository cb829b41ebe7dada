//! The network between consumer and database breaks at the worst moments.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{
    Gate, Order, SOON, Stage, effect, effects_of, pass_the_gate, quick, through_proxy, write_effect,
};
use onceward_consumer::{BatchTx, HandlerError, HandlerSettings, Tx};
use onceward_testkit::wait;
use sqlx::{Postgres, Transaction};

/// Holds up each COMMIT that has written an effect, so that something can happen while it runs.
struct Held(Transaction<'static, Postgres>);

impl Held {
    async fn commits_of(stage: &Stage) -> Self {
        let setup = "create function wait_to_go_on() returns trigger language plpgsql as $$
            begin perform pg_advisory_xact_lock_shared(1); return null; end $$;
            create constraint trigger at_commit after insert on effects
            deferrable initially deferred for each row execute function wait_to_go_on()";
        sqlx::raw_sql(setup).execute(stage.pool()).await.unwrap();
        let mut holder = stage.pool().begin().await.unwrap();
        sqlx::raw_sql("select pg_advisory_xact_lock(1)")
            .execute(&mut *holder)
            .await
            .unwrap();
        Self(holder)
    }

    /// Waits until a COMMIT is held up.
    async fn one(&self, stage: &Stage) {
        wait::until_true(SOON, "a COMMIT that is held up", || async {
            let waits =
                "select exists (select from pg_locks where locktype = 'advisory' and not granted
                and database = (select oid from pg_database where datname = current_database()))";
            sqlx::query_scalar(waits)
                .fetch_one(stage.pool())
                .await
                .unwrap()
        })
        .await;
    }

    async fn let_go(self) {
        self.0.rollback().await.unwrap();
    }
}

/// Waits for a permit, and then asks the database once more.
async fn asks_after(gate: &Gate, tx: &mut Tx) -> Result<(), HandlerError> {
    pass_the_gate(gate, tx).await?;
    sqlx::query("select 'still in it'")
        .execute(&mut **tx)
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_connection_breaks_at_commit_the_mark_tells() {
    let stage = Stage::new().await;
    let held = Held::commits_of(&stage).await;
    let (mut proxy, pool) = through_proxy(&stage).await;
    stage.publish(1, Some(1));

    let builder = stage.builder().pool(pool).on("*", write_effect);
    let running = stage.run(builder.with(quick(1)));
    held.one(&stage).await;
    proxy.cut().await;
    held.let_go().await;
    stage.settled(1).await;
    proxy.heal().await;
    stage.publish(2, Some(1));
    stage.settled(2).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1, 2]);
    assert!(stage.letters().await.is_empty());
}

async fn write_all(events: Vec<Order>, tx: &mut BatchTx) -> Result<(), HandlerError> {
    effects_of(&events, tx).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_answer_to_the_commit_of_a_batch_is_lost_its_marks_tell() {
    for silent in [false, true] {
        let stage = Stage::new().await;
        let (mut proxy, pool) = through_proxy(&stage).await;
        for order in 0..2 {
            stage.publish(order, Some(order));
        }
        let held = Held::commits_of(&stage).await;

        let builder = stage.builder().pool(pool).on_batch("*", write_all);
        let running = stage.run(builder.with(quick(1)));
        held.one(&stage).await;
        if silent {
            proxy.swallow_answers();
            held.let_go().await;
            wait::until_true(SOON, "the effects", || async {
                stage.effects().await.len() == 2
            })
            .await;
        } else {
            proxy.cut().await;
            held.let_go().await;
            stage.settled(2).await;
        }
        proxy.heal().await;
        for order in 2..4 {
            stage.publish(order, Some(order));
        }
        stage.settled(4).await;
        running.stop().await;

        let mut effects = stage.effects().await;
        effects.sort_unstable();
        assert_eq!(effects, [0, 1, 2, 3], "silent: {silent}");
        assert!(stage.letters().await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_commit_that_never_comes_does_not_keep_the_key_for_long() {
    let stage = Stage::new().await;
    let held = Held::commits_of(&stage).await;
    let (mut proxy, pool) = through_proxy(&stage).await;
    stage.publish(1, Some(1));

    let builder = stage.builder().pool(pool).on("*", write_effect);
    let running = stage.run(builder.with(quick(1)));
    held.one(&stage).await;
    proxy.swallow_answers();
    held.let_go().await;
    wait::until_true(SOON, "the effect of the first", || async {
        stage.effects().await == [1]
    })
    .await;
    // Its connection stays open and silent.
    proxy.heal().await;
    stage.publish(2, Some(1));
    stage.settled(2).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1, 2]);
    assert!(stage.letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_hangs_is_an_outage_and_costs_no_attempt() {
    async fn gated(gate: Arc<Gate>, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        asks_after(&gate, tx).await
    }
    let stage = Stage::new().await;
    let (mut proxy, pool) = through_proxy(&stage).await;
    let gate = Arc::new(Gate::new());
    stage.publish(1, Some(1));
    let settings = HandlerSettings {
        deadline: Duration::from_secs(1),
        ..quick(1)
    };

    let builder = stage.builder().pool(pool).on_with("*", gate.clone(), gated);
    let running = stage.run(builder.with(settings));
    gate.has_a_handler().await;
    proxy.stall();
    gate.add_permits(9);
    // Longer than the deadline: the server ends the transaction, and nobody can ask it.
    wait::until_true(SOON, "the transaction to be ended", || async {
        let count: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and state like 'idle in transaction%'",
        )
        .fetch_one(stage.pool())
        .await
        .unwrap();
        count == 0
    })
    .await;
    proxy.heal().await;
    stage.settled(1).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1]);
    assert!(
        stage.letters().await.is_empty(),
        "{:?}",
        stage.letters().await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_again_and_again_lose_and_double_nothing() {
    let stage = Stage::new().await;
    let (mut proxy, pool) = through_proxy(&stage).await;
    for order in 0..200 {
        stage.publish(order, Some(order % 4));
    }

    let builder = stage.builder().pool(pool).on("*", write_effect);
    let running = stage.run(builder.with(quick(1)));
    for done in [20, 60, 100, 140] {
        wait::until_true(SOON, "some more effects", || async {
            stage.effects().await.len() >= done
        })
        .await;
        proxy.cut().await;
        proxy.heal().await;
    }
    stage.settled(200).await;
    running.stop().await;

    let mut effects = stage.effects().await;
    effects.sort_unstable();
    assert_eq!(effects, (0..200).collect::<Vec<i64>>());
    assert!(stage.letters().await.is_empty());
}

/// The first attempt at each order asks to wait; the wait is in the database.
async fn second_time(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
    if tx.attempt() == 1 {
        return Err(HandlerError::retry_after(Duration::from_millis(20)));
    }
    effect(event.order, tx).await
}

/// Two attempts each: an outage that counted would show as a dead letter.
fn deferring() -> HandlerSettings {
    HandlerSettings {
        defer_after: Duration::ZERO,
        deadline: Duration::from_secs(2),
        ..quick(2)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_answer_to_the_commit_of_a_retry_is_lost_its_line_tells() {
    let stage = Stage::new().await;
    let held = Held::commits_of(&stage).await;
    let (mut proxy, pool) = through_proxy(&stage).await;
    stage.publish(1, Some(1));
    stage.publish(2, Some(1));

    let builder = stage.builder().pool(pool).on("*", second_time);
    let running = stage.run(builder.with(deferring()));
    held.one(&stage).await;
    proxy.cut().await;
    held.let_go().await;
    wait::until_true(SOON, "the effect", || async {
        stage.effects().await == [1]
    })
    .await;
    proxy.heal().await;
    wait::until_true(SOON, "the follower", || async {
        stage.effects().await == [1, 2]
    })
    .await;
    running.stop().await;

    assert!(stage.letters().await.is_empty());
    assert_eq!(stage.effects().await, [1, 2]);
    stage.nothing_waits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_hangs_in_a_retry_costs_no_attempt_and_strands_no_follower() {
    async fn gated(gate: Arc<Gate>, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        second_time(event, tx).await?;
        asks_after(&gate, tx).await
    }
    let stage = Stage::new().await;
    let (mut proxy, pool) = through_proxy(&stage).await;
    let gate = Arc::new(Gate::new());
    stage.publish(1, Some(1));
    stage.publish(2, Some(1));

    let builder = stage.builder().pool(pool).on_with("*", gate.clone(), gated);
    let running = stage.run(builder.with(deferring()));
    gate.has_a_handler().await;
    proxy.stall();
    gate.add_permits(9);
    wait::until_true(SOON, "the transaction to be ended", || async {
        let count: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and state like 'idle in transaction%'",
        )
        .fetch_one(stage.pool())
        .await
        .unwrap();
        count == 0
    })
    .await;
    proxy.heal().await;
    wait::until_true(SOON, "both effects", || async {
        stage.effects().await == [1, 2]
    })
    .await;
    running.stop().await;

    assert!(
        stage.letters().await.is_empty(),
        "{:?}",
        stage.letters().await
    );
    stage.nothing_waits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_while_messages_wait_lose_double_and_reorder_nothing() {
    let stage = Stage::new().await;
    let (mut proxy, pool) = through_proxy(&stage).await;
    for order in 0..200 {
        stage.publish(order, Some(order % 4));
    }

    let builder = stage.builder().pool(pool).on("*", second_time);
    let running = stage.run(builder.with(deferring()));
    for done in [20, 60, 100, 140] {
        wait::until_true(SOON, "some more effects", || async {
            stage.effects().await.len() >= done
        })
        .await;
        proxy.cut().await;
        proxy.heal().await;
    }
    wait::until_true(SOON, "all effects", || async {
        stage.effects().await.len() >= 200
    })
    .await;
    running.stop().await;

    assert_eq!(stage.effects().await.len(), 200);
    stage.in_order(4).await;
    assert!(stage.letters().await.is_empty());
    stage.nothing_waits().await;
}
