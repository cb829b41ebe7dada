//! Messages, topics and a look at the broker, for the tests of the adapter.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use onceward_core::{Batch, MAX_PAYLOAD, Message, Outcome, Outgoing, Publisher, Receipts, Route};
use onceward_kafka::{Kafka, KafkaConfig, KafkaPublisher};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers, Message as _};
use rdkafka::{Offset, TopicPartitionList};

pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) fn kafka(brokers: &str) -> Kafka {
    Kafka::new(KafkaConfig::new(brokers).deadline(Duration::from_secs(20))).unwrap()
}

pub(crate) fn outgoing(topic: &str, key: Option<&str>, payload: impl Into<Vec<u8>>) -> Outgoing {
    let mut draft = Message::bytes(topic, payload.into());
    if let Some(key) = key {
        draft = draft.key(key);
    }
    Outgoing {
        route: Route::new(topic),
        message: draft.finish(10 * MAX_PAYLOAD).unwrap().message,
        replay: None,
    }
}

/// Messages of one key, numbered from one; `large` of them with a payload of that many bytes.
pub(crate) fn numbered(topic: &str, count: usize, large: &[usize], bytes: usize) -> Vec<Outgoing> {
    let one = |n: usize| {
        let mut payload = format!("{n:06}").into_bytes();
        payload.resize(if large.contains(&n) { bytes } else { 6 }, b'x');
        outgoing(topic, Some("k"), payload)
    };
    (1..=count).map(one).collect()
}

pub(crate) fn batch(messages: &[Outgoing]) -> Arc<Batch> {
    Arc::new(Batch {
        messages: messages.to_vec(),
    })
}

pub(crate) async fn publish(session: &mut KafkaPublisher, messages: &[Outgoing]) -> Receipts {
    let pending = session.offer(batch(messages)).await;
    let receipts = tokio::time::timeout(PATIENCE, pending).await;
    receipts.expect("an offer is answered by its deadline")
}

/// One letter per message: confirmed, failed, suspect, unconfirmed.
pub(crate) fn letters(receipts: &Receipts) -> String {
    let letters = receipts.outcomes().iter().map(|outcome| match outcome {
        Outcome::Confirmed => 'c',
        Outcome::Failed(_) => 'f',
        Outcome::Suspect(_) => 's',
        Outcome::Unconfirmed => 'u',
    });
    letters.collect()
}

pub(crate) async fn alter(brokers: &str, topic: &str, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (name, value) in settings {
        change = change.set(name, value);
    }
    let done = admin.alter_configs([&change], &AdminOptions::new()).await;
    done.unwrap().remove(0).unwrap();
}

/// A record as the broker stores it.
pub(crate) struct Stored {
    pub(crate) partition: i32,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, bytes::Bytes)>,
    pub(crate) payload: Vec<u8>,
}

/// All records of a topic, in order per partition. Read without the adapter.
pub(crate) async fn records(brokers: &str, topic: &str) -> Vec<Stored> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || read(&brokers, &topic))
        .await
        .unwrap()
}

fn reader(brokers: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "a look at the broker")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap()
}

fn read(brokers: &str, topic: &str) -> Vec<Stored> {
    let consumer = reader(brokers);
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let mut found = Vec::new();
    let mut left = 0;
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition.id(), PATIENCE)
            .unwrap();
        left += high - low;
        list.add_partition_offset(topic, partition.id(), Offset::Offset(low))
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let begin = std::time::Instant::now();
    while left > 0 {
        assert!(begin.elapsed() < PATIENCE, "{left} records do not come");
        let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let headers = record.headers().into_iter().flat_map(Headers::iter);
        found.push(Stored {
            partition: record.partition(),
            key: record.key().map(<[u8]>::to_vec),
            headers: headers
                .map(|header| {
                    let value = header.value.unwrap_or_default();
                    (header.key.to_owned(), bytes::Bytes::copy_from_slice(value))
                })
                .collect(),
            payload: record.payload().unwrap_or_default().to_vec(),
        });
        left -= 1;
    }
    found
}

pub(crate) async fn add_partitions(brokers: &str, topic: &str, count: usize) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    let more = NewPartitions::new(topic, count);
    let done = admin.create_partitions([&more], &AdminOptions::new()).await;
    done.unwrap().remove(0).unwrap();
}

/// Removes the oldest records of each partition so that the newest `keep` are left.
pub(crate) async fn forget_all_but(brokers: &str, topic: &str, keep: i64) {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    let list = tokio::task::spawn_blocking({
        let brokers = brokers.clone();
        move || {
            let consumer = reader(&brokers);
            let metadata = consumer.fetch_metadata(Some(&topic), PATIENCE).unwrap();
            let mut list = TopicPartitionList::new();
            for partition in metadata.topics()[0].partitions() {
                let (low, high) = consumer
                    .fetch_watermarks(&topic, partition.id(), PATIENCE)
                    .unwrap();
                let first = Offset::Offset((high - keep).max(low));
                list.add_partition_offset(&topic, partition.id(), first)
                    .unwrap();
            }
            list
        }
    });
    let list = list.await.unwrap();
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    admin
        .delete_records(&list, &AdminOptions::new())
        .await
        .unwrap();
}

/// The first six bytes of the payloads in a topic with one partition.
pub(crate) async fn stored_in_one(brokers: &str, topic: &str) -> Vec<String> {
    let records = records(brokers, topic).await.into_iter();
    let texts = records.map(|record| {
        let text = &record.payload[..record.payload.len().min(6)];
        String::from_utf8_lossy(text).into_owned()
    });
    texts.collect()
}

/// What `numbered` wrote.
pub(crate) fn numbers(range: std::ops::RangeInclusive<usize>) -> Vec<String> {
    range.map(|n| format!("{n:06}")).collect()
}
