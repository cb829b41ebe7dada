//! Messages that the broker refuses: only they are set aside, and a person can have them published after all.

use onceward_testkit::kafka::Kafka;
use onceward_testkit::ledger::Workload;
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::Postgres;
use onceward_testkit::wait;

use crate::failpoints::{LIMIT, write_too_large};
use crate::stage::{Changes, SOON, Stage};

async fn states(stage: &Stage) -> Vec<String> {
    sqlx::query_scalar("select state from onceward.parked order by seq")
        .fetch_all(stage.log.pool())
        .await
        .unwrap()
}

pub(crate) async fn only_the_guilty_are_parked(mut stage: Stage) {
    stage.limit_messages(Some(LIMIT)).await;
    let relay = stage.relay(&Changes::default());
    let writers = stage.write(Workload {
        messages: u64::MAX,
        per_second: Some(300),
        ..stage.workload()
    });
    let mut refused = Vec::new();
    for key in ["key-2", "key-4", "key-6"] {
        let before = stage.published().await;
        stage.wait_until_published(before + 100).await;
        let id = write_too_large(&stage, key).await;
        stage.ledger.excuse(id);
        refused.push(id);
    }
    let before = stage.published().await;
    stage.wait_until_published(before + 100).await;
    writers.stop().await;

    let verdict = stage.ledger.verdict_within(SOON).await;
    assert!(verdict.is_green(), "{verdict}");
    assert_eq!(verdict.published + 3, verdict.committed, "{verdict}");
    assert_eq!(states(&stage).await, ["parked"; 3]);
    let parked: Vec<uuid::Uuid> = sqlx::query_scalar("select id from onceward.parked order by seq")
        .fetch_all(stage.log.pool())
        .await
        .unwrap();
    assert_eq!(parked, refused);

    stage.limit_messages(None).await;
    let numbers: Vec<i64> = sqlx::query_scalar("select seq from onceward.parked order by seq")
        .fetch_all(stage.log.pool())
        .await
        .unwrap();
    for number in numbers {
        stage
            .command(&["parked", "replay", "events", &number.to_string()])
            .await;
    }

    let published = || async { states(&stage).await == ["published"; 3] };
    wait::until_true(SOON, "the replayed messages to be published", published).await;
    let verdict = stage.must_be_green(&[&relay]).await;
    assert_eq!(verdict.published, verdict.committed, "{verdict}");
}

#[tokio::test]
async fn only_what_nats_refuses_is_parked_and_can_be_replayed() {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;

    only_the_guilty_are_parked(stage).await;
}

#[tokio::test]
async fn only_what_kafka_refuses_is_parked_and_can_be_replayed() {
    let stage = Stage::kafka(Postgres::shared().await, Kafka::shared().await).await;

    only_the_guilty_are_parked(stage).await;
}
