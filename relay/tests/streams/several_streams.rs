//! Streams of one relay, which share what they read and publish each its own.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::time::Duration;

use onceward_memory::MemoryBroker;
use onceward_relay::StreamSettings;
use onceward_testkit::postgres::Database;
use onceward_testkit::wait::until;

use crate::support::{
    SOON, assert_first_arrivals_in_order, database, enqueue, numbered, relay_of, settings, stored,
    stores,
};

fn stream(name: &str, topic: &str) -> StreamSettings {
    StreamSettings {
        name: name.to_owned(),
        topics: vec![topic.try_into().unwrap()],
        detour_after: Duration::from_millis(200),
        in_flight_per_topic: 50,
        ..settings()
    }
}

/// How many main cursors of the standard lane have come to the end of the log.
async fn at_the_end(database: &Database) -> i64 {
    let sql = "select count(*) from onceward.cursors
        where lane = 1 and detour = '' and last_seq = (select max(seq) from onceward.messages)";
    sqlx::query_scalar(sql)
        .fetch_one(database.pool())
        .await
        .unwrap()
}

async fn come_to_the_end(database: &Database, streams: i64) {
    until(SOON, "the end of the log", || async {
        (at_the_end(database).await == streams).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_passes_over_the_messages_of_others_stores_its_place_and_finds_its_own() {
    let (database, broker) = (database().await, MemoryBroker::new());
    let streams = [stream("orders", "orders"), stream("mails", "mails")];
    let running = relay_of(&database, &broker, streams);

    for part in 0..10 {
        enqueue(&database, numbered("orders", part * 50..part * 50 + 50)).await;
        enqueue(&database, numbered("mails", part..part + 1)).await;
        // Its message is the last of all: whoever publishes it has passed over those before.
        stores(&broker, "mails", part as usize + 1).await;
    }
    stores(&broker, "orders", 500).await;
    enqueue(&database, numbered("orders", 500..550)).await;

    come_to_the_end(&database, 2).await;
    assert_first_arrivals_in_order(&stores(&broker, "orders", 550).await, 550);
    assert_first_arrivals_in_order(&stored(&broker, "mails"), 10);
    running.stop().await;
}

#[tokio::test]
async fn a_stream_with_a_detour_passes_over_the_messages_of_others_on_both_lines() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.refuse_unknown_topics();
    broker.create_topic("orders");
    broker.create_topic("mails.sent");
    let streams = [stream("orders", "orders"), stream("mails", "mails.*")];
    let running = relay_of(&database, &broker, streams);
    enqueue(&database, numbered("mails.lost", 0..100)).await;
    until(SOON, "the detour", || async {
        let sql = "select count(*) from onceward.cursors where detour = 'topic:mails.lost'";
        let detours: i64 = sqlx::query_scalar(sql)
            .fetch_one(database.pool())
            .await
            .unwrap();
        (detours > 0).then_some(())
    })
    .await;

    for part in 0..10 {
        enqueue(&database, numbered("orders", part * 50..part * 50 + 50)).await;
        enqueue(&database, numbered("mails.sent", part..part + 1)).await;
        stores(&broker, "mails.sent", part as usize + 1).await;
    }
    enqueue(&database, numbered("mails.lost", 100..150)).await;
    enqueue(&database, numbered("orders", 500..550)).await;
    come_to_the_end(&database, 2).await;
    broker.create_topic("mails.lost");

    assert_first_arrivals_in_order(&stores(&broker, "mails.lost", 150).await, 150);
    assert_first_arrivals_in_order(&stored(&broker, "mails.sent"), 10);
    assert_first_arrivals_in_order(&stores(&broker, "orders", 550).await, 550);
    running.stop().await;
}
