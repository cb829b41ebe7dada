//! Detours: a topic or a key that waits, and a stream that goes on without it.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use onceward_core::{Draft, Key, Message, MessageId, RouteTemplate, Topic};
use onceward_memory::MemoryBroker;
use onceward_relay::{OnRefusal, StreamSettings};
use onceward_testkit::postgres::Database;
use onceward_testkit::wait::until;

use crate::support::{
    SOON, assert_first_arrivals_in_order, database, enqueue, numbered, parked, relay, settings,
    stored, stores,
};

/// A stream in which a paused topic gets its detour soon, and would fill its share of the window at once.
fn impatient() -> StreamSettings {
    StreamSettings {
        detour_after: Duration::from_millis(200),
        in_flight_per_topic: 50,
        ..settings()
    }
}

fn holding() -> StreamSettings {
    StreamSettings {
        on_refusal: OnRefusal::Hold,
        ..settings()
    }
}

fn without(topic: &str) -> MemoryBroker {
    let broker = MemoryBroker::new();
    broker.refuse_unknown_topics();
    for name in ["orders", "payments", "missing"] {
        if name != topic {
            broker.create_topic(name);
        }
    }
    broker
}

async fn detours(database: &Database) -> Vec<String> {
    sqlx::query_scalar("select detour from onceward.cursors where detour <> '' order by 1")
        .fetch_all(database.pool())
        .await
        .unwrap()
}

async fn has_detours(database: &Database, wanted: &[&str]) {
    let what = format!("the detours {wanted:?}");
    until(SOON, &what, || async {
        (detours(database).await == wanted).then_some(())
    })
    .await;
}

/// Payloads by which order is judged: key `k` has `k`, `k + 7`, `k + 14` and so on.
fn of_key(key: u32, numbers: std::ops::Range<u32>) -> Vec<Draft> {
    let message = |n: u32| Message::bytes("orders", (key + 7 * n).to_string()).key(key);
    numbers.map(message).collect()
}

/// What the topic has once a message has come; copies may have come as well.
async fn has_come(broker: &MemoryBroker, number: u32) -> Vec<u32> {
    let what = format!("message {number}");
    until(SOON, &what, || async {
        let found = stored(broker, "orders");
        found.contains(&number).then_some(found)
    })
    .await
}

/// A message that is too large for the topic.
fn too_large(key: u32) -> Vec<Draft> {
    vec![Message::bytes("orders", "9".repeat(2_000)).key(key)]
}

async fn decide(database: &Database, state: &str) {
    let statement = "update onceward.parked
        set state = $1, replays = replays + 1, payload = convert_to('1000', 'utf8')
        where state = 'parked'";
    let done = sqlx::query(statement).bind(state).execute(database.pool());
    assert!(done.await.unwrap().rows_affected() > 0);
}

