//! Several streams of one relay, which share what they read of the log and publish a topic each, while the relay is killed.

use onceward_testkit::ledger::Workload;
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::Postgres;

use crate::kills::{moment, moments};
use crate::stage::{Changes, Stage, WINDOW};

/// How often the relay is killed.
const KILLS: u32 = 8;

#[tokio::test]
async fn three_streams_of_a_relay_that_is_killed_again_and_again_publish_a_topic_each() {
    let mut stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;
    let mut topics = stage.topics();
    topics.push(format!("{}.audit", stage.name));
    let changes = Changes {
        apart: topics.clone(),
        ..Changes::default()
    };
    let mut rng = moments("kills of three streams");
    // Some transactions are slow: their rows come late.
    let writers = stage.write(Workload {
        topics,
        keys: 30,
        messages: u64::MAX,
        per_second: Some(300),
        ..stage.workload()
    });

    let mut relay = stage.relay(&changes);
    for _ in 0..KILLS {
        let before = stage.published().await;
        stage.wait_until_published(before + 100).await;
        moment(&mut rng).await;
        relay.kill();
        relay = stage.relay(&changes);
    }
    let before = stage.published().await;
    stage.wait_until_published(before + 100).await;
    writers.stop().await;

    stage.ledger.allow_duplicates(WINDOW, 3 * u64::from(KILLS));
    stage.ledger.only_takeovers_repeat();
    let verdict = stage.must_be_green(&[&relay]).await;
    // Some lives end before each of the three leases of the life before has run out.
    assert!(verdict.claims >= u64::from(KILLS), "{verdict}");
    eprintln!("three streams, {KILLS} kills\n{verdict}");
}
