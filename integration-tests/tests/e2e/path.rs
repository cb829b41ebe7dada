//! Nothing breaks: what is committed is published, and takes effect.

use onceward_testkit::kafka::Kafka;
use onceward_testkit::ledger::Mix;
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::Postgres;

use crate::stage::{Changes, Stage};

async fn everything_arrives(stage: Stage) {
    let relay = stage.relay(&Changes::default());
    let consumer = stage.consumer(&Changes::default().variable("E2E_FAIL_ONE_IN", "20"));

    let mut workload = stage.workload();
    workload.mix = Mix {
        two_phase: 3,
        ..Mix::default()
    };
    let written = stage.write_all(workload).await;

    assert!(
        written.messages >= 1_000 && written.unknown == 0,
        "{written:?}"
    );
    let verdict = stage.must_be_green(&[&relay, &consumer]).await;
    assert_eq!((verdict.duplicates, verdict.claims), (0, 1), "{verdict}");
    assert_eq!(stage.parked().await, 0);
}

#[tokio::test]
async fn what_is_committed_takes_effect_once_and_in_order_by_way_of_nats() {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;

    everything_arrives(stage.consumed().await.ttl("30s")).await;
}

#[tokio::test]
async fn what_is_committed_takes_effect_once_and_in_order_by_way_of_kafka() {
    let stage = Stage::kafka(Postgres::shared().await, Kafka::shared().await).await;

    everything_arrives(stage.consumed().await.ttl("30s")).await;
}

#[tokio::test]
async fn one_transaction_of_many_messages_is_published_whole_and_in_order() {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;
    let relay = stage.relay(&Changes {
        window: Some(15_000),
        ..Changes::default()
    });
    let topic = &stage.topics()[0];

    let mut transaction = stage.log.pool().begin().await.unwrap();
    onceward_testkit::ledger::append_many(&mut transaction, topic, "one", 50_000)
        .await
        .unwrap();
    // Others commit behind it, with higher numbers, while it is open.
    stage.write_all(stage.workload()).await;
    stage.wait_until_published(1_000).await;
    transaction.commit().await.unwrap();

    let verdict = stage.must_be_green(&[&relay]).await;
    assert!(verdict.published >= 51_000, "{verdict}");
}
