//! Bugs by which messages are settled that should wait or be told to a person.

use onceward_consumer::{Bug, Consumer, HandlerError, Tx, plant};
use onceward_core::{MAX_PAYLOAD, Message, MessageId};
use sqlx::postgres::PgPoolOptions;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::alone;
use crate::common::{Order, Stage, TOPIC, quick, write_effect};

/// One member has found out that a type fails, and another one begins. Gives the dead letters that each of them has cost.
async fn another_member_beside_a_type_that_fails() -> (usize, usize) {
    async fn fails(_: Order, _: &mut Tx) -> Result<(), HandlerError> {
        Err("the dependency is down".into())
    }
    let stage = Stage::new().await;
    let mut letters = [0, 0];
    for (member, orders) in [0..60, 60..80].into_iter().enumerate() {
        let published = usize::try_from(orders.end).unwrap();
        for order in orders {
            stage.publish(order, Some(order));
        }
        let running = stage.run(stage.builder().defaults(quick(1)).on("*", fails));
        stage.settled(published).await;
        running.stop().await;
        letters[member] = stage.letters().await.len();
    }
    (letters[0], letters[1] - letters[0])
}

#[tokio::test]
async fn with_pauses_in_memory_another_member_goes_on_failing() {
    let planted = alone(Bug::PausesInMemory).await;

    let (_, second) = another_member_beside_a_type_that_fails().await;
    assert!(second > 0);

    plant(Bug::PausesInMemory, false);
    assert_eq!(another_member_beside_a_type_that_fails().await, (9, 0));
    drop(planted);
}

/// Two messages with one id. Gives how many were handled, are dead letters, and were dropped as duplicates.
async fn two_messages_with_one_id() -> (u64, u64, u64) {
    let stage = Stage::new().await;
    let id = MessageId::Uuid(Uuid::now_v7());
    for order in [1, 2] {
        let event = serde_json::json!({ "order": order });
        let draft = Message::json(TOPIC, &event).unwrap();
        let mut message = draft.finish(MAX_PAYLOAD).unwrap().message;
        (message.id, message.seq) = (id.clone(), Some(order));
        stage.broker.publish(message).unwrap();
    }

    let consumer = stage.builder().on("*", write_effect).build().unwrap();
    let subscriber = stage.broker.subscriber("billing", &[TOPIC]);
    let settled = consumer.run_until_idle(subscriber).await.unwrap();
    (settled.handled, settled.dead, settled.duplicates)
}

#[tokio::test]
async fn where_digests_are_ignored_another_message_with_a_known_id_is_lost_as_a_duplicate() {
    let planted = alone(Bug::DigestIgnored).await;

    assert_eq!(two_messages_with_one_id().await, (1, 0, 1));

    plant(Bug::DigestIgnored, false);
    assert_eq!(two_messages_with_one_id().await, (1, 1, 0));
    drop(planted);
}

/// A message that lives for half an hour, by a database whose clock is an hour behind ours. Gives how many were handled and how many
/// had expired.
async fn a_message_that_has_expired_by_our_clock_only() -> (u64, u64) {
    let stage = Stage::new().await;
    stage.set_database_clock(-60).await;
    stage.publish_until(1, OffsetDateTime::now_utc() - time::Duration::minutes(30));

    let pool = PgPoolOptions::new().connect(stage.database.url());
    let builder = Consumer::builder("billing").pool(pool.await.unwrap());
    let consumer = builder.on("*", write_effect).build().unwrap();
    let subscriber = stage.broker.subscriber("billing", &[TOPIC]);
    let settled = consumer.run_until_idle(subscriber).await.unwrap();
    (settled.handled, settled.expired)
}

#[tokio::test]
async fn with_expiry_by_our_own_clock_a_message_that_lives_is_lost() {
    let planted = alone(Bug::ExpiryByOwnClock).await;

    assert_eq!(a_message_that_has_expired_by_our_clock_only().await, (0, 1));

    plant(Bug::ExpiryByOwnClock, false);
    assert_eq!(a_message_that_has_expired_by_our_clock_only().await, (1, 0));
    drop(planted);
}
