//! What is particular to NATS, on a real server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod consuming;
mod publishing;
mod rights;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::Config;
use onceward_core::{
    Arrival, Batch, Delivery, Message, Outgoing, Publisher as _, Receipts, Route, Subscriber as _,
};

use onceward_nats::{NatsConfig, NatsPublisher, NatsSubscriber, NatsToken, SubscriberConfig};

use onceward_testkit::nats::Nats;
use onceward_testkit::{unique, wait};

const PATIENCE: Duration = Duration::from_secs(30);

/// A stream with one subject of the same name.
async fn subject(nats: &Nats) -> String {
    let name = unique("nats");
    stream(nats, &name, |_| {}).await;
    name
}

async fn stream(nats: &Nats, name: &str, change: impl FnOnce(&mut Config)) {
    let mut config = Config {
        name: name.to_owned(),
        subjects: vec![name.to_owned()],
        ..Config::default()
    };
    change(&mut config);
    let jetstream = jetstream::new(nats.client().await);
    jetstream.create_stream(config).await.unwrap();
}

fn message(subject: &str, key: &str, payload: Vec<u8>) -> Outgoing {
    let draft = Message::bytes("topic", payload).key(key);
    Outgoing {
        route: Route::new(subject),
        message: draft.finish(10_000_000).unwrap().message,
        replay: None,
    }
}

async fn session(nats: &Nats) -> NatsPublisher {
    NatsPublisher::connect(&NatsConfig::new([nats.url()]))
        .await
        .unwrap()
}

async fn offer(session: &mut NatsPublisher, messages: &[Outgoing]) -> Receipts {
    let batch = Arc::new(Batch {
        messages: messages.to_vec(),
    });
    let pending = session.offer(batch).await;
    tokio::time::timeout(PATIENCE, pending).await.unwrap()
}

async fn publish(nats: &Nats, subject: &str, count: u32) {
    let messages: Vec<_> = (0..count)
        .map(|n| message(subject, "k", n.to_string().into()))
        .collect();
    let mut session = session(nats).await;
    assert!(offer(&mut session, &messages).await.all_confirmed());
    session.close(Duration::from_secs(5)).await;
}

async fn join(
    nats: &Nats,
    subject: &str,
    change: impl FnOnce(&mut SubscriberConfig),
) -> NatsSubscriber {
    let mut config = SubscriberConfig::new("reader", [subject]);
    change(&mut config);
    NatsSubscriber::join(&NatsConfig::new([nats.url()]), config)
        .await
        .unwrap()
}

/// Reads that many deliveries, copies included.
async fn read(reader: &mut NatsSubscriber, count: usize) -> Vec<Delivery<NatsToken>> {
    let mut deliveries = Vec::new();
    let reading = async {
        while deliveries.len() < count {
            for arrival in reader.next(count - deliveries.len()).await.unwrap() {
                if let Arrival::Delivery(delivery) = arrival {
                    deliveries.push(delivery);
                }
            }
        }
    };
    let read = tokio::time::timeout(PATIENCE, reading).await;
    assert!(read.is_ok(), "only {} of {count} came", deliveries.len());
    deliveries
}

/// Waits until the server has the acks of everything up to there.
async fn acked_up_to(nats: &Nats, subject: &str, position: u64) {
    let jetstream = jetstream::new(nats.client().await);
    let stream = jetstream.get_stream(subject).await.unwrap();
    wait::until_true(PATIENCE, "the acks", || async {
        let info = stream.consumer_info("reader").await.unwrap();
        info.ack_floor.stream_sequence >= position
    })
    .await;
}

fn positions(deliveries: &[Delivery<NatsToken>]) -> Vec<u64> {
    deliveries
        .iter()
        .filter_map(|delivery| delivery.origin.position)
        .collect()
}
