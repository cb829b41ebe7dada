//! One id with two payloads.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{Stage, write_effect};
use onceward_consumer::Limits;
use onceward_core::{MAX_PAYLOAD, Message, MessageId};
use uuid::Uuid;

impl Stage {
    fn publish_as(&self, id: Uuid, order: i64) {
        let event = serde_json::json!({ "order": order });
        let draft = Message::json(common::TOPIC, &event).unwrap();
        let mut message = draft.finish(MAX_PAYLOAD).unwrap().message;
        message.id = MessageId::Uuid(id);
        message.seq = Some(1);
        self.broker.publish(message).unwrap();
    }
}

#[tokio::test]
async fn another_message_with_an_id_that_was_settled_is_a_dead_letter_and_its_copies_are_duplicates()
 {
    let stage = Stage::new().await;
    let id = Uuid::now_v7();
    for order in [1, 1, 2, 2, 1] {
        stage.publish_as(id, order);
    }

    let consumer = stage.builder().on("*", write_effect).build().unwrap();
    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    let settled = consumer.run_until_idle(subscriber).await.unwrap();

    assert_eq!(
        (settled.handled, settled.dead, settled.duplicates),
        (1, 1, 3)
    );
    assert_eq!(stage.effects().await.len(), 1);
    let letters: Vec<(String, Uuid, String)> =
        sqlx::query_as("select reason, message_id, original_id from onceward.dead_letters")
            .fetch_all(stage.pool())
            .await
            .unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].0, "id_conflict");
    assert_ne!(letters[0].1, id, "under a mark of its own");
    assert_eq!(letters[0].2, id.to_string());
}

#[tokio::test]
async fn an_id_conflict_with_a_type_without_a_handler_is_told_as_such() {
    let stage = Stage::new().await;
    let id = Uuid::now_v7();
    stage.publish_as(id, 1);
    stage.publish_as(id, 2);

    let consumer = stage.builder().on("else", write_effect).build().unwrap();
    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    consumer.run_until_idle(subscriber).await.unwrap();

    let mut reasons: Vec<String> = stage.letters().await.into_iter().map(|one| one.0).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["id_conflict", "no_handler"]);
}

#[tokio::test]
async fn an_id_of_somebody_elses_is_one_message_of_its_source_and_another_payload_under_it_a_dead_letter()
 {
    let stage = Stage::new().await;
    for (source, order) in [("/a", 1), ("/a", 1), ("/a", 2), ("/b", 3), ("/a", 2)] {
        let payload = format!(r#"{{"order": {order}}}"#);
        let named: [(&str, &[u8]); 2] = [("ce-id", b"17"), ("ce-source", source.as_bytes())];
        stage.put(&named, payload.as_bytes());
    }

    // They have no key, and which payload comes first decides.
    let one_by_one = Limits {
        concurrency: 1,
        ..Limits::default()
    };
    let builder = stage.builder().limits(one_by_one);
    let consumer = builder.on("*", write_effect).build().unwrap();
    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    let settled = consumer.run_until_idle(subscriber).await.unwrap();

    assert_eq!(
        (settled.handled, settled.dead, settled.duplicates),
        (2, 1, 2)
    );
    let mut effects = stage.effects().await;
    effects.sort_unstable();
    assert_eq!(effects, [1, 3]);
    let letters: Vec<(String, String, Vec<u8>)> =
        sqlx::query_as("select reason, original_id, payload from onceward.dead_letters")
            .fetch_all(stage.pool())
            .await
            .unwrap();
    let expected = ("id_conflict", "17", br#"{"order": 2}"#.to_vec());
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (&*letters[0].0, &*letters[0].1, letters[0].2.clone()),
        expected
    );
}
