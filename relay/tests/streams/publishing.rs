//! The relay on a real PostgreSQL and a broker in memory: what it publishes, what it parks, what it waits for.

use onceward::Outbox;
use onceward_core::{ErrorKind, Fault, Lane, Message};
use onceward_memory::MemoryBroker;
use onceward_testkit::wait::until;

use crate::support::{
    SOON, assert_first_arrivals_in_order, database, enqueue, make_due, numbered, parked, relay,
    settings, stored, stores,
};

#[tokio::test]
async fn what_is_committed_is_published_in_order_and_its_place_is_stored() {
    let (database, broker) = (database().await, MemoryBroker::new());
    enqueue(&database, numbered("orders", 0..500)).await;
    let running = relay(&database, &broker, settings());

    assert_eq!(
        stores(&broker, "orders", 500).await,
        (0..500).collect::<Vec<_>>()
    );
    enqueue(&database, numbered("orders", 500..600)).await;
    stores(&broker, "orders", 600).await;
    running.stop().await;

    // A clean stop has stored everything: the next holder publishes nothing twice.
    let running = relay(&database, &broker, settings());
    enqueue(&database, numbered("orders", 600..601)).await;
    assert_eq!(
        stores(&broker, "orders", 601).await,
        (0..601).collect::<Vec<_>>()
    );
    running.stop().await;
}

#[tokio::test]
async fn a_message_the_broker_never_takes_is_parked_at_once_and_its_neighbours_pass() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.limit_message("orders", Some(2_000));
    let mut drafts = numbered("orders", 0..50);
    drafts.insert(20, Message::bytes("orders", "9".repeat(3_000)).key(3));
    enqueue(&database, drafts).await;
    let running = relay(&database, &broker, settings());

    let published = stores(&broker, "orders", 50).await;

    assert_first_arrivals_in_order(&published, 50);
    let parked = parked(&database).await;
    assert_eq!(parked.len(), 1);
    assert_eq!((parked[0].0.len(), parked[0].1.as_str()), (3_000, "parked"));
    running.stop().await;
}

