//! Who publishes a stream, among several relays on a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::time::{Duration, Instant};

use onceward_memory::MemoryBroker;
use onceward_relay::{Role, StreamSettings, StreamStatus};
use onceward_testkit::postgres::Database;

use crate::support::{Running, SOON, database, enqueue, numbered, relay, settings, stores};

#[tokio::test]
async fn another_relay_stands_by_and_takes_over_within_the_ttl() {
    let ttl = Duration::from_secs(8);
    let (database, broker) = (database().await, MemoryBroker::new());
    let (first, second) = holder_and_standby(&database, &broker, ttl).await;

    // No clean stop: the task dies where it stands.
    first.task.abort();
    assert!(first.task.await.unwrap_err().is_cancelled());
    let died = Instant::now();
    enqueue(&database, numbered("orders", 10..20)).await;
    stores(&broker, "orders", 20).await;

    // The lease was renewed before that at the latest; what is beyond is for the first read and a slow machine.
    assert!(died.elapsed() < ttl + ttl / 2, "{:?}", died.elapsed());
    second.stop().await;
}

#[tokio::test]
async fn a_relay_that_stops_hands_over_without_waiting_for_the_ttl() {
    let ttl = Duration::from_secs(40);
    let (database, broker) = (database().await, MemoryBroker::new());
    let (first, second) = holder_and_standby(&database, &broker, ttl).await;

    first.stop().await;
    let stopped = Instant::now();
    enqueue(&database, numbered("orders", 10..20)).await;
    stores(&broker, "orders", 20).await;

    // It asks every second; the rest is for a slow machine. The lease had half of its time at least.
    assert!(stopped.elapsed() < ttl / 4, "{:?}", stopped.elapsed());
    second.stop().await;
}

/// Two relays, of which the first has published ten messages and the second stands by.
async fn holder_and_standby(
    database: &Database,
    broker: &MemoryBroker,
    ttl: Duration,
) -> (Running, Running) {
    let settings = StreamSettings {
        lease_ttl: ttl,
        ..settings()
    };
    let first = relay(database, broker, settings.clone());
    enqueue(database, numbered("orders", 0..10)).await;
    stores(broker, "orders", 10).await;
    let second = relay(database, broker, settings);
    let mut status = second.status.clone();
    let standby = status.wait_for(|status| status.role == Role::Standby);
    tokio::time::timeout(SOON, standby).await.unwrap().unwrap();
    (first, second)
}

#[tokio::test]
async fn a_relay_that_lost_its_lease_tells_nothing_that_only_the_holder_knows() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.stop();
    let running = relay(&database, &broker, settings());
    enqueue(&database, numbered("orders", 0..5)).await;
    let mut status = running.status.clone();
    let waits = |status: &StreamStatus| status.in_flight > 0 && status.destination_paused.is_some();
    let held = status.wait_for(waits);
    tokio::time::timeout(SOON, held).await.unwrap().unwrap();

    sqlx::query(
        "update onceward.streams
         set owner = 'another', lease_token = gen_random_uuid(), lease_until = clock_timestamp() + interval '1 hour'",
    )
    .execute(database.pool())
    .await
    .unwrap();

    let standby = status.wait_for(|status| status.role == Role::Standby);
    let seen = tokio::time::timeout(SOON, standby).await.unwrap().unwrap();
    assert_eq!(seen.in_flight, 0);
    assert_eq!(seen.destination_paused, None);
    drop(seen);
    running.stop().await;
}
