//! Members on a real broker: order, positions, rebalances, and jumps that are told.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod beginnings;
mod positions;
mod rebalances;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use onceward_core::{Arrival, Delivery, Subscriber};
use onceward_kafka::{Kafka, KafkaSubscriber, KafkaSubscription, KafkaToken};
use onceward_testkit::kafka::Kafka as Broker;
use onceward_testkit::unique;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use support::*;
use tokio::time::timeout;

async fn filled(broker: &Broker, partitions: u16, messages: usize) -> String {
    let topic = unique("s");
    broker.create_topic(&topic, partitions, &[]).await;
    fill(broker, &topic, 1, messages).await;
    topic
}

/// Puts numbered messages of ten keys into a topic.
async fn fill(broker: &Broker, topic: &str, from: usize, to: usize) {
    let messages: Vec<_> = (from..=to)
        .map(|n| outgoing(topic, Some(&format!("k{}", n % 10)), format!("{n:06}")))
        .collect();
    let receipts = publish(&mut kafka(broker.brokers()).publisher(), &messages).await;
    assert!(receipts.all_confirmed());
}

fn member(kafka: &Kafka, group: &str, topic: &str) -> KafkaSubscriber {
    kafka
        .subscriber(KafkaSubscription::new(group, [topic]))
        .unwrap()
}

async fn arrivals(member: &mut KafkaSubscriber, room: usize) -> Vec<Arrival<KafkaToken>> {
    let next = timeout(PATIENCE, member.next(room)).await;
    next.expect("something arrives").unwrap()
}

/// Deliveries until there are `count`; everything else is put into `others`.
async fn deliveries(
    member: &mut KafkaSubscriber,
    count: usize,
    others: &mut Vec<Arrival<KafkaToken>>,
) -> Vec<Delivery<KafkaToken>> {
    let mut got = Vec::new();
    while got.len() < count {
        for arrival in arrivals(member, count - got.len()).await {
            match arrival {
                Arrival::Delivery(delivery) => got.push(delivery),
                Arrival::Assigned(_)
                | Arrival::Revoking { .. }
                | Arrival::Lost(_)
                | Arrival::Jumped { .. } => others.push(arrival),
            }
        }
    }
    got
}

fn number(delivery: &Delivery<KafkaToken>) -> usize {
    let message = delivery.message.as_ref().unwrap();
    std::str::from_utf8(&message.payload)
        .unwrap()
        .parse()
        .unwrap()
}

fn tokens(deliveries: &[Delivery<KafkaToken>]) -> Vec<KafkaToken> {
    deliveries
        .iter()
        .map(|delivery| delivery.token.clone())
        .collect()
}

async fn committed(broker: &Broker, group: &str, topic: &str, position: i64) -> bool {
    committed_in(broker, group, topic, 0, position).await
}

async fn committed_in(
    broker: &Broker,
    group: &str,
    topic: &str,
    partition: i32,
    position: i64,
) -> bool {
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.brokers())
        .set("group.id", group)
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    tokio::task::spawn_blocking(move || {
        let found = consumer.committed_offsets(list, Duration::from_secs(5));
        found.is_ok_and(|found| found.elements()[0].offset() == Offset::Offset(position))
    })
    .await
    .unwrap()
}
