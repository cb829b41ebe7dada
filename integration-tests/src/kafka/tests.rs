use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::*;

async fn store_one(kafka: &Kafka, topic: &str) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .set("acks", "all")
        .create()
        .unwrap();
    let record = FutureRecord::to(topic).key("k").payload("v");
    producer
        .send(record, Duration::from_secs(20))
        .await
        .unwrap();
}

async fn stored(kafka: &Kafka, topic: &str) -> i64 {
    let (brokers, topic) = (kafka.brokers().to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .create()
            .unwrap();
        client
            .fetch_watermarks(&topic, 0, Duration::from_secs(20))
            .unwrap()
            .1
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn what_was_stored_survives_a_kill_and_a_stop() {
    let kafka = Kafka::start(Options::default()).await;
    kafka.create_topic("kept", 1, &[]).await;
    store_one(&kafka, "kept").await;

    kafka.kill();
    kafka.start_again().await;
    assert_eq!(stored(&kafka, "kept").await, 1);
    kafka.stop().await;
    kafka.start_again().await;

    assert_eq!(stored(&kafka, "kept").await, 1);
}

#[tokio::test]
async fn a_topic_of_the_shared_broker_can_be_written() {
    let kafka = Kafka::shared().await;
    let topic = crate::unique("orders");

    kafka
        .create_topic(&topic, 3, &[("max.message.bytes", "1000")])
        .await;

    store_one(kafka, &topic).await;
}

#[tokio::test]
async fn clients_come_through_a_proxy_when_its_port_is_advertised() {
    let advertised_port = crate::free_port();
    let kafka = Kafka::start(Options {
        advertised_port: Some(advertised_port),
        ..Options::default()
    })
    .await;
    let mut proxy = crate::proxy::Proxy::on(advertised_port, kafka.port()).await;
    kafka.create_topic("kept", 1, &[]).await;
    store_one(&kafka, "kept").await;

    proxy.swallow_answers();
    let unknown = tokio::time::timeout(Duration::from_secs(2), store_one(&kafka, "kept")).await;
    proxy.heal().await;

    assert!(
        unknown.is_err(),
        "an answer came through a proxy that swallows them"
    );
    assert!(stored(&kafka, "kept").await >= 1);
}
