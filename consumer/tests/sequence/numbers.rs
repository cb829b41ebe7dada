//! Numbers in order, late, given twice, and beyond the gaps that are kept.

use onceward_consumer::dead_letter::{Filter, Replayed, To};
use onceward_consumer::{HandlerError, Schema, Tx, dead_letter};
use onceward_core::{Message, wire};
use onceward_testkit::wait;

use super::{message, row};
use crate::common::{Order, SOON, Stage, effect, write_effect};

#[tokio::test]
async fn numbers_in_order_keep_one_row_and_one_mark_for_the_key() {
    let stage = Stage::new().await;
    (1..=20).for_each(|number| stage.number(number));

    let settled = stage.write_all().await;

    assert_eq!(settled.handled, 20);
    assert_eq!(stage.effects().await, (1..=20).collect::<Vec<_>>());
    assert_eq!(stage.row().await, row(20, "{}", 20));
    assert_eq!(stage.marks().await, 1, "of the first");
}

#[tokio::test]
async fn what_was_not_acked_comes_again_and_its_number_drops_it() {
    let stage = Stage::new().await;
    (1..=20).for_each(|number| stage.number(number));
    stage.broker.drop_acks(true);
    let first = stage.run(stage.by_sequence().on("*", write_effect));
    wait::until_true(SOON, "all effects", || async {
        stage.effects().await.len() == 20
    })
    .await;
    first.kill().await;
    stage.broker.drop_acks(false);

    stage.number(21);
    let settled = stage.write_all().await;

    assert_eq!((settled.handled, settled.duplicates), (1, 20));
    assert_eq!(stage.effects().await, (1..=21).collect::<Vec<_>>());
    assert!(stage.letters().await.is_empty());
}

#[tokio::test]
async fn a_number_that_comes_late_is_handled_and_its_copy_is_a_duplicate() {
    let stage = Stage::new().await;
    for number in [3, 7, 5, 1, 5, 1, 3, 7] {
        // The same message each time.
        let mut sent = message(number, number, number);
        sent.id =
            onceward_core::MessageId::Uuid(uuid::Uuid::from_u128(u128::try_from(number).unwrap()));
        stage.send(sent);
    }

    let settled = stage.write_all().await;

    assert_eq!((settled.handled, settled.duplicates), (4, 4));
    assert_eq!(stage.effects().await, [3, 7, 5, 1]);
    assert_eq!(stage.row().await, row(7, "{[2,3),[4,5),[6,7)}", 7));
    assert_eq!(stage.marks().await, 3, "of the first, and of the late ones");
}

#[tokio::test]
async fn a_numbering_that_begins_anew_ends_in_dead_letters_and_goes_on_where_it_is_new() {
    let stage = Stage::new().await;
    for number in 1..=3 {
        stage.send(message(number, number, number));
    }
    let again: Vec<Message> = (1..=5).map(|n| message(10 + n, n, 10 + n)).collect();
    // The last ones arrive first.
    for place in [2, 3, 4, 0, 1, 0, 1, 2, 3, 4] {
        stage.send(again[place].clone());
    }

    let settled = stage.write_all().await;

    assert_eq!(stage.effects().await, [1, 2, 3, 14, 15]);
    assert_eq!(
        (settled.handled, settled.dead, settled.duplicates),
        (5, 3, 5)
    );
    assert_eq!(stage.reasons().await, ["sequence_reused"; 3]);
    assert_eq!(stage.row().await, (5, "{}".to_owned(), 3, true));
}

#[tokio::test]
async fn a_letter_of_a_number_given_twice_can_be_replayed() {
    let stage = Stage::new().await;
    stage.number(1);
    stage.send(message(2, 1, 2));
    assert_eq!(stage.write_all().await.dead, 1);
    let schema = Schema::default();
    let letters = dead_letter::list(stage.pool(), &schema, &Filter::default()).await;
    let id = letters.unwrap()[0].id;

    let replayed = dead_letter::replay(stage.pool(), &schema, id, To::Consumer, "alice").await;

    assert_eq!(replayed.unwrap(), Replayed::Done(None));
    stage.write_all().await;
    assert_eq!(stage.effects().await, [1, 2]);
    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_letter_that_is_replayed_as_a_new_message_has_no_number() {
    async fn rejects(_: Order, _: &mut Tx) -> Result<(), HandlerError> {
        Err(HandlerError::reject("no"))
    }
    let stage = Stage::new().await;
    stage.number(1);
    let settled = stage.settle(stage.by_sequence().on("*", rejects)).await;
    assert_eq!(settled.dead, 1);
    let schema = Schema::default();
    let letters = dead_letter::list(stage.pool(), &schema, &Filter::default()).await;
    let id = letters.unwrap()[0].id;
    sqlx::query("insert into onceward.streams (stream) values ('events')")
        .execute(stage.pool())
        .await
        .unwrap();

    let replayed = dead_letter::replay(stage.pool(), &schema, id, To::Everybody, "alice").await;

    assert!(matches!(replayed.unwrap(), Replayed::Done(Some(_))));
    let headers: serde_json::Value = sqlx::query_scalar("select headers from onceward.messages")
        .fetch_one(stage.pool())
        .await
        .unwrap();
    assert!(headers[wire::SEQUENCE].is_null(), "{headers}");
    assert!(headers[wire::REPLAY_OF].is_string(), "{headers}");
}

#[tokio::test]
async fn beyond_a_hundred_gaps_a_late_number_is_a_dead_letter_once() {
    let stage = Stage::new().await;
    (1..=102).for_each(|n| stage.number(2 * n));
    assert_eq!(stage.write_all().await.handled, 102);
    // Those of 1 and 3 are closed.
    let late = message(3, 3, 3);
    stage.send(late.clone());
    stage.send(late);
    stage.number(5);

    let settled = stage.write_all().await;

    assert_eq!(
        (settled.handled, settled.dead, settled.duplicates),
        (1, 1, 1)
    );
    assert_eq!(stage.reasons().await, ["sequence_unknown"]);
}

#[tokio::test]
async fn a_handler_reads_the_number() {
    struct Reads;
    impl onceward_consumer::Handler for Reads {
        async fn handle(&self, message: &Message, tx: &mut Tx) -> Result<(), HandlerError> {
            effect(message.sequence().unwrap(), tx).await
        }
    }
    let stage = Stage::new().await;
    stage.send(message(0, 17, 1));

    stage.settle(stage.builder().handler("*", Reads)).await;

    assert_eq!(stage.effects().await, [17]);
}
