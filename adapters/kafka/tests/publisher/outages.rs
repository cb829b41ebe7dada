use std::time::{Duration, Instant};

use onceward_core::{ErrorKind, Publisher, Route};
use onceward_kafka::{Kafka, KafkaConfig};
use onceward_testkit::kafka::{Kafka as Broker, Options};

use crate::support::*;
use crate::topic;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_frozen_broker_does_not_answer_is_unconfirmed_at_the_deadline() {
    let broker = Broker::start(Options::default()).await;
    let topic = topic(&broker, &[]).await;
    let config = KafkaConfig::new(broker.brokers()).deadline(Duration::from_secs(2));
    let kafka = Kafka::new(config).unwrap();
    let mut session = kafka.publisher();
    let messages = numbered(&topic, 10, &[], 0);
    // A broker that has only begun may take longer for its first answers than this deadline is.
    while !publish(&mut session, &messages[..1]).await.all_confirmed() {
        session = kafka.publisher();
    }

    broker.freeze();
    let begin = Instant::now();
    let receipts = publish(&mut session, &messages[1..]).await;

    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(letters(&receipts), "u".repeat(9));
    assert_eq!(
        receipts.session_over().unwrap().kind,
        ErrorKind::Unavailable
    );
    broker.cont();
    let mut next = kafka.publisher();
    let mut again = publish(&mut next, &messages[1..]).await;
    while !again.all_confirmed() {
        next = kafka.publisher();
        again = publish(&mut next, &messages[1..]).await;
    }
    let mut first_arrivals: Vec<String> = Vec::new();
    for number in stored_in_one(broker.brokers(), &topic).await {
        if !first_arrivals.contains(&number) {
            first_arrivals.push(number);
        }
    }
    assert_eq!(first_arrivals, numbers(1..=10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_comes_back_within_the_deadline_gets_everything_in_order() {
    let broker = Broker::start(Options::default()).await;
    let topic = topic(&broker, &[]).await;
    let deadline = Duration::from_secs(90);
    let config = KafkaConfig::new(broker.brokers()).deadline(deadline);
    let mut session = Kafka::new(config).unwrap().publisher();
    let messages = numbered(&topic, 2_000, &[], 0);
    assert!(
        publish(&mut session, &messages[..1_000])
            .await
            .all_confirmed()
    );

    broker.kill();
    let pending = session.offer(batch(&messages[1_000..])).await;
    broker.start_again().await;
    let receipts = tokio::time::timeout(deadline + PATIENCE, pending)
        .await
        .unwrap();

    assert!(receipts.all_confirmed(), "{:?}", receipts.session_over());
    assert_eq!(
        stored_in_one(broker.brokers(), &topic).await,
        numbers(1..=2_000)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_not_there_costs_no_more_than_the_deadline() {
    let port = onceward_testkit::free_port();
    let config = KafkaConfig::new(format!("127.0.0.1:{port}")).deadline(Duration::from_secs(2));
    let mut session = Kafka::new(config).unwrap().publisher();

    let begin = Instant::now();
    let receipts = publish(&mut session, &numbered("orders", 3, &[], 0)).await;
    let reports = session.check(&[Route::new("orders")]).await;

    assert_eq!(letters(&receipts), "uuu");
    assert!(
        begin.elapsed() < Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(
        reports[0].state.as_ref().unwrap_err().kind,
        ErrorKind::Unavailable
    );
}