#[tokio::test]
async fn a_parked_message_that_is_made_due_is_published_again() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.limit_message("orders", Some(1_000));
    enqueue(
        &database,
        vec![Message::bytes("orders", "7".repeat(2_000)).key(1)],
    )
    .await;
    let running = relay(&database, &broker, settings());
    until(SOON, "a parked row", || async {
        (parked(&database).await.len() == 1).then_some(())
    })
    .await;

    broker.limit_message("orders", None);
    sqlx::query("update onceward.parked set state = 'due', replays = replays + 1")
        .execute(database.pool())
        .await
        .unwrap();

    until(SOON, "the replayed message", || async {
        (broker.stored("orders").len() == 1).then_some(())
    })
    .await;
    until(SOON, "a row that knows", || async {
        (parked(&database).await[0].1 == "published").then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn an_unknown_topic_waits_and_the_others_go_on() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.refuse_unknown_topics();
    broker.create_topic("orders");
    enqueue(&database, numbered("missing", 0..10)).await;
    enqueue(&database, numbered("orders", 0..100)).await;
    let running = relay(&database, &broker, settings());

    stores(&broker, "orders", 100).await;
    let mut status = running.status.clone();
    let paused =
        status.wait_for(|status| status.paused_topics.iter().any(|p| p.route == "missing"));
    tokio::time::timeout(SOON, paused).await.unwrap().unwrap();
    broker.create_topic("missing");

    assert_eq!(
        stores(&broker, "missing", 10).await,
        (0..10).collect::<Vec<_>>()
    );
    assert!(parked(&database).await.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_away_costs_nothing_but_time() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.stop();
    let running = relay(&database, &broker, settings());
    enqueue(&database, numbered("orders", 0..100)).await;
    let mut status = running.status.clone();
    let paused = status.wait_for(|status| status.destination_paused.is_some());
    tokio::time::timeout(SOON, paused).await.unwrap().unwrap();

    broker.start();

    assert_eq!(
        stores(&broker, "orders", 100).await,
        (0..100).collect::<Vec<_>>()
    );
    assert!(parked(&database).await.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn refusals_that_are_the_destinations_own_park_nothing() {
    let (database, broker) = (database().await, MemoryBroker::new());
    let running = relay(&database, &broker, settings());

    for kind in [
        ErrorKind::Unavailable,
        ErrorKind::Throttled,
        ErrorKind::Unauthorized,
        ErrorKind::UnknownTopic,
    ] {
        assert_ne!(kind.fault(), Fault::Message);
        let topic = kind.name();
        broker.refuse_next(5, kind);
        enqueue(&database, numbered(topic, 0..100)).await;

        let published = stores(&broker, topic, 100).await;

        assert_first_arrivals_in_order(&published, 100);
        assert!(parked(&database).await.is_empty(), "{topic}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_topic_that_nobody_reads_is_noted_and_passed() {
    let (database, broker) = (database().await, MemoryBroker::new());
    let mut settings = settings();
    settings.topics = vec!["orders".try_into().unwrap()];
    enqueue(&database, numbered("stock", 0..3)).await;
    enqueue(&database, numbered("orders", 0..3)).await;
    let running = relay(&database, &broker, settings);

    stores(&broker, "orders", 3).await;

    until(SOON, "the note", || async {
        let noted: Vec<String> = sqlx::query_scalar("select topic from onceward.unrouted")
            .fetch_all(database.pool())
            .await
            .unwrap();
        (noted == ["stock"]).then_some(())
    })
    .await;
    assert!(broker.stored("stock").is_empty());
    running.stop().await;
}

#[tokio::test]
async fn lanes_where_nothing_came_are_read_while_another_one_is_busy() {
    let (database, broker) = (database().await, MemoryBroker::new());
    let running = relay(&database, &broker, settings());
    let busy = async {
        for n in 0.. {
            enqueue(&database, numbered("orders", n..n + 1)).await;
        }
    };
    let others = async {
        stores(&broker, "orders", 200).await;
        for (topic, lane) in [("alarms", Lane::Critical), ("exports", Lane::Bulk)] {
            let draft = Message::bytes(topic, "0").key("a").lane(lane);
            enqueue(&database, vec![draft]).await;
            stores(&broker, topic, 1).await;
        }
    };

    tokio::select! {
        () = busy => {}
        () = others => {}
    }

    running.stop().await;
}

#[tokio::test]
async fn a_late_commit_below_the_cursor_is_published() {
    let (database, broker) = (database().await, MemoryBroker::new());
    let running = relay(&database, &broker, settings());
    let mut slow = database.pool().begin().await.unwrap();
    let draft = Message::bytes("orders", "1").key("a");
    Outbox::new().enqueue(&mut slow, draft).await.unwrap();
    enqueue(&database, numbered("orders", 2..3)).await;
    stores(&broker, "orders", 1).await;

    slow.commit().await.unwrap();

    assert_eq!(stores(&broker, "orders", 2).await, [2, 1]);
    running.stop().await;
}

#[tokio::test]
async fn many_replays_are_published_once_each_and_in_order() {
    let (database, broker) = (database().await, MemoryBroker::new());
    make_due(&database, "orders", 100).await;
    let running = relay(&database, &broker, settings());

    until(SOON, "all rows to know", || async {
        let parked = parked(&database).await;
        parked
            .iter()
            .all(|(_, state)| state == "published")
            .then_some(())
    })
    .await;

    assert_eq!(stored(&broker, "orders"), (1..=100).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test]
async fn replays_to_a_full_topic_hold_no_live_message() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.fill("full", true);
    make_due(&database, "full", 100).await;
    let running = relay(&database, &broker, settings());
    enqueue(&database, numbered("orders", 0..500)).await;

    stores(&broker, "orders", 500).await;

    assert!(broker.stored("full").is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_replay_on_a_quiet_stream_is_tried_again_when_its_topic_is_there() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.refuse_unknown_topics();
    make_due(&database, "missing", 1).await;
    let running = relay(&database, &broker, settings());
    let mut status = running.status.clone();
    let paused = status.wait_for(|status| !status.paused_topics.is_empty());
    tokio::time::timeout(SOON, paused).await.unwrap().unwrap();

    broker.create_topic("missing");

    stores(&broker, "missing", 1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_full_topic_waits_and_the_others_go_on_in_the_same_session() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.fill("full", true);
    enqueue(&database, numbered("full", 0..10)).await;
    let running = relay(&database, &broker, settings());
    let mut status = running.status.clone();
    let paused = status.wait_for(|status| status.paused_topics.iter().any(|p| p.route == "full"));
    tokio::time::timeout(SOON, paused).await.unwrap().unwrap();

    enqueue(&database, numbered("orders", 0..100)).await;
    stores(&broker, "orders", 100).await;
    assert!(status.borrow().destination_paused.is_none());
    broker.fill("full", false);

    assert_eq!(
        stores(&broker, "full", 10).await,
        (0..10).collect::<Vec<_>>()
    );
    running.stop().await;
}

#[tokio::test]
async fn a_replay_whose_topic_is_away_keeps_no_other_waiting_and_can_be_discarded() {
    let (database, broker) = (database().await, MemoryBroker::new());
    broker.refuse_unknown_topics();
    broker.create_topic("orders");
    make_due(&database, "missing", 1).await;
    let running = relay(&database, &broker, settings());
    let mut status = running.status.clone();
    let paused = status.wait_for(|status| !status.paused_topics.is_empty());
    tokio::time::timeout(SOON, paused).await.unwrap().unwrap();

    sqlx::query("update onceward.parked set seq = 5, state = 'discarded'")
        .execute(database.pool())
        .await
        .unwrap();
    make_due(&database, "orders", 1).await;
    stores(&broker, "orders", 1).await;
    broker.create_topic("missing");
    enqueue(&database, numbered("missing", 7..8)).await;

    assert_eq!(stores(&broker, "missing", 1).await, [7]);
    running.stop().await;
    assert_eq!(stored(&broker, "missing"), [7]);
}
