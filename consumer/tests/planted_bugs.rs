//! Each planted bug has the effect that it is to have: else nobody could trust the checks that are to find it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use common::{Order, SOON, Stage, effect, quick, write_effect};
use onceward_consumer::{Fault, HandlerError, Tx, plant};
use onceward_testkit::postgres::{Options, Postgres};
use onceward_testkit::wait;
use tokio::sync::{Mutex, MutexGuard, Semaphore};

/// Bugs are planted for the whole process: one test at a time.
async fn alone(fault: Fault) -> Planted {
    static ONE: Mutex<()> = Mutex::const_new(());
    let guard = ONE.lock().await;
    plant(fault, true);
    Planted(fault, guard)
}

struct Planted(
    Fault,
    #[expect(dead_code, reason = "held")] MutexGuard<'static, ()>,
);

impl Drop for Planted {
    fn drop(&mut self) {
        plant(self.0, false);
    }
}

#[tokio::test]
async fn without_the_proof_a_swallowed_error_loses_the_message() {
    async fn swallows(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        if event.order == 1 {
            drop(sqlx::query("select 1 / 0").execute(&mut **tx).await);
        }
        Ok(())
    }
    let _planted = alone(Fault::CommitWithoutProof).await;
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    stage.publish(2, Some(1));

    let running = stage.run(stage.builder().on("*", swallows));
    stage.settled(1).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [2], "1 is gone");
    assert!(stage.letters().await.is_empty());
}

#[tokio::test]
async fn acked_before_the_commit_a_crash_loses_the_message() {
    async fn waits(gate: Arc<Semaphore>, _: Order, _: &mut Tx) -> Result<(), HandlerError> {
        gate.add_permits(1);
        std::future::pending().await
    }
    let _planted = alone(Fault::AckBeforeCommit).await;
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    let begun = Arc::new(Semaphore::new(0));
    let first = stage.run(stage.builder().on_with("*", begun.clone(), waits));
    begun.acquire().await.unwrap().forget();
    first.kill().await;

    stage.publish(2, Some(1));
    let second = stage.run(stage.builder().on("*", write_effect));
    stage.settled(1).await;
    second.stop().await;

    assert_eq!(stage.effects().await, [2], "1 is gone");
}

#[tokio::test]
async fn with_the_dedupe_outside_a_failure_in_between_doubles_the_effect() {
    let _planted = alone(Fault::DedupeOutside).await;
    let stage = Stage::new().await;
    let id = stage.publish(1, Some(1));
    let mut other = stage.pool().begin().await.unwrap();
    sqlx::query(
        "insert into onceward.processed_messages (slot, consumer, message_id, outcome)
         values (onceward.mark_slot($1), 'billing', $1, 0)",
    )
    .bind(id)
    .execute(&mut *other)
    .await
    .unwrap();

    let running = stage.run(stage.builder().on("*", write_effect));
    wait::until_true(SOON, "a mark that waits, to be cut off", || async {
        let cut: Option<bool> = sqlx::query_scalar(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_optional(stage.pool())
        .await
        .unwrap();
        cut == Some(true)
    })
    .await;
    other.rollback().await.unwrap();
    stage.settled(1).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1, 1]);
}

#[tokio::test]
async fn acked_before_the_commit_is_durable_a_crash_of_the_server_loses_the_message() {
    let _planted = alone(Fault::AckBeforeDurable).await;
    let options = Options::default().config("wal_writer_delay", "10s");
    let postgres = Postgres::start(options).await;
    let mut lost = 0;
    // The server may happen to write its log in time.
    for _ in 0..5 {
        let stage = Stage::on(&postgres).await;
        stage.publish(1, Some(1));
        let running = stage.run(stage.builder().on("*", write_effect).with(quick(1)));
        stage.settled(1).await;
        // Acked after its commit, and before the next one is looked at.
        running.stop().await;
        postgres.kill();
        postgres.start_again().await;

        let again = stage.run(stage.builder().on("*", write_effect));
        stage.publish(2, Some(1));
        wait::until_true(SOON, "the second effect", || async {
            let found =
                sqlx::query_scalar::<_, i64>("select order_id from effects where order_id = 2");
            found
                .fetch_optional(stage.pool())
                .await
                .is_ok_and(|found| found.is_some())
        })
        .await;
        again.stop().await;
        lost += usize::from(stage.effects().await == [2]);
    }

    assert!(lost > 0, "no message was lost");
}
