//! The settings of each kind of client: defaults, then the team's own, then those that the promise depends on.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::{KafkaConfig, KafkaSubscription};

/// Defaults that a team may change.
const COMMON: [(&str, &str); 5] = [
    ("client.id", "onceward"),
    ("socket.keepalive.enable", "true"),
    ("log.connection.close", "false"),
    // A last push of client metrics would hold up the end of every session.
    ("enable.metrics.push", "false"),
    ("reconnect.backoff.max.ms", "2000"),
];

const PRODUCER: [(&str, &str); 5] = [
    // A third of the latency gone at 1,000 messages a second, for the same CPU: what waits goes in batches anyway.
    ("linger.ms", "1"),
    // The caller's window is the bound; these only have to be larger than it.
    ("queue.buffering.max.messages", "500000"),
    ("queue.buffering.max.kbytes", "131072"),
    // The broker's limit is the one that counts.
    ("message.max.bytes", "100000000"),
    // A missing topic must be told before the deadline of the others.
    ("topic.metadata.propagation.max.ms", "5000"),
];

const PRODUCER_FIXED: [(&str, &str); 5] = [
    ("enable.idempotence", "true"),
    ("enable.gapless.guarantee", "true"),
    ("acks", "all"),
    ("message.timeout.ms", "0"),
    ("partitioner", "murmur2_random"),
];

const CONSUMER: [(&str, &str); 4] = [
    // What is fetched ahead, per partition.
    ("queued.min.messages", "10000"),
    ("queued.max.messages.kbytes", "4096"),
    // With a queue that small, the default of a second would be felt.
    ("fetch.queue.backoff.ms", "20"),
    // New topics and partitions are found by this.
    ("topic.metadata.refresh.interval.ms", "30000"),
];

const CONSUMER_FIXED: [(&str, &str); 4] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("partition.assignment.strategy", "cooperative-sticky"),
];

/// A client that only asks.
pub(crate) fn base(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    set_all(&mut client, &COMMON);
    // To look a topic up must not make it.
    let mut client = finish(client, config, &[("allow.auto.create.topics", "false")]);
    // The library never reads this client's log, so that every line would stay in memory.
    client.set_log_level(RDKafkaLogLevel::Emerg);
    client
}

/// A session's client. `largest_request`: bytes that a request may have for one partition.
pub(crate) fn producer(config: &KafkaConfig, largest_request: Option<u64>) -> ClientConfig {
    let mut client = ClientConfig::new();
    set_all(&mut client, &COMMON);
    set_all(&mut client, &PRODUCER);
    let mut client = finish(client, config, &PRODUCER_FIXED);
    if let Some(bytes) = largest_request {
        client.set("batch.size", bytes.to_string());
    }
    client
}

/// A member's client.
pub(crate) fn consumer(config: &KafkaConfig, subscription: &KafkaSubscription) -> ClientConfig {
    let mut client = ClientConfig::new();
    set_all(&mut client, &COMMON);
    set_all(&mut client, &CONSUMER);
    let mut client = finish(client, config, &CONSUMER_FIXED);
    client.set("group.id", &subscription.group);
    client
}

fn finish(mut client: ClientConfig, config: &KafkaConfig, fixed: &[(&str, &str)]) -> ClientConfig {
    for (name, value) in &config.properties {
        client.set(name, value);
    }
    set_all(&mut client, fixed);
    client.set("bootstrap.servers", &config.brokers);
    let debug = config.properties.contains_key("debug");
    client.set_log_level(if debug {
        RDKafkaLogLevel::Debug
    } else {
        RDKafkaLogLevel::Info
    });
    client
}

fn set_all(client: &mut ClientConfig, settings: &[(&str, &str)]) {
    for (name, value) in settings {
        client.set(*name, *value);
    }
}
