//! Dead letters that a person edits, replays and discards, and those that are sent on.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;

use common::{Order, SOON, Stage, effect, quick};
use onceward_consumer::dead_letter::{self, Edit, Filter, Replayed, To};
use onceward_consumer::{ConsumerBuilder, ConsumerError, HandlerError, Schema, Tx};
use onceward_testkit::wait;
use uuid::Uuid;

/// Fails on orders below zero.
async fn positive(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
    if event.order < 0 {
        return Err("below zero".into());
    }
    effect(event.order, tx).await
}

fn builder(stage: &Stage) -> ConsumerBuilder {
    stage.builder().defaults(quick(2)).on("*", positive)
}

async fn buried(stage: &Stage, order: i64, key: Option<i64>) -> i64 {
    stage.publish(order, key);
    let consumer = builder(stage).build().unwrap();
    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    consumer.run_until_idle(subscriber).await.unwrap();
    sqlx::query_scalar("select max(id) from onceward.dead_letters")
        .fetch_one(stage.pool())
        .await
        .unwrap()
}

async fn replay(stage: &Stage, id: i64, to: To) -> Replayed {
    dead_letter::replay(stage.pool(), &Schema::default(), id, to, "alice")
        .await
        .unwrap()
}

fn payload(order: i64) -> Edit {
    Edit {
        payload: Some(
            serde_json::json!({ "order": order })
                .to_string()
                .into_bytes(),
        ),
        set_headers: BTreeMap::from([("mended".to_owned(), "yes".to_owned())]),
        ..Edit::default()
    }
}

/// Buries a message of the key 1, gives it another order and replays it: then it is due, in its line.
async fn edited_and_replayed(stage: &Stage, order: i64) {
    let id = buried(stage, -1, Some(1)).await;
    let edit = payload(order);
    let edited = dead_letter::edit(stage.pool(), &Schema::default(), id, &edit, "alice").await;
    assert!(edited.unwrap());
    assert_eq!(replay(stage, id, To::Consumer).await, Replayed::Done(None));
}

#[tokio::test]
async fn an_edited_dead_letter_is_handled_once_and_copies_of_the_old_one_are_duplicates() {
    let stage = Stage::new().await;
    // The broker is never told, and delivers the old one again.
    stage.broker.drop_acks(true);
    stage.publish(-1, Some(1));
    let running = stage.run(builder(&stage));
    stage.settled(1).await;
    running.kill().await;
    stage.broker.drop_acks(false);
    let schema = Schema::default();
    let id = dead_letter::list(stage.pool(), &schema, &Filter::default())
        .await
        .unwrap()[0]
        .id;
    let edited = dead_letter::edit(stage.pool(), &schema, id, &payload(17), "alice").await;
    assert!(edited.unwrap());

    assert_eq!(replay(&stage, id, To::Consumer).await, Replayed::Done(None));
    assert_eq!(replay(&stage, id, To::Consumer).await, Replayed::NotThere);
    let running = stage.run(builder(&stage));
    wait::until_true(SOON, "the effect", || async {
        stage.effects().await == [17]
    })
    .await;
    running.stop().await;

    assert_eq!(stage.effects().await, [17]);
    assert_eq!(stage.outcomes().await, [0]);
    stage.nothing_waits().await;
    let shown = dead_letter::show(stage.pool(), &schema, id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (shown.summary.state.as_str(), shown.replays),
        ("replayed", 1)
    );
    assert_eq!(shown.headers["mended"], "yes");
    assert_eq!(shown.decisions[1]["what"], "replayed");
    assert_eq!(shown.decisions[1]["by"], "alice");
}

