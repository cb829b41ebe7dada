//! The whole path by way of SQS, with kills and with entries that fail alone, watched by the ledger.
//!
//! The ledger reads what a gate between the relays and the server has recorded: a queue cannot be read without consuming it.

use onceward_testkit::ledger::{Verdict, Workload};
use onceward_testkit::postgres::Postgres;
use onceward_testkit::sqs::{Act, Call, Sqs};

use crate::bad_messages::only_the_guilty_are_parked;
use crate::kills::kill_both;
use crate::stage::{Changes, Stage, WINDOW};

/// A handful: what is looked for is what differs from other brokers.
const CYCLES: u32 = 6;

/// How often the server is killed.
const SERVER_KILLS: u64 = 3;

async fn stage(fifo: bool) -> Stage {
    Stage::sqs(Postgres::shared().await, Sqs::shared().await, fifo).await
}

/// Refuses one entry in twenty, by itself, as SQS does now and then.
fn fails_now_and_then() -> impl FnMut(&Call) -> Act {
    let mut entries = 0_u32;
    move |call| {
        if call.action != "SendMessageBatch" {
            return Act::Pass;
        }
        let fails = |_: &String| {
            entries += 1;
            entries.is_multiple_of(20)
        };
        let failed: Vec<String> = call.ids().into_iter().filter(fails).collect();
        if failed.is_empty() {
            Act::Pass
        } else {
            Act::fail(failed)
        }
    }
}

#[tokio::test]
async fn killed_relays_and_consumers_lose_double_and_reorder_nothing_on_sqs() {
    let stage = stage(true).await;

    kill_both(
        stage.consumed().await.ttl("1s"),
        CYCLES,
        &Changes::default(),
    )
    .await;
}

#[tokio::test]
async fn only_what_sqs_refuses_is_parked_and_can_be_replayed() {
    only_the_guilty_are_parked(stage(true).await).await;
}

/// What it stores is judged, and not what it gives out: with a crash ElasticMQ forgets the order of messages of one millisecond, and
/// which groups have a message in flight (seen on 1.7.1).
#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_has_all_that_is_published_in_order() {
    let sqs = Sqs::start().await;
    let mut stage = Stage::sqs(Postgres::shared().await, &sqs, true).await;
    let relay = stage.relay(&Changes::default());
    let writers = stage.write(Workload {
        messages: u64::MAX,
        per_second: Some(100),
        ..stage.workload()
    });

    for _ in 0..SERVER_KILLS {
        let published = stage.published().await;
        stage.wait_until_published(published + 50).await;
        sqs.kill();
        sqs.start_again().await;
    }
    let published = stage.published().await;
    stage.wait_until_published(published + 50).await;
    writers.stop().await;

    stage.ledger.allow_duplicates(WINDOW, SERVER_KILLS);
    let verdict = stage.must_be_green(&[&relay]).await;
    assert_eq!(verdict.claims, 1, "{verdict}");
    assert_eq!(stage.parked().await, 0);
}

#[tokio::test]
async fn what_is_committed_takes_effect_once_by_way_of_a_standard_queue() {
    let stage = stage(false).await.consumed().await;
    let relay = stage.relay(&Changes::default());
    let members = [
        stage.consumer(&Changes::default()),
        stage.consumer(&Changes::default()),
    ];

    let written = stage.write_all(stage.workload()).await;

    assert!(written.messages >= 1_000, "{written:?}");
    let [this, that] = &members;
    stage.must_be_green(&[&relay, this, that]).await;
}

/// A relay whose queue refuses an entry now and then, to its end.
async fn with_entries_that_fail(fault: &'static str) -> Verdict {
    let stage = stage(true).await;
    let gate = stage.place.gate().unwrap();
    gate.script(fails_now_and_then());
    let relay = stage.relay(&Changes::fault(fault));

    stage.write_all(stage.workload()).await;
    stage.wait_until_passed().await;
    relay.stop().await;
    assert_eq!(stage.parked().await, 0);
    stage.ledger.verdict().await
}

#[tokio::test]
async fn entries_that_fail_alone_are_sent_again_in_order() {
    let verdict = with_entries_that_fail("").await;

    assert!(verdict.is_green(), "{verdict}");
}

#[tokio::test]
async fn a_partial_batch_failure_that_is_ignored_turns_the_ledger_red() {
    let verdict = with_entries_that_fail("partial-batch-failure-ignored").await;

    assert!(verdict.lost > 0, "{verdict}");
}
