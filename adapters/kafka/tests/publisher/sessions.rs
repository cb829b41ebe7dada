use std::time::{Duration, Instant};

use onceward_core::{ErrorKind, Publisher, Route};
use onceward_kafka::{Kafka, KafkaConfig};
use onceward_testkit::kafka::Kafka as Broker;
use onceward_testkit::unique;

use crate::support::*;
use crate::topic;

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_existence_and_limits() {
    let broker = Broker::shared().await;
    let known = topic(broker, &[("max.message.bytes", "12345")]).await;
    let missing = unique("missing");
    let mut session = kafka(broker.brokers()).publisher();

    let reports = session
        .check(&[Route::new(&missing), Route::new(&known)])
        .await;

    assert_eq!(reports[0].route.as_str(), missing);
    assert_eq!(
        reports[0].state.as_ref().unwrap_err().kind,
        ErrorKind::UnknownTopic
    );
    let state = reports[1].state.as_ref().unwrap();
    assert_eq!(state.max_message, Some(12_345));
    assert!(
        state
            .warnings
            .iter()
            .any(|warning| warning.contains("one replica")),
        "{state:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_reached_if_it_answers_whatever_topics_it_has() {
    let broker = Broker::shared().await;
    let nowhere = format!("127.0.0.1:{}", onceward_testkit::free_port());

    let there = kafka(broker.brokers()).publisher().reach().await;
    let gone = kafka(&nowhere).publisher().reach().await;

    assert!(there.is_ok(), "{there:?}");
    assert_eq!(gone.unwrap_err().kind, ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_session_sends_nothing_more() {
    let broker = Broker::shared().await;
    let topic = topic(broker, &[]).await;
    // Long enough that nothing has left before the session is abandoned.
    let config = KafkaConfig::new(broker.brokers()).property("linger.ms", "20000");
    let mut session = Kafka::new(config).unwrap().publisher();
    let pending = session.offer(batch(&numbered(&topic, 10, &[], 0))).await;

    let begin = Instant::now();
    session.abandon().await;

    assert!(begin.elapsed() < Duration::from_secs(10));
    let receipts = pending.await;
    assert_eq!(letters(&receipts), "u".repeat(10));
    let after = publish(&mut session, &numbered(&topic, 1, &[], 0)).await;
    assert!(after.session_over().is_some());
    session.close(Duration::from_secs(5)).await;
    assert!(stored_in_one(broker.brokers(), &topic).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_waits_for_what_is_on_its_way() {
    let broker = Broker::shared().await;
    let topic = topic(broker, &[]).await;
    let mut session = kafka(broker.brokers()).publisher();
    let pending = session.offer(batch(&numbered(&topic, 100, &[], 0))).await;

    session.close(Duration::from_secs(20)).await;

    let receipts = pending.await;
    assert_eq!(letters(&receipts), "c".repeat(100));
    assert!(receipts.session_over().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_is_cancelled_ends_the_session() {
    let broker = Broker::shared().await;
    let topic = topic(broker, &[]).await;
    // Nothing leaves and the queue is full at once: the offer waits for room.
    let config = KafkaConfig::new(broker.brokers())
        .property("linger.ms", "20000")
        .property("queue.buffering.max.messages", "5");
    let mut session = Kafka::new(config).unwrap().publisher();

    let offer = session.offer(batch(&numbered(&topic, 10, &[], 0)));
    assert!(
        tokio::time::timeout(Duration::from_secs(2), offer)
            .await
            .is_err()
    );

    let after = publish(&mut session, &numbered(&topic, 1, &[], 0)).await;
    assert_eq!(letters(&after), "u");
    assert!(after.session_over().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_makes_the_offer_wait_and_loses_nothing() {
    let broker = Broker::shared().await;
    let topic = topic(broker, &[]).await;
    let config = KafkaConfig::new(broker.brokers()).property("queue.buffering.max.messages", "50");
    let mut session = Kafka::new(config).unwrap().publisher();

    let receipts = publish(&mut session, &numbered(&topic, 3_000, &[], 0)).await;

    assert!(receipts.all_confirmed());
    assert_eq!(
        stored_in_one(broker.brokers(), &topic).await,
        numbers(1..=3_000)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_that_do_not_fit_together_are_refused_at_start() {
    let config = KafkaConfig::new("127.0.0.1:9092")
        .property("security.protocol", "sasl_plaintext")
        .property("sasl.mechanisms", "NONE");

    assert!(Kafka::new(config).is_err());
}
