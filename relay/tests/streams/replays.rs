//! Messages that somebody made due, beside topics that are away and a database that is slow.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::time::Duration;

use onceward_memory::MemoryBroker;

use crate::support::{
    Running, SOON, database, enqueue, make_due, make_due_from, numbered, relay, settings, stored,
    stores,
};

async fn until_paused(running: &Running, paused: bool) {
    let mut status = running.status.clone();
    let changed = status.wait_for(|status| status.paused_topics.is_empty() != paused);
    tokio::time::timeout(SOON, changed).await.unwrap().unwrap();
}

#[tokio::test]
async fn many_replays_of_a_topic_that_is_away_hide_none_behind_them() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.refuse_unknown_topics();
    broker.create_topic("orders");
    make_due(&database, "missing", 250).await;
    make_due_from(&database, "orders", 1_000, 3).await;
    let running = relay(&database, &broker, settings());

    assert_eq!(stores(&broker, "orders", 3).await, [1_000, 1_001, 1_002]);

    // And those before them go on once their topic is there.
    broker.create_topic("missing");
    let mut replayed = stores(&broker, "missing", 250).await;
    replayed.sort_unstable();
    assert_eq!(replayed, (1..=250).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test]
async fn a_replay_whose_topic_is_full_puts_off_no_replay_of_another_topic() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.fill("full", true);
    make_due(&database, "full", 1).await;
    let running = relay(&database, &broker, settings());
    until_paused(&running, true).await;

    // Sooner than the failed one is tried again.
    make_due_from(&database, "orders", 2, 1).await;
    let others = tokio::time::timeout(Duration::from_secs(4), stores(&broker, "orders", 1));

    assert_eq!(others.await.unwrap(), [2]);
    assert!(stored(&broker, "full").is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_topic_of_which_a_person_has_discarded_the_last_message_is_paused_no_more() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.refuse_unknown_topics();
    make_due(&database, "missing", 1).await;
    let running = relay(&database, &broker, settings());
    until_paused(&running, true).await;

    sqlx::query("update onceward.parked set state = 'discarded'")
        .execute(database.pool())
        .await
        .unwrap();

    until_paused(&running, false).await;
    running.stop().await;
}

#[tokio::test]
async fn a_database_that_takes_long_to_store_where_a_busy_stream_stands_delays_no_replay() {
    let (database, broker) = (database().await, MemoryBroker::new());
    let slow = "
create function onceward.slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.2); return new; end';
create trigger slow before update on onceward.cursors for each statement execute function onceward.slow()";
    sqlx::raw_sql(slow).execute(database.pool()).await.unwrap();
    let running = relay(&database, &broker, settings());
    let busy = async {
        for n in 0.. {
            enqueue(&database, numbered("orders", n..n + 1)).await;
        }
    };
    let replayed = async {
        stores(&broker, "orders", 200).await;
        make_due(&database, "payments", 1).await;
        stores(&broker, "payments", 1).await;
    };

    tokio::select! {
        () = busy => {}
        () = replayed => {}
    }

    running.stop().await;
}
