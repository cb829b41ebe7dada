//! Work spread over members by partitioned subjects, on a real server.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod handing_over;
mod reading;
mod refusals;
mod rights;
mod sharing;
#[path = "../support/mod.rs"]
mod support;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::stream::Config;
use onceward_core::{Batch, Key, Message, Outgoing, Publisher as _, RouteTemplate, Routes, Topic};
use onceward_nats::{NatsConfig, NatsPublisher, NatsSubscriber, SubscriberConfig};
use onceward_testkit::nats::Nats;
use onceward_testkit::unique;

const PATIENCE: Duration = Duration::from_secs(60);
const PARTITIONS: u32 = 8;

/// A stream whose subjects end in the partition, and a session to publish to it.
struct Shop {
    config: NatsConfig,
    name: String,
    session: NatsPublisher,
    routes: Routes,
    /// How many messages of each key were published.
    sent: BTreeMap<String, u32>,
}

impl Shop {
    async fn open(nats: &Nats) -> Self {
        let name = unique("shop");
        stream(&jetstream::new(nats.client().await), &name).await;
        Self::of(NatsConfig::new([nats.url()]), name).await
    }

    async fn of(config: NatsConfig, name: String) -> Self {
        let template = format!("{name}.{{topic}}.{{partition/{PARTITIONS}}}");
        let template = RouteTemplate::new(&template, BTreeMap::new()).unwrap();
        let topic = Topic::try_from("orders").unwrap();
        Self {
            session: NatsPublisher::connect(&config).await.unwrap(),
            routes: template.routes(&topic),
            config,
            name,
            sent: BTreeMap::new(),
        }
    }

    /// Publishes the next message of each of so many keys.
    async fn publish(&mut self, keys: u32) {
        let messages = (0..keys).map(|key| {
            let key = format!("key-{key}");
            let next = self.sent.entry(key.clone()).or_default();
            *next += 1;
            let draft = Message::bytes("orders", next.to_string()).key(&key);
            Outgoing {
                route: self.routes.of_key(&Key::try_from(key.as_str()).unwrap()),
                message: draft.finish(1_000).unwrap().message,
                replay: None,
            }
        });
        let messages = messages.collect();
        let pending = self.session.offer(Arc::new(Batch { messages })).await;
        let receipts = tokio::time::timeout(PATIENCE, pending).await.unwrap();
        assert!(receipts.all_confirmed(), "{receipts:?}");
    }

    async fn join(&self, change: impl FnOnce(&mut SubscriberConfig)) -> NatsSubscriber {
        let mut config = self.member();
        change(&mut config);
        NatsSubscriber::join(&self.config, config).await.unwrap()
    }

    fn member(&self) -> SubscriberConfig {
        let subject = format!("{}.*.{{partition/{PARTITIONS}}}", self.name);
        let mut config = SubscriberConfig::new("billing", [subject]);
        config.takeover_after = Duration::from_secs(2);
        config
    }

    /// Publishes while it waits, as a partition has an owner only once it has a message.
    async fn publish_until(&mut self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        let mut every = tokio::time::interval(Duration::from_millis(100));
        while !done() {
            assert!(Instant::now() < end, "waited in vain for {what}");
            every.tick().await;
            self.publish(30).await;
        }
    }

    /// Every message of every key, first in order.
    fn everything(&self) -> ByKey {
        let all = self.sent.iter();
        all.map(|(key, count)| (key.clone(), (1..=*count).collect()))
            .collect()
    }
}

async fn stream(jetstream: &jetstream::Context, name: &str) {
    let config = Config {
        name: name.to_owned(),
        subjects: vec![format!("{name}.>")],
        ..Config::default()
    };
    jetstream.create_stream(config).await.unwrap();
}

/// The numbers of each key's messages.
type ByKey = BTreeMap<String, Vec<u32>>;