#[tokio::test]
async fn a_topic_that_is_away_for_long_holds_nobody_and_catches_up_in_order() {
    let (database, broker) = (database().await, without("missing"));
    let running = relay(&database, &broker, impatient());
    for part in 0..10 {
        enqueue(&database, numbered("missing", part * 30..part * 30 + 30)).await;
        enqueue(&database, numbered("orders", part * 50..part * 50 + 50)).await;
    }

    stores(&broker, "orders", 500).await;
    has_detours(&database, &["topic:missing"]).await;
    broker.create_topic("missing");
    stores(&broker, "missing", 300).await;
    has_detours(&database, &[]).await;
    enqueue(&database, numbered("missing", 300..350)).await;
    enqueue(&database, numbered("orders", 500..550)).await;

    assert_first_arrivals_in_order(&stores(&broker, "missing", 350).await, 350);
    assert_first_arrivals_in_order(&stores(&broker, "orders", 550).await, 550);
    assert!(parked(&database).await.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn whoever_takes_over_goes_on_with_a_detour_where_it_stood() {
    let (database, broker) = (database().await, without("missing"));
    let first = relay(&database, &broker, impatient());
    enqueue(&database, numbered("missing", 0..200)).await;
    enqueue(&database, numbered("orders", 0..300)).await;
    stores(&broker, "orders", 300).await;
    has_detours(&database, &["topic:missing"]).await;

    // No clean stop: the task dies where it stands.
    first.task.abort();
    let second = relay(&database, &broker, impatient());
    enqueue(&database, numbered("missing", 200..250)).await;
    enqueue(&database, numbered("orders", 300..350)).await;
    stores(&broker, "orders", 350).await;
    broker.create_topic("missing");

    assert_first_arrivals_in_order(&stores(&broker, "missing", 250).await, 250);
    has_detours(&database, &[]).await;
    second.stop().await;
}

#[tokio::test]
async fn several_topics_that_are_away_catch_up_one_by_one() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.refuse_unknown_topics();
    broker.create_topic("orders");
    let running = relay(&database, &broker, impatient());
    for part in 0..6 {
        for topic in ["missing", "payments", "orders"] {
            enqueue(&database, numbered(topic, part * 40..part * 40 + 40)).await;
        }
    }
    stores(&broker, "orders", 240).await;
    has_detours(&database, &["topic:missing", "topic:payments"]).await;

    broker.create_topic("payments");
    assert_first_arrivals_in_order(&stores(&broker, "payments", 240).await, 240);
    has_detours(&database, &["topic:missing"]).await;
    broker.create_topic("missing");
    assert_first_arrivals_in_order(&stores(&broker, "missing", 240).await, 240);

    has_detours(&database, &[]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_held_key_waits_for_its_refused_message_and_the_others_go_on() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.limit_message("orders", Some(1_000));
    let running = relay(&database, &broker, holding());
    enqueue(&database, of_key(1, 0..5)).await;
    enqueue(&database, too_large(1)).await;
    enqueue(&database, of_key(1, 200..205)).await;
    enqueue(&database, of_key(2, 0..100)).await;

    stores(&broker, "orders", 105).await;
    has_detours(&database, &["key:orders:1"]).await;
    enqueue(&database, of_key(1, 205..207)).await;
    enqueue(&database, of_key(2, 100..150)).await;
    stores(&broker, "orders", 155).await;
    decide(&database, "due").await;

    // The one that was refused comes as 1000, before those that waited for it.
    let all = has_come(&broker, 1 + 7 * 206).await;
    let mut seen = std::collections::HashSet::new();
    let first = all.into_iter().filter(|n| seen.insert(*n));
    let of_one: Vec<u32> = first.filter(|n| *n == 1000 || n % 7 == 1).collect();
    let after: Vec<u32> = (200..207).map(|n| 1 + 7 * n).collect();
    assert_eq!(of_one, [&[1, 8, 15, 22, 29, 1000][..], &after].concat());
    has_detours(&database, &[]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_held_key_is_still_held_after_a_takeover_and_goes_on_once_its_message_is_discarded() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.limit_message("orders", Some(1_000));
    let first = relay(&database, &broker, holding());
    enqueue(&database, too_large(1)).await;
    enqueue(&database, of_key(1, 0..5)).await;
    enqueue(&database, of_key(2, 0..5)).await;
    stores(&broker, "orders", 5).await;
    has_detours(&database, &["key:orders:1"]).await;
    first.task.abort();

    let second = relay(&database, &broker, holding());
    enqueue(&database, of_key(1, 5..10)).await;
    enqueue(&database, of_key(2, 5..10)).await;
    let all = has_come(&broker, 2 + 7 * 9).await;
    assert!(all.iter().all(|n| n % 7 == 2));
    decide(&database, "discarded").await;

    let all = has_come(&broker, 1 + 7 * 9).await;
    let mut seen = std::collections::HashSet::new();
    let of_one = all.into_iter().filter(|n| n % 7 == 1 && seen.insert(*n));
    let expected: Vec<u32> = (0..10).map(|n| 1 + 7 * n).collect();
    assert_eq!(of_one.collect::<Vec<_>>(), expected);
    has_detours(&database, &[]).await;
    second.stop().await;
}

#[tokio::test]
async fn a_key_is_held_within_a_topic_that_has_a_detour() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.fill("orders", true);
    let settings = StreamSettings {
        on_refusal: OnRefusal::Hold,
        ..impatient()
    };
    let running = relay(&database, &broker, settings);
    enqueue(&database, too_large(1)).await;
    enqueue(&database, of_key(1, 0..20)).await;
    enqueue(&database, of_key(2, 0..100)).await;
    enqueue(&database, numbered("payments", 0..50)).await;
    stores(&broker, "payments", 50).await;
    has_detours(&database, &["topic:orders"]).await;

    broker.limit_message("orders", Some(1_000));
    broker.fill("orders", false);
    stores(&broker, "orders", 100).await;
    has_detours(&database, &["key:orders:1"]).await;
    assert!(stored(&broker, "orders").iter().all(|n| n % 7 == 2));
    decide(&database, "due").await;

    let all = has_come(&broker, 1 + 7 * 19).await;
    let mut seen = std::collections::HashSet::new();
    let of_one = all
        .into_iter()
        .filter(|n| (*n == 1000 || n % 7 == 1) && seen.insert(*n));
    let after: Vec<u32> = (0..20).map(|n| 1 + 7 * n).collect();
    assert_eq!(of_one.collect::<Vec<_>>(), [&[1000][..], &after].concat());
    has_detours(&database, &[]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_topic_gets_a_detour_beside_a_key_of_it_that_is_held() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.limit_message("orders", Some(1_000));
    let settings = StreamSettings {
        on_refusal: OnRefusal::Hold,
        ..impatient()
    };
    let running = relay(&database, &broker, settings);
    enqueue(&database, too_large(1)).await;
    enqueue(&database, of_key(1, 0..20)).await;
    has_detours(&database, &["key:orders:1"]).await;
    broker.fill("orders", true);
    enqueue(&database, of_key(2, 0..100)).await;
    has_detours(&database, &["key:orders:1", "topic:orders"]).await;
    decide(&database, "discarded").await;
    enqueue(&database, of_key(1, 20..30)).await;
    enqueue(&database, numbered("payments", 0..50)).await;
    stores(&broker, "payments", 50).await;

    broker.fill("orders", false);

    has_come(&broker, 1 + 7 * 29).await;
    let all = has_come(&broker, 2 + 7 * 99).await;
    for (key, count) in [(1, 30), (2, 100)] {
        let mut seen = std::collections::HashSet::new();
        let of_key = all.iter().filter(|n| *n % 7 == key && seen.insert(**n));
        let expected: Vec<u32> = (0..count).map(|n| key + 7 * n).collect();
        assert_eq!(of_key.copied().collect::<Vec<_>>(), expected);
    }
    has_detours(&database, &[]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_topic_that_comes_and_goes_under_load_loses_nothing() {
    let (database, broker) = (database().await, MemoryBroker::new());
    let settings = StreamSettings {
        detour_after: Duration::ZERO,
        ..settings()
    };
    let running = relay(&database, &broker, settings);
    let mut written = 0;
    for _ in 0..15 {
        broker.fill("orders", true);
        enqueue(&database, numbered("orders", written..written + 5)).await;
        written += 5;
        has_detours(&database, &["topic:orders"]).await;
        broker.fill("orders", false);
        // One at a time, so that some come while the detour is being closed.
        while !detours(&database).await.is_empty() {
            enqueue(&database, numbered("orders", written..written + 1)).await;
            written += 1;
        }
    }

    let all = until(SOON, "the last message", || async {
        let found = stored(&broker, "orders");
        found.contains(&(written - 1)).then_some(found)
    });
    assert_first_arrivals_in_order(&all.await, written);
    running.stop().await;
}

#[tokio::test]
async fn a_spread_topic_keeps_each_key_at_one_route_also_while_one_of_them_is_away() {
    let route = RouteTemplate::new("{topic}.{partition/4}", BTreeMap::new()).unwrap();
    let settings = StreamSettings {
        route: route.clone(),
        ..impatient()
    };
    let routes = route.routes(&Topic::try_from("orders").unwrap());
    let names: Vec<String> = routes
        .iter()
        .map(|route| route.as_str().to_owned())
        .collect();
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.refuse_unknown_topics();
    let away = routes.of(Some(&Key::try_from("3").unwrap()), &MessageId::new());
    for name in names.iter().filter(|name| *name != away.as_str()) {
        broker.create_topic(name);
    }
    let running = relay(&database, &broker, settings);

    enqueue(&database, numbered("orders", 0..200)).await;
    has_detours(&database, &["topic:orders"]).await;
    broker.create_topic(away.as_str());
    enqueue(&database, numbered("orders", 200..300)).await;

    let all = until(SOON, "all of them", || async {
        let found = names.iter().map(|name| stored(&broker, name));
        let found: Vec<Vec<u32>> = found.collect();
        let distinct: HashSet<u32> = found.iter().flatten().copied().collect();
        (distinct.len() == 300).then_some(found)
    })
    .await;
    has_detours(&database, &[]).await;
    for key in 0..7 {
        let with_it = all.iter().filter(|at| at.iter().any(|n| n % 7 == key));
        assert_eq!(with_it.count(), 1, "key {key} is at one route");
    }
    assert_first_arrivals_in_order(&all.concat(), 300);
    running.stop().await;
}
