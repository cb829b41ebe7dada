//! Bugs planted in the consumer: the ledger must see each of them, and must be green without it.

use onceward_testkit::ledger::{Verdict, Workload};
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::{Options, Postgres};
use onceward_testkit::wait;

use crate::guard::{SLOW, letters, with_a_message_that_kills};
use crate::stage::{Changes, SOON, Stage};

/// A stage whose messages are all published already.
async fn published(stage: Stage) -> Stage {
    let workload = Workload {
        messages: 400,
        keys: 100,
        ..stage.workload()
    };
    let relay = stage.relay(&Changes::default());
    stage.write_all(workload).await;
    stage.wait_until_passed().await;
    relay.stop().await;
    stage
}

async fn stage() -> Stage {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;
    published(stage.consumed().await).await
}

/// Waits until the broker has nothing to deliver any more, and nothing that waits for an ack.
async fn wait_until_all_is_acked(stage: &Stage) {
    let jetstream = async_nats::jetstream::new(Nats::shared().await.client().await);
    let done = || async {
        let stream = jetstream.get_stream(&stage.name).await.ok()?;
        let info = stream.consumer_info(&stage.name).await.ok()?;
        Some(info.num_pending == 0 && info.num_ack_pending == 0)
    };
    wait::until_true(SOON, "the broker to have everything acked", || async {
        done().await.unwrap_or(false)
    })
    .await;
}

/// Consumers with these changes, one after the other: the last one takes up what the ones before have left, and ends well.
async fn verdict_after(stage: &Stage, changes: &Changes) -> Verdict {
    let consumer = stage.consumer(changes);
    wait_until_all_is_acked(stage).await;
    stage.wait_until_no_key_is_held().await;
    consumer.stop().await;
    stage.ledger.verdict().await
}

#[tokio::test]
async fn an_ack_before_the_commit_turns_the_ledger_red() {
    let stage = stage().await;
    let slow = Changes::fault("ack-before-commit").variable("E2E_DELAY_MS", "300");
    let consumer = stage.consumer(&slow);
    stage.wait_until_handled(10).await;
    consumer.kill();

    let verdict = verdict_after(&stage, &Changes::default()).await;

    assert!(verdict.missing_effects > 0, "{verdict}");
}

#[tokio::test]
async fn a_dedupe_outside_of_the_transaction_turns_the_ledger_red() {
    let stage = stage().await;
    let consumer = stage.consumer(&Changes {
        failpoint: "before-mark:20".to_owned(),
        ..Changes::fault("dedupe-outside-the-transaction")
    });
    consumer.crashed(SOON).await;

    let verdict = verdict_after(&stage, &Changes::default()).await;

    assert!(verdict.doubled_effects > 0, "{verdict}");
}

#[tokio::test]
async fn a_handler_that_swallows_errors_of_the_database_is_found_out() {
    let stage = stage().await;
    let swallows = Changes::default().variable("E2E_SWALLOW_ONE_IN", "10");

    let verdict = verdict_after(&stage, &swallows).await;

    assert!(verdict.is_green(), "{verdict}");
}

#[tokio::test]
async fn a_commit_without_the_marks_proof_turns_the_ledger_red() {
    let stage = stage().await;
    let swallows = Changes::fault("commit-without-proof").variable("E2E_SWALLOW_ONE_IN", "10");

    let verdict = verdict_after(&stage, &swallows).await;

    assert!(verdict.missing_effects > 0, "{verdict}");
}

/// The consumer's database crashes after everything was acked. Its commits are on disk late unless somebody insists.
async fn crash_after_the_acks(fault: &'static str) -> Verdict {
    let options = Options::default()
        .config("synchronous_commit", "off")
        .config("wal_writer_delay", "10s")
        .config("wal_buffers", "16MB");
    let postgres = Postgres::start(options).await;
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;
    let stage = published(stage.consumed_at(&postgres).await).await;
    // The tables themselves are not to be forgotten.
    let consumers = stage.elsewhere.as_ref().unwrap();
    let flush = sqlx::raw_sql("checkpoint").execute(consumers.pool());
    flush.await.unwrap();
    let consumer = stage.consumer(&Changes::fault(fault));
    wait_until_all_is_acked(&stage).await;

    postgres.kill();
    postgres.start_again().await;

    consumer.stop().await;
    stage.ledger.verdict().await
}

#[tokio::test]
async fn what_was_acked_survives_a_crash_of_the_database() {
    let verdict = crash_after_the_acks("").await;

    assert!(verdict.is_green(), "{verdict}");
}

#[tokio::test]
async fn an_ack_before_the_commit_is_durable_turns_the_ledger_red() {
    let verdict = crash_after_the_acks("ack-before-durable").await;

    assert!(verdict.missing_effects > 0, "{verdict}");
}

#[tokio::test]
async fn messages_that_wait_for_another_attempt_lose_double_and_reorder_nothing() {
    let stage = stage().await;

    let verdict = verdict_after(&stage, &Changes::default().deferring()).await;

    assert!(verdict.is_green(), "{verdict}");
}

#[tokio::test]
async fn a_held_key_that_is_not_looked_up_in_the_database_turns_the_ledger_red() {
    let stage = stage().await;

    let verdict = verdict_after(&stage, &Changes::fault("keys-in-memory").deferring()).await;

    assert!(verdict.effects_out_of_order > 0, "{verdict}");
}

#[tokio::test]
async fn a_retry_that_forgets_its_followers_turns_the_ledger_red() {
    let stage = stage().await;

    let verdict = verdict_after(&stage, &Changes::fault("followers-forgotten").deferring()).await;

    assert!(verdict.missing_effects > 0, "{verdict}");
}

#[tokio::test]
async fn neighbours_counted_by_the_crash_guard_turn_the_ledger_red() {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;

    let counted = Changes::fault("neighbours-counted");
    let left = with_a_message_that_kills(stage, counted, 0, &SLOW).await;

    let verdict = left.stage.ledger.verdict().await;
    assert!(verdict.missing_effects > 0, "{verdict}");
    let letters = letters(&left.stage).await;
    assert!(letters.contains(&("crashed".to_owned(), left.deadly)));
    let buried = u64::try_from(letters.len() - 1).unwrap();
    assert_eq!(verdict.missing_effects, buried, "{verdict}");
}
