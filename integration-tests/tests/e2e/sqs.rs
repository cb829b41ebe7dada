//! The whole path by way of SQS, with kills and with entries that fail alone, watched by the ledger.
//!
//! The ledger reads what a gate between the relays and the server has recorded: a queue cannot be read without consuming it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use onceward_testkit::ledger::{Verdict, Workload};
use onceward_testkit::postgres::Postgres;
use onceward_testkit::sqs::{Act, Call, Gate, Sqs};
use onceward_testkit::wait;

use crate::bad_messages::only_the_guilty_are_parked;
use crate::failing_type::a_type_fails_and_is_mended;
use crate::failpoints::crash_in_batches;
use crate::guard::only_the_guilty_is_given_up_on;
use crate::kills::kill_both;
use crate::stage::{Changes, SOON, Stage, WINDOW};

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
async fn killed_relays_and_consumers_lose_and_double_nothing_by_way_of_a_standard_queue() {
    let stage = stage(false).await;

    kill_both(
        stage.consumed().await.ttl("1s"),
        CYCLES,
        &Changes::default(),
    )
    .await;
}

#[tokio::test]
async fn killed_consumers_whose_messages_wait_lose_double_and_reorder_nothing_on_sqs() {
    let stage = stage(true).await.consumed().await.ttl("1s");

    let stage = kill_both(stage, CYCLES, &Changes::default().deferring()).await;

    stage.wait_until_no_key_is_held().await;
}

#[tokio::test]
async fn a_crash_in_the_middle_of_batches_loses_doubles_and_reorders_nothing_on_sqs() {
    crash_in_batches(stage(true).await.consumed().await).await;
}

#[tokio::test]
async fn only_the_message_that_kills_is_given_up_on_with_sqs() {
    only_the_guilty_is_given_up_on(stage(true).await, Changes::default()).await;
}

#[tokio::test]
async fn a_failing_type_is_resumed_once_it_is_mended_with_sqs() {
    a_type_fails_and_is_mended(stage(true).await, Changes::default()).await;
}

#[tokio::test]
async fn only_what_sqs_refuses_is_parked_and_can_be_replayed() {
    only_the_guilty_are_parked(stage(true).await).await;
}

/// What it stores is judged, and not what it gives out: with a crash ElasticMQ forgets the order of messages of one millisecond, and
/// which groups have a message in flight (seen on 1.7.1).
#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_has_all_that_is_published_in_order() {
    let sqs = Sqs::start_with_storage().await;
    let stage = Stage::sqs(Postgres::shared().await, &sqs, true).await;
    let mut stage = stage.ttl("30s");
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

/// How often the consumer tries to delete what it has settled.
const DELETE_TRIES: u32 = 5;

/// Credentials that run out in the middle of work: at a delete, whose answer then is a refusal.
#[derive(Debug, Default)]
struct Credentials {
    /// They run out at the next delete.
    run_out: bool,
    expired: bool,
    /// How many deletes have passed since they last ran out.
    deleted: u32,
    /// How many calls of each action were refused for that.
    refused: BTreeMap<String, u32>,
}

impl Credentials {
    fn guard(gate: &Gate) -> Arc<Mutex<Self>> {
        let guarded = Arc::new(Mutex::new(Self::default()));
        let credentials = guarded.clone();
        gate.script(move |call| {
            let mut credentials = credentials.lock().unwrap();
            credentials.expired |= credentials.run_out && call.action == "DeleteMessageBatch";
            if !credentials.expired {
                credentials.deleted += u32::from(call.action == "DeleteMessageBatch");
                return Act::Pass;
            }
            *credentials.refused.entry(call.action.clone()).or_default() += 1;
            Act::refuse(403, "com.amazon.coral.service#ExpiredTokenException")
        });
        guarded
    }

    fn refused(&self, action: &str) -> u32 {
        self.refused.get(action).copied().unwrap_or_default()
    }
}

#[tokio::test]
async fn credentials_that_run_out_in_the_middle_of_work_cost_nothing_but_time() {
    let mut stage = stage(true).await.consumed().await.ttl("30s");
    let gate = stage.place.gate().unwrap();
    let (credentials, url) = (Credentials::guard(gate), gate.url());
    let relay = stage.relay(&Changes::default());
    // One attempt: one that an outage cost would be a dead letter. What is settled meanwhile cannot be deleted.
    let changes = Changes::default()
        .variable("E2E_ADDRESS", &url)
        .variable("E2E_ATTEMPTS", "1")
        .variable("E2E_DELAY_MS", "20");
    let consumer = stage.consumer(&changes);
    let writers = stage.write(Workload {
        messages: u64::MAX,
        per_second: Some(100),
        ..stage.workload()
    });

    for outage in 1..=2 {
        let published = stage.published().await;
        stage.wait_until_published(published + 50).await;
        // So that the delete which is refused first is a first try, none that an earlier outage has left.
        wait::until_true(SOON, "deletes that pass", || async {
            credentials.lock().unwrap().deleted >= 10
        })
        .await;
        *credentials.lock().unwrap() = Credentials {
            run_out: true,
            ..Credentials::default()
        };
        // As many deletes as one ack is tried: some are given up, and come again.
        wait::until_true(SOON, "refusals of everything", || async {
            let credentials = credentials.lock().unwrap();
            let [receive, delete] =
                ["ReceiveMessage", "DeleteMessageBatch"].map(|action| credentials.refused(action));
            let others = credentials.refused.values().sum::<u32>() - receive - delete;
            receive >= 3 && delete >= DELETE_TRIES && others >= 3
        })
        .await;
        let refused = std::mem::take(&mut *credentials.lock().unwrap()).refused;
        eprintln!("outage {outage}: {refused:?}");
        assert!(refused.values().all(|calls| *calls < 500), "{refused:?}");
    }
    let published = stage.published().await;
    stage.wait_until_published(published + 100).await;
    writers.stop().await;

    stage.ledger.allow_duplicates(WINDOW, 2);
    let verdict = stage.must_be_green(&[&relay, &consumer]).await;
    assert_eq!(verdict.claims, 1, "{verdict}");
    assert_eq!(stage.parked().await, 0);
    let letters: i64 = sqlx::query_scalar("select count(*) from onceward.dead_letters")
        .fetch_one(stage.log.pool())
        .await
        .unwrap();
    assert_eq!(letters, 0);
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