#[tokio::test]
async fn a_replayed_letter_that_fails_again_is_the_same_letter_with_all_attempts() {
    let stage = Stage::new().await;
    let id = buried(&stage, -1, Some(1)).await;

    replay(&stage, id, To::Consumer).await;
    let consumer = builder(&stage).build().unwrap();
    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    let settled = consumer.run_until_idle(subscriber).await.unwrap();

    assert_eq!(settled.dead, 1);
    assert_eq!(stage.letters().await.len(), 1);
    let shown = dead_letter::show(stage.pool(), &Schema::default(), id).await;
    let shown = shown.unwrap().unwrap();
    assert_eq!(shown.summary.state, "dead");
    assert_eq!(shown.summary.attempts, 4, "two of them after the replay");
    let numbers: Vec<u32> = shown.history.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_replay_goes_behind_what_waits_of_its_key_and_live_messages_go_behind_the_replay() {
    let stage = Stage::new().await;
    edited_and_replayed(&stage, 1).await;

    stage.publish(2, Some(1));
    stage.publish(3, Some(1));
    let consumer = builder(&stage).build().unwrap();
    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    consumer.run_until_idle(subscriber).await.unwrap();

    assert_eq!(stage.effects().await, [1, 2, 3]);
}

#[tokio::test]
async fn a_run_until_idle_waits_for_what_is_due_and_locked() {
    let stage = Stage::new().await;
    edited_and_replayed(&stage, 1).await;
    let mut other = stage.pool().begin().await.unwrap();
    sqlx::query("select from onceward.held_keys for update")
        .execute(&mut *other)
        .await
        .unwrap();

    stage.publish(2, None);
    let consumer = builder(&stage).build().unwrap();
    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    let running = tokio::spawn(async move { consumer.run_until_idle(subscriber).await });
    wait::until_true(SOON, "the effect of another one", || async {
        stage.effects().await == [2]
    })
    .await;
    other.rollback().await.unwrap();
    running.await.unwrap().unwrap();

    assert_eq!(stage.effects().await, [2, 1]);
}

#[tokio::test]
async fn a_replay_whose_mark_was_forgotten_is_marked_anew() {
    let stage = Stage::new().await;
    let id = buried(&stage, -1, None).await;
    sqlx::query("delete from onceward.processed_messages")
        .execute(stage.pool())
        .await
        .unwrap();

    replay(&stage, id, To::Consumer).await;

    assert_eq!(stage.outcomes().await, [1]);
}

#[tokio::test]
async fn a_replay_as_a_new_message_is_enqueued_with_a_new_id() {
    let stage = Stage::new().await;
    let id = buried(&stage, -1, Some(5)).await;

    let refused = replay(&stage, id, To::Everybody).await;
    sqlx::query("insert into onceward.streams (stream, topics) values ('events', '{orders*}')")
        .execute(stage.pool())
        .await
        .unwrap();
    let replayed = replay(&stage, id, To::Everybody).await;

    let (new, key, headers, payload): (Uuid, Option<String>, serde_json::Value, Vec<u8>) =
        sqlx::query_as("select id, key, headers, payload from onceward.messages")
            .fetch_one(stage.pool())
            .await
            .unwrap();
    let old: String = sqlx::query_scalar("select original_id from onceward.dead_letters")
        .fetch_one(stage.pool())
        .await
        .unwrap();
    let topic = common::TOPIC.to_owned();
    assert_eq!(
        refused,
        Replayed::NoStream { topic },
        "nobody would publish it"
    );
    assert_eq!(replayed, Replayed::Done(Some(new)));
    assert_eq!(key.as_deref(), Some("5"));
    assert_eq!(headers["onceward-replay-of"], old);
    assert_ne!(new.to_string(), old);
    assert_eq!(payload, br#"{"order":-1}"#);
    assert_eq!(stage.outcomes().await, [2], "the old one stays dead");
    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_letter_that_could_not_be_read_needs_a_type_before_it_is_replayed() {
    let stage = Stage::new().await;
    stage.put(&[("ce-id", b"\xff")], br#"{"order": 3}"#);
    stage.put(&[("x", b"\xff")], br#"{"order": 3}"#);
    let id = buried(&stage, 1, None).await;
    let schema = Schema::default();

    assert_eq!(replay(&stage, id, To::Consumer).await, Replayed::NoType);
    let kind = Edit {
        kind: Some("orders.created".to_owned()),
        ..Edit::default()
    };
    dead_letter::edit(stage.pool(), &schema, id, &kind, "alice")
        .await
        .unwrap();
    assert_eq!(replay(&stage, id, To::Consumer).await, Replayed::Done(None));
    let consumer = builder(&stage).build().unwrap();
    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    consumer.run_until_idle(subscriber).await.unwrap();

    assert_eq!(stage.effects().await, [1, 3]);
}

#[tokio::test]
async fn a_discarded_letter_is_listed_no_more_and_can_still_be_replayed() {
    let stage = Stage::new().await;
    let id = buried(&stage, -1, None).await;
    let schema = Schema::default();

    let numbers = [id, 4711];
    let discard = dead_letter::discard(stage.pool(), &schema, &numbers, "alice");
    assert_eq!(discard.await.unwrap(), [id]);

    let counts = dead_letter::counts(stage.pool(), &schema).await.unwrap();
    assert!(counts.is_empty());
    assert_eq!(replay(&stage, id, To::Consumer).await, Replayed::Done(None));
}

#[tokio::test]
async fn dead_letters_are_sent_on_in_the_transaction_that_writes_them() {
    let stage = Stage::new().await;
    stage.publish(-1, Some(1));
    // Larger than the log takes here: in the table only.
    sqlx::query("update onceward.settings set max_payload = 100")
        .execute(stage.pool())
        .await
        .unwrap();
    stage.put(&[], &[b'x'; 200]);

    let consumer = builder(&stage).dead_letters_to("billing.dead").build();
    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    consumer.unwrap().run_until_idle(subscriber).await.unwrap();

    assert_eq!(stage.letters().await.len(), 2);
    let sent: Vec<(String, Option<String>, serde_json::Value)> =
        sqlx::query_as("select topic, key, headers from onceward.messages")
            .fetch_all(stage.pool())
            .await
            .unwrap();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, "billing.dead");
    assert_eq!(sent[0].1.as_deref(), Some("1"));
    assert_eq!(sent[0].2["onceward-dead-letter-reason"], "attempts");
    assert_eq!(sent[0].2["onceward-dead-letter-consumer"], "billing");
    assert_eq!(sent[0].2["onceward-dead-letter-topic"], common::TOPIC);
}

#[tokio::test]
async fn a_consumer_that_is_to_send_dead_letters_on_and_may_not_does_not_start() {
    let stage = Stage::new().await;
    let options: sqlx::postgres::PgConnectOptions = stage.database.url().parse().unwrap();
    let pool = sqlx::PgPool::connect_with(options.options([("role", "onceward_consumer")]))
        .await
        .unwrap();

    let consumer = builder(&stage).pool(pool).dead_letters_to("billing.dead");
    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    let refused = consumer.build().unwrap().run_until_idle(subscriber).await;

    assert!(
        matches!(refused, Err(ConsumerError::Rights { .. })),
        "{refused:?}"
    );
}
