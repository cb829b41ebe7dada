//! What a relay goes through once its destination is back.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::time::Duration;

use onceward::{LogDatabase, Outbox, Schema};
use onceward_core::Message;
use onceward_memory::MemoryBroker;
use onceward_relay::{Relay, StreamSettings};
use onceward_testkit::postgres::Database;
use onceward_testkit::wait::{until, until_true};
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;

use crate::support::{
    SOON, assert_first_arrivals_in_order, database, enqueue, numbered, settings, stores,
};

/// The name of the relay's sessions.
const RELAY: &str = "the_relay";

/// Waits until the lease is renewed by a statement that begins from now on.
async fn renewed(database: &Database) {
    let until_when = async || {
        let sql = "select lease_until::text from onceward.streams";
        let lease = sqlx::query_scalar::<_, String>(sql).fetch_one(database.pool());
        lease.await.unwrap()
    };
    // Of those that change it, one may have begun before, one tells what is paused and one removes what was parked.
    for _ in 0..4 {
        let before = until_when().await;
        until_true(SOON, "a renewal", async || until_when().await != before).await;
    }
}

/// How many entries of the log's indexes were read, once the relay's sessions have ended: they have told then.
async fn entries(database: &Database) -> i64 {
    let sessions = "select count(*) from pg_stat_activity where application_name = $1 and datname = current_database()";
    until(SOON, "the relay's sessions to end", || async {
        let count = sqlx::query_scalar::<_, i64>(sessions).bind(RELAY);
        let count = count.fetch_one(database.pool()).await.unwrap();
        (count == 0).then_some(())
    })
    .await;
    let sql = "select sum(idx_tup_read)::bigint from pg_stat_user_indexes where relname ~ '^messages_[0-9]+$'";
    let entries = sqlx::query_scalar(sql).fetch_one(database.pool());
    entries.await.unwrap()
}

#[tokio::test]
async fn what_was_written_while_the_destination_was_away_is_gone_through_once() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.stop();
    let options: PgConnectOptions = database.url().parse().unwrap();
    let log = LogDatabase::new(options.application_name(RELAY), Schema::default());
    let settings = StreamSettings {
        chunk: 500,
        in_flight_messages: 1_500,
        in_flight_per_topic: 500,
        detour_after: Duration::from_secs(3_600),
        ..settings()
    };
    // Its transaction has its id, and its message a number, before what is read first.
    let mut slow = database.pool().begin().await.unwrap();
    let late = Message::bytes("late", "0").key("k");
    Outbox::new().enqueue(&mut slow, late).await.unwrap();
    enqueue(&database, numbered("orders", 0..500)).await;
    let relay = Relay::new(log).stream(settings, broker.clone());
    let mut status = relay.statuses().remove(0);
    let stop = CancellationToken::new();
    let running = tokio::spawn(relay.run(stop.clone()));
    let full = status.wait_for(|status| status.in_flight == 500);
    tokio::time::timeout(SOON, full).await.unwrap().unwrap();
    renewed(&database).await;

    enqueue(&database, numbered("orders", 500..4_500)).await;
    slow.commit().await.unwrap();
    broker.start();

    assert_first_arrivals_in_order(&stores(&broker, "orders", 4_500).await, 4_500);
    assert_eq!(stores(&broker, "late", 1).await, [0]);
    stop.cancel();
    running.await.unwrap().unwrap();
    let entries = entries(&database).await;
    // Each row is one, as it is read; and looks are made for late ones among the first 500.
    assert!((4_501..7_000).contains(&entries), "{entries} entries");
}
