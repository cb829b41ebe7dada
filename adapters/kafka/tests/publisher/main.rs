//! Sessions on a real broker: gap-free, honest about what is known, and over by their deadline.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod outages;
mod refusals;
mod sessions;
#[path = "../support/mod.rs"]
mod support;

use onceward_testkit::kafka::Kafka as Broker;
use onceward_testkit::unique;

async fn topic(broker: &Broker, settings: &[(&str, &str)]) -> String {
    let topic = unique("t");
    broker.create_topic(&topic, 1, settings).await;
    topic
}
