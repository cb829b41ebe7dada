//! Somebody locks a table for long: a migration by hand, a `vacuum full`. The consumer waits in short turns, and goes on by itself.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::HashSet;

use common::{SOON, Stage, write_effect};
use onceward_testkit::wait;
use tokio::sync::Mutex;

/// Waits until many statements have waited for a lock, one after the other, and at no time many of them at once.
async fn waits_in_turns(stage: &Stage) {
    let seen = Mutex::new(HashSet::new());
    wait::until_true(SOON, "some waits to end on the server", || async {
        let waiting: Vec<(i32, String)> = sqlx::query_as(
            "select pid, query_start::text from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_all(stage.pool())
        .await
        .unwrap();
        assert!(waiting.len() < 4, "{} wait at once", waiting.len());
        let mut seen = seen.lock().await;
        seen.extend(waiting);
        seen.len() >= 5
    })
    .await;
}

/// Locks a table for as long as it takes, and lets go of it.
async fn goes_on_after_a_lock_of(table: &str) {
    let stage = Stage::new().await;
    let mut other = stage.pool().begin().await.unwrap();
    let running = stage.run(stage.builder().on("*", write_effect));
    stage.publish(1, Some(1));
    stage.settled(1).await;
    let lock = format!("lock table onceward.{table}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(lock))
        .execute(&mut *other)
        .await
        .unwrap();
    stage.publish(2, Some(2));

    waits_in_turns(&stage).await;
    other.rollback().await.unwrap();
    stage.publish(3, Some(2));
    stage.settled(3).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1, 2, 3]);
    assert!(stage.letters().await.is_empty(), "a wait is no attempt");
}

#[tokio::test]
async fn a_lock_of_the_paused_types_delays_nothing_for_good() {
    goes_on_after_a_lock_of("paused_types").await;
}

#[tokio::test]
async fn a_lock_of_the_starts_delays_messages_and_costs_no_attempt() {
    goes_on_after_a_lock_of("starts").await;
}

#[tokio::test]
async fn a_lock_of_the_held_keys_delays_messages_and_costs_no_attempt() {
    goes_on_after_a_lock_of("held_keys").await;
}

#[tokio::test]
async fn while_the_paused_types_are_locked_messages_are_handled() {
    let stage = Stage::new().await;
    let running = stage.run(stage.builder().on("*", write_effect));
    stage.publish(1, None);
    stage.settled(1).await;
    let mut other = stage.pool().begin().await.unwrap();
    sqlx::raw_sql("lock table onceward.paused_types")
        .execute(&mut *other)
        .await
        .unwrap();

    waits_in_turns(&stage).await;
    stage.publish(2, None);
    stage.settled(2).await;
    other.rollback().await.unwrap();
    running.stop().await;

    assert!(stage.letters().await.is_empty());
}
