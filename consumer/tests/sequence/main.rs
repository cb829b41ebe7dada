//! Dedupe by the producer's own numbers: one row for each key, and every number handled once.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../common/mod.rs"]
mod common;
mod handlers;
mod numbers;
mod switching;
mod waiting;

use std::sync::LazyLock;
use std::time::Duration;

use common::{Stage, TOPIC, quick, write_effect};
use onceward_consumer::{ConsumerBuilder, HandlerSettings, Settled};
use onceward_core::{MAX_PAYLOAD, Message, Source};
use time::OffsetDateTime;

/// One of ours: what it is about, its producer's number, and its number in the log.
fn message(order: i64, number: i64, seq: i64) -> Message {
    let event = serde_json::json!({ "order": order });
    let draft = Message::json(TOPIC, &event).unwrap();
    let draft = draft.key("k").sequence(number);
    let mut message = draft.finish(MAX_PAYLOAD).unwrap().message;
    message.source = Some(Source::try_from("/shop").unwrap());
    message.seq = Some(seq);
    message.time = Some(*BEGAN + Duration::from_secs(seq.unsigned_abs()));
    message
}

/// When the log began: a message was written in the second of its number in it.
static BEGAN: LazyLock<OffsetDateTime> =
    LazyLock::new(|| OffsetDateTime::now_utc() - Duration::from_secs(3_600));

/// What is said of the key: high, gaps, seen, reused.
type Row = (i64, String, i64, bool);

impl Stage {
    /// Publishes the order of that number, which is its number in the log as well.
    fn number(&self, number: i64) {
        self.send(message(number, number, number));
    }

    fn send(&self, message: Message) {
        self.broker.publish(message).unwrap();
    }

    fn by_sequence(&self) -> ConsumerBuilder {
        self.builder().dedupe_by_sequence()
    }

    /// Handles all that is there.
    async fn settle(&self, builder: ConsumerBuilder) -> Settled {
        let subscriber = self.broker.subscriber("billing", &[TOPIC]);
        let consumer = builder.build().unwrap();
        consumer.run_until_idle(subscriber).await.unwrap()
    }

    async fn write_all(&self) -> Settled {
        self.settle(self.by_sequence().on("*", write_effect)).await
    }

    async fn row(&self) -> Row {
        sqlx::query_as("select high, gaps::text, seen, reused from onceward.key_sequences")
            .fetch_one(self.pool())
            .await
            .unwrap()
    }

    async fn marks(&self) -> usize {
        self.outcomes().await.len()
    }

    async fn reasons(&self) -> Vec<String> {
        let letters = self.letters().await.into_iter();
        letters.map(|(reason, ..)| reason).collect()
    }
}

fn row(high: i64, gaps: &str, seen: i64) -> Row {
    (high, gaps.to_owned(), seen, false)
}

fn deferring(attempts: u32) -> HandlerSettings {
    HandlerSettings {
        defer_after: Duration::ZERO,
        ..quick(attempts)
    }
}
