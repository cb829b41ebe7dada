//! What stands around the programs breaks: a relay is frozen, servers crash and come back.

use std::time::Duration;

use onceward_testkit::kafka::Kafka;
use onceward_testkit::ledger::Workload;
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::Postgres;
use onceward_testkit::{kafka, nats, postgres};

use crate::stage::{Changes, Stage, WINDOW};

/// How often a server crashes in one run.
const CRASHES: u64 = 3;

fn under_load(stage: &Stage) -> Workload {
    Workload {
        messages: u64::MAX,
        per_second: Some(200),
        ..stage.workload()
    }
}

#[tokio::test]
async fn a_relay_frozen_for_twice_its_ttl_changes_nothing_when_it_goes_on() {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;
    let mut stage = stage.consumed().await.ttl("4s");
    let (one, other) = (
        stage.relay(&Changes::default()),
        stage.relay(&Changes::default()),
    );
    let consumer = stage.consumer(&Changes::default());
    let writers = stage.write(under_load(&stage));
    for _ in 0..2 {
        let frozen = stage.wait_for_holder(&[&one, &other]).await;
        let before = stage.published().await;
        stage.wait_until_published(before + 50).await;

        frozen.freeze();
        // Not a wait for anything: it is how long the machine stands still.
        tokio::time::sleep(Duration::from_secs(8)).await;
        let heir = stage.wait_for_holder(&[&one, &other]).await;
        assert_ne!(heir.pid(), frozen.pid());
        let before = stage.published().await;
        stage.wait_until_published(before + 50).await;
        frozen.thaw();
        let before = stage.published().await;
        stage.wait_until_published(before + 50).await;
    }
    writers.stop().await;

    stage.ledger.allow_duplicates(WINDOW, 2);
    stage.ledger.only_takeovers_repeat();
    let verdict = stage.must_be_green(&[&one, &other, &consumer]).await;
    assert_eq!(verdict.claims, 3, "{verdict}");
}

/// A consumer stands still in the middle of its work until another one has taken over, and then goes on.
async fn freeze_consumers(stage: Stage) {
    let stage = stage.consumed().await;
    let relay = stage.relay(&Changes::default());
    // Each handler takes a while, so that some are always at work. What the frozen ones have locked is free again
    // after their deadline.
    let slow = Changes::default()
        .variable("E2E_DELAY_MS", "20")
        .variable("E2E_DEADLINE_MS", "1500");
    let writers = stage.write(Workload {
        messages: u64::MAX,
        per_second: Some(150),
        ..stage.workload()
    });
    let one = stage.consumer(&slow);
    stage.wait_until_handled(100).await;
    let other = stage.consumer(&slow);
    let mut frozen = &one;
    for _ in 0..2 {
        frozen.freeze();
        let heir = if frozen.pid() == one.pid() {
            &other
        } else {
            &one
        };
        let before = stage.handled().await;
        // More than can have been on its way when it was frozen.
        stage.wait_until_handled(before + 200).await;
        frozen.thaw();
        let before = stage.handled().await;
        stage.wait_until_handled(before + 100).await;
        frozen = heir;
    }
    writers.stop().await;

    stage.must_be_green(&[&relay, &one, &other]).await;
}

#[tokio::test]
async fn a_frozen_consumer_changes_nothing_when_it_goes_on_with_nats() {
    freeze_consumers(Stage::nats(Postgres::shared().await, Nats::shared().await).await).await;
}

#[tokio::test]
async fn a_frozen_consumer_changes_nothing_when_it_goes_on_with_kafka() {
    freeze_consumers(Stage::kafka(Postgres::shared().await, Kafka::shared().await).await).await;
}

#[tokio::test]
async fn a_crash_of_postgres_publishes_nothing_that_it_forgets() {
    // Commits are visible long before they are on disk, and a crash forgets them.
    let options = postgres::Options::default()
        .config("synchronous_commit", "off")
        .config("wal_writer_delay", "10s");
    let postgres = Postgres::start(options).await;
    let stage = Stage::nats(&postgres, Nats::shared().await).await;
    let mut stage = stage.consumed().await;
    let relay = stage.relay(&Changes::default());
    let consumer = stage.consumer(&Changes::default());
    let writers = stage.write(under_load(&stage));
    for _ in 0..CRASHES {
        let (published, handled) = (stage.published().await, stage.handled().await);
        stage.wait_until_published(published + 100).await;
        stage.wait_until_handled(handled + 100).await;

        postgres.kill();
        postgres.start_again().await;
    }
    let handled = stage.handled().await;
    stage.wait_until_handled(handled + 100).await;
    let written = writers.stop().await;

    assert!(written.unknown > 0, "{written:?}");
    stage.ledger.allow_duplicates(WINDOW, CRASHES);
    stage.ledger.only_takeovers_repeat();
    let verdict = stage.must_be_green(&[&relay, &consumer]).await;
    assert!(verdict.claims > CRASHES, "{verdict}");
}

#[tokio::test]
async fn a_crash_of_nats_loses_doubles_and_reorders_nothing() {
    let nats = Nats::start(nats::Options::default()).await;
    let stage = Stage::nats(Postgres::shared().await, &nats).await;
    let mut stage = stage.consumed().await;
    let relay = stage.relay(&Changes::default());
    let consumer = stage.consumer(&Changes::default());
    let writers = stage.write(under_load(&stage));
    for _ in 0..CRASHES {
        let (published, handled) = (stage.published().await, stage.handled().await);
        stage.wait_until_published(published + 100).await;
        stage.wait_until_handled(handled + 100).await;

        nats.kill();
        nats.start_again().await;
    }
    let handled = stage.handled().await;
    stage.wait_until_handled(handled + 100).await;
    writers.stop().await;

    stage.ledger.allow_duplicates(WINDOW, CRASHES);
    stage.must_be_green(&[&relay, &consumer]).await;
    assert_eq!(stage.parked().await, 0);
}

#[tokio::test]
async fn a_crash_of_kafka_loses_doubles_and_reorders_nothing() {
    let kafka = Kafka::start(kafka::Options::default()).await;
    let stage = Stage::kafka(Postgres::shared().await, &kafka).await;
    let mut stage = stage.consumed().await;
    let relay = stage.relay(&Changes::default());
    let consumer = stage.consumer(&Changes::default());
    let writers = stage.write(under_load(&stage));
    for _ in 0..2 {
        let (published, handled) = (stage.published().await, stage.handled().await);
        stage.wait_until_published(published + 100).await;
        stage.wait_until_handled(handled + 100).await;

        kafka.kill();
        kafka.start_again().await;
    }
    let handled = stage.handled().await;
    stage.wait_until_handled(handled + 100).await;
    writers.stop().await;

    stage.ledger.allow_duplicates(WINDOW, 2);
    stage.must_be_green(&[&relay, &consumer]).await;
    assert_eq!(stage.parked().await, 0);
}
