//! A relay on a real PostgreSQL and a broker in memory.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "helpers of tests, each of which needs some of them"
)]

use std::time::Duration;

use onceward::{LogDatabase, Outbox};
use onceward_core::{Draft, Message, Schema, Source};
use onceward_memory::MemoryBroker;
use onceward_relay::{Relay, StreamSettings, StreamStatus};
use onceward_testkit::postgres::{Database, Postgres};
use onceward_testkit::wait::until;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Running {
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), onceward_relay::RelayError>>,
    pub(crate) status: watch::Receiver<StreamStatus>,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

pub(crate) async fn database() -> Database {
    let database = Postgres::shared().await.database().await;
    onceward_migrations::run(database.pool()).await.unwrap();
    database
}

pub(crate) fn settings() -> StreamSettings {
    let mut settings = StreamSettings::new("events", Source::try_from("/test").unwrap());
    settings.lease_ttl = Duration::from_secs(6);
    settings.offer_deadline = Duration::from_secs(3);
    settings
}

pub(crate) fn relay(
    database: &Database,
    broker: &MemoryBroker,
    settings: StreamSettings,
) -> Running {
    relay_of(database, broker, [settings])
}

/// One relay with all of these streams; the status is that of the first.
pub(crate) fn relay_of<const N: usize>(
    database: &Database,
    broker: &MemoryBroker,
    streams: [StreamSettings; N],
) -> Running {
    let log = LogDatabase::new(database.url().parse().unwrap(), Schema::default());
    let add = |relay: Relay, settings| relay.stream(settings, broker.clone());
    let relay = streams.into_iter().fold(Relay::new(log), add);
    let status = relay.statuses().remove(0);
    let stop = CancellationToken::new();
    let task = tokio::spawn(relay.run(stop.clone()));
    Running { stop, task, status }
}

pub(crate) async fn enqueue(database: &Database, drafts: Vec<Draft>) {
    let mut connection = database.pool().acquire().await.unwrap();
    let ids = Outbox::new().enqueue_many(&mut connection, drafts).await;
    ids.unwrap();
}

pub(crate) fn numbered(topic: &str, numbers: std::ops::Range<u32>) -> Vec<Draft> {
    let message = |n: u32| Message::bytes(topic, n.to_string()).key(n % 7);
    numbers.map(message).collect()
}

/// The payloads of a topic, as numbers, in the order in which they were stored.
pub(crate) fn stored(broker: &MemoryBroker, topic: &str) -> Vec<u32> {
    let records = broker.stored(topic);
    let number = |payload: &[u8]| std::str::from_utf8(payload).unwrap().parse().unwrap();
    records
        .iter()
        .map(|record| number(&record.payload))
        .collect()
}

pub(crate) async fn stores(broker: &MemoryBroker, topic: &str, count: usize) -> Vec<u32> {
    let (broker, topic) = (broker.clone(), topic.to_owned());
    let what = format!("{count} messages of {topic}");
    until(SOON, &what, || {
        let found = stored(&broker, &topic);
        async move { (found.len() >= count).then_some(found) }
    })
    .await
}

pub(crate) async fn parked(database: &Database) -> Vec<(String, String)> {
    sqlx::query_as("select convert_from(payload, 'utf8'), state from onceward.parked order by seq")
        .fetch_all(database.pool())
        .await
        .unwrap()
}

/// Makes parked messages of a topic due, as an operator would.
pub(crate) async fn make_due(database: &Database, topic: &str, count: i64) {
    make_due_from(database, topic, 1, count).await;
}

/// The same with numbers from `first` on.
pub(crate) async fn make_due_from(database: &Database, topic: &str, first: i64, count: i64) {
    sqlx::query(
        "insert into onceward.parked (stream, seq, lane, id, topic, key, type, headers, payload, created_at, state, error_kind, error, replays)
         select 'events', 1000000 + n, 1, gen_random_uuid(), $1, 'k', 't', '{}', convert_to(n::text, 'utf8'), now(), 'due', 'rejected', 'refused', 1
         from generate_series($2, $2 + $3 - 1) n",
    )
    .bind(topic)
    .bind(first)
    .bind(count)
    .execute(database.pool())
    .await
    .unwrap();
}

/// All of `0..count` came, those of each key in order; copies may follow.
pub(crate) fn assert_first_arrivals_in_order(all: &[u32], count: u32) {
    let mut seen = std::collections::HashSet::new();
    let first: Vec<u32> = all.iter().copied().filter(|n| seen.insert(*n)).collect();
    for key in 0..7 {
        let got: Vec<u32> = first.iter().copied().filter(|n| n % 7 == key).collect();
        let expected: Vec<u32> = (0..count).filter(|n| n % 7 == key).collect();
        assert_eq!(got, expected, "key {key} of {all:?}");
    }
}
