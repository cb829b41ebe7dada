//! Bugs planted in the consumer: the ledger must see each of them, and must be green without it.

use async_nats::HeaderMap;
use onceward_testkit::ledger::{Verdict, Workload, append};
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::{Options, Postgres};
use onceward_testkit::{unique, wait};

use crate::guard::{SLOW, with_a_message_that_kills};
use crate::stage::{Changes, SOON, Stage};

/// How often a bug is planted that shows only where other messages are in work at the right moment.
const TRIES: u32 = 4;

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

/// Consumers with these changes, one after the other: the last one takes up what the ones before have left, and ends well.
async fn verdict_after(stage: &Stage, changes: &Changes) -> Verdict {
    let consumer = stage.consumer(changes);
    stage.wait_until_all_is_acked().await;
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
        .config("bgwriter_lru_maxpages", "0")
        .config("wal_buffers", "16MB");
    let postgres = Postgres::start(options).await;
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;
    let stage = published(stage.consumed_at(&postgres).await).await;
    // The tables themselves are not to be forgotten.
    let consumers = stage.elsewhere.as_ref().unwrap();
    let flush = sqlx::raw_sql("checkpoint").execute(consumers.pool());
    flush.await.unwrap();
    postgres.freeze_wal_writer().await;
    let consumer = stage.consumer(&Changes::fault(fault));
    stage.wait_until_all_is_acked().await;

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

/// Whether a message has neighbours in work that have not ended when it kills for the last time is left to chance.
#[tokio::test]
async fn neighbours_counted_by_the_crash_guard_turn_the_ledger_red() {
    for _ in 0..TRIES {
        let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;

        let counted = Changes::fault("neighbours-counted");
        let left = with_a_message_that_kills(stage, counted, 0, &SLOW).await;

        let verdict = left.stage.ledger.verdict().await;
        let letters = left.stage.letters().await;
        assert!(letters.contains(&("crashed".to_owned(), left.deadly)));
        let buried = u64::try_from(letters.len() - 1).unwrap();
        assert_eq!(verdict.missing_effects, buried, "{verdict}");
        if buried > 0 {
            return;
        }
    }
    panic!("no neighbour was buried in {TRIES} tries");
}

/// Puts what the stage's stream has at these places into another stream, as it is but for the broker's own id.
async fn copy(stage: &Stage, places: impl Iterator<Item = u64>, to: &str) {
    let client = Nats::shared().await.client().await;
    let jetstream = async_nats::jetstream::new(client.clone());
    let stream = jetstream.get_stream(&stage.name).await.unwrap();
    let mut copies = Vec::new();
    for place in places {
        copies.push(stream.get_raw_message(place).await.unwrap());
    }
    for copy in copies {
        let mut headers = HeaderMap::new();
        for (name, values) in copy.headers.iter() {
            let of_the_broker = name.to_string() == "Nats-Msg-Id";
            for value in values.iter().filter(|_| !of_the_broker) {
                headers.append(name.clone(), value.clone());
            }
        }
        client
            .publish_with_headers(format!("{to}.copies"), headers, copy.payload)
            .await
            .unwrap();
    }
    client.flush().await.unwrap();
}

/// Two members get copies of twenty messages in opposite orders, and meet in the middle. Gives the ledger's verdict, and the deadlocks
/// that the database has seen.
async fn batches_in_opposite_order(fault: &'static str) -> (Verdict, i64) {
    const ALL: u64 = 22;
    let [there, back] = [unique("there"), unique("back")];
    let (postgres, nats) = (Postgres::shared().await, Nats::shared().await);
    let stage = Stage::nats_with(postgres, nats, &[&there, &back]).await;
    let stage = stage.consumed().await;
    let relay = stage.relay(&Changes::default());
    let (mut ids, mut written) = (Vec::new(), stage.log.pool().begin().await.unwrap());
    for _ in 0..ALL {
        let topic = &stage.topics()[0];
        let id = append(&mut written, topic, "key-1", b"payload").await;
        ids.push(id.unwrap());
    }
    written.commit().await.unwrap();
    stage.wait_until_published(ALL).await;
    relay.stop().await;
    // The first and the last one say that both are at work.
    let members = [&there, &back].map(|stream| {
        let reads = format!("{stream}.>");
        let changes = Changes::fault(fault).variable("E2E_BATCH", "20");
        stage.consumer(&changes.variable("E2E_TOPICS", &reads))
    });
    copy(&stage, 1..=1, &there).await;
    copy(&stage, ALL..=ALL, &back).await;
    wait::until_true(SOON, "both to be at work", || async {
        stage.handled().await == 2
    })
    .await;
    let mut middle = stage.log.pool().begin().await.unwrap();
    sqlx::query(
        "insert into onceward.processed_messages (slot, consumer, message_id, outcome)
         values (onceward.mark_slot($1), $2, $1, 0)",
    )
    .bind(ids[11])
    .bind(&stage.name)
    .execute(&mut *middle)
    .await
    .unwrap();

    copy(&stage, 2..ALL, &there).await;
    copy(&stage, (2..ALL).rev(), &back).await;
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    wait::until_true(SOON, "both to wait for a mark", || async {
        let count: i64 = sqlx::query_scalar(waiting)
            .fetch_one(stage.log.pool())
            .await
            .unwrap();
        count == 2
    })
    .await;
    middle.rollback().await.unwrap();
    stage.wait_until_handled(ALL).await;
    // A backend tells what it has counted when it ends, at the latest.
    for member in members {
        member.stop().await;
    }
    let deadlocks = sqlx::query_scalar(
        "select deadlocks from pg_stat_database where datname = current_database()",
    );
    let deadlocks = deadlocks.fetch_one(stage.log.pool()).await.unwrap();
    (stage.ledger.verdict().await, deadlocks)
}

#[tokio::test]
async fn two_batches_in_opposite_order_never_wait_for_one_another() {
    let (verdict, deadlocks) = batches_in_opposite_order("").await;

    assert_eq!(deadlocks, 0);
    let harm = (verdict.missing_effects, verdict.doubled_effects);
    assert_eq!(harm, (0, 0), "{verdict}");
}

/// No effect is lost or doubled by it: it costs time, which the database tells.
#[tokio::test]
async fn marks_in_order_of_arrival_are_deadlocks_in_the_database() {
    let (verdict, deadlocks) = batches_in_opposite_order("marks-in-order-of-arrival").await;

    assert!(deadlocks > 0, "{verdict}");
    let harm = (verdict.missing_effects, verdict.doubled_effects);
    assert_eq!(harm, (0, 0), "{verdict}");
}
