//! The whole path by way of SQS, with kills and with entries that fail alone, watched by the ledger.
//!
//! The ledger reads what a gate between the relays and the server has recorded: a queue cannot be read without consuming it.

use onceward_testkit::ledger::Verdict;
use onceward_testkit::postgres::Postgres;
use onceward_testkit::sqs::{Act, Call, Gate, Sqs};

use crate::kills::kill_both;
use crate::stage::{Changes, Stage};

/// A handful: what is looked for is what differs from other brokers.
const CYCLES: u32 = 6;

async fn gate() -> (&'static Sqs, Gate) {
    let sqs = Sqs::shared().await;
    (sqs, Gate::to(sqs.port()).await)
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
    let (sqs, gate) = gate().await;
    let stage = Stage::sqs(Postgres::shared().await, sqs, &gate, true).await;

    kill_both(
        stage.consumed().await.ttl("1s"),
        CYCLES,
        &Changes::default(),
    )
    .await;
}

#[tokio::test]
async fn what_is_committed_takes_effect_once_by_way_of_a_standard_queue() {
    let (sqs, gate) = gate().await;
    let stage = Stage::sqs(Postgres::shared().await, sqs, &gate, false).await;
    let stage = stage.consumed().await;
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
    let (sqs, gate) = gate().await;
    let stage = Stage::sqs(Postgres::shared().await, sqs, &gate, true).await;
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
