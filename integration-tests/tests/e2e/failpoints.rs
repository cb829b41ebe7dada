//! A crash at each named point of the path, under load.

use std::time::Duration;

use onceward_testkit::kafka::Kafka;
use onceward_testkit::ledger::{Workload, append};
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::Postgres;
use uuid::Uuid;

use crate::stage::{Changes, SOON, Stage, WINDOW};

/// Larger than the broker of these tests takes.
pub(crate) const TOO_LARGE: usize = 20_000;
/// What it takes.
pub(crate) const LIMIT: i32 = 10_000;

/// What has to happen for a point to be passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Load,
    /// A message that the broker refuses.
    Refusal,
    /// SIGTERM.
    Stop,
}

/// Points of the relay, and at which passage it ends.
const OF_THE_RELAY: [(&str, Needs); 9] = [
    ("after-claim:1", Needs::Load),
    ("after-read:20", Needs::Load),
    ("after-offer:10", Needs::Load),
    ("after-confirm:10", Needs::Load),
    ("before-checkpoint:5", Needs::Load),
    ("after-checkpoint:5", Needs::Load),
    ("before-park:1", Needs::Refusal),
    ("after-park:1", Needs::Refusal),
    ("before-release:1", Needs::Stop),
];

const OF_THE_CONSUMER: [&str; 6] = [
    "before-mark:30",
    "after-start:10",
    "after-handler:30",
    "before-commit:30",
    "after-commit-before-ack:30",
    "after-ack:30",
];

/// The same with messages that wait for another attempt.
const OF_A_CONSUMER_THAT_DEFERS: [&str; 6] = [
    "before-mark:40",
    "after-start:40",
    "after-handler:40",
    "leaving-line:20",
    "before-commit:40",
    "after-commit-before-ack:30",
];

/// The same in batches; those that fail are handled one by one, and pass these points as well.
const OF_A_CONSUMER_OF_BATCHES: [&str; 6] = [
    "before-mark:8",
    "after-handler:8",
    "before-commit:8",
    "before-commit:21",
    "after-commit-before-ack:30",
    "after-ack:8",
];

/// Writes one message that the broker refuses.
pub(crate) async fn write_too_large(stage: &Stage, key: &str) -> Uuid {
    let mut transaction = stage.log.pool().begin().await.unwrap();
    let payload = vec![7; TOO_LARGE];
    let id = append(&mut transaction, &stage.topics()[0], key, &payload).await;
    transaction.commit().await.unwrap();
    id.unwrap()
}

/// Ends one relay at each point; returns what was refused.
async fn crash_relays(stage: &Stage, points: &[(&str, Needs)]) -> Vec<Uuid> {
    let mut refused = Vec::new();
    for (point, needs) in points {
        let relay = stage.relay(&Changes::failpoint(point));
        match needs {
            Needs::Load => {}
            Needs::Refusal => refused.push(write_too_large(stage, "key-1").await),
            Needs::Stop => {
                let before = stage.published().await;
                stage.wait_until_published(before + 1).await;
                relay.term();
            }
        }
        relay.crashed(SOON).await;
        eprintln!("the relay crashed at {point}");
    }
    refused
}

async fn crash_consumers(stage: &Stage, points: &[&str]) {
    for point in points {
        let consumer = stage.consumer(&Changes::failpoint(point));
        consumer.crashed(SOON).await;
        eprintln!("the consumer crashed at {point}");
    }
}

async fn crash_everywhere(mut stage: Stage, of_relay: &[(&str, Needs)], of_consumer: &[&str]) {
    stage.limit_messages(Some(LIMIT)).await;
    let writers = stage.write(Workload {
        messages: u64::MAX,
        per_second: Some(200),
        slow_for: Duration::from_millis(100),
        ..stage.workload()
    });

    let (refused, ()) = tokio::join!(
        crash_relays(&stage, of_relay),
        crash_consumers(&stage, of_consumer)
    );

    writers.stop().await;
    let relay = stage.relay(&Changes::default());
    let consumer = stage.consumer(&Changes::default());
    for id in &refused {
        stage.ledger.excuse(*id);
    }
    let crashes = u64::try_from(of_relay.len()).unwrap();
    stage.ledger.allow_duplicates(WINDOW, crashes);
    let verdict = stage.must_be_green(&[&relay, &consumer]).await;
    // What was refused is parked, whether the relay crashed before or after that, and nothing else is.
    assert_eq!(
        usize::try_from(stage.parked().await).unwrap(),
        refused.len()
    );
    assert!(verdict.claims > crashes, "{verdict}");
}

#[tokio::test]
async fn a_crash_at_any_point_loses_doubles_and_reorders_nothing_on_nats() {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;

    crash_everywhere(
        stage.consumed().await.ttl("1s"),
        &OF_THE_RELAY,
        &OF_THE_CONSUMER,
    )
    .await;
}

#[tokio::test]
async fn a_crash_at_half_of_the_points_loses_doubles_and_reorders_nothing_on_kafka() {
    let stage = Stage::kafka(Postgres::shared().await, Kafka::shared().await).await;

    crash_everywhere(
        stage.consumed().await.ttl("1s"),
        &OF_THE_RELAY[2..7],
        &OF_THE_CONSUMER[3..],
    )
    .await;
}

#[tokio::test]
async fn a_crash_while_messages_wait_loses_doubles_and_reorders_nothing_on_nats() {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;
    let stage = stage.consumed().await;
    let relay = stage.relay(&Changes::default());
    let writers = stage.write(Workload {
        messages: u64::MAX,
        per_second: Some(100),
        ..stage.workload()
    });

    for point in OF_A_CONSUMER_THAT_DEFERS {
        let consumer = stage.consumer(&Changes::failpoint(point).deferring());
        consumer.crashed(SOON).await;
        eprintln!("the consumer crashed at {point}");
    }

    writers.stop().await;
    let consumer = stage.consumer(&Changes::default().deferring());
    stage.must_be_green(&[&relay, &consumer]).await;
    stage.wait_until_no_key_is_held().await;
}

pub(crate) async fn crash_in_batches(stage: Stage) {
    let relay = stage.relay(&Changes::default());
    let writers = stage.write(Workload {
        messages: u64::MAX,
        per_second: Some(200),
        ..stage.workload()
    });

    for point in OF_A_CONSUMER_OF_BATCHES {
        let consumer = stage.consumer(&Changes::failpoint(point).in_batches());
        consumer.crashed(SOON).await;
        eprintln!("the consumer crashed at {point}");
    }

    writers.stop().await;
    let consumer = stage.consumer(&Changes::default().in_batches());
    let verdict = stage.must_be_green(&[&relay, &consumer]).await;
    // All that the broker has is passed: of what stopped well, exactly. Where there are no positions, nothing says so.
    if let Some(passed) = stage.passed().await {
        assert_eq!(passed, verdict.published + verdict.duplicates);
    }
}

#[tokio::test]
async fn a_crash_in_the_middle_of_batches_loses_doubles_and_reorders_nothing_on_nats() {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;

    crash_in_batches(stage.consumed().await).await;
}

#[tokio::test]
async fn a_crash_in_the_middle_of_batches_loses_doubles_and_reorders_nothing_on_kafka() {
    let stage = Stage::kafka(Postgres::shared().await, Kafka::shared().await).await;

    crash_in_batches(stage.consumed().await).await;
}
