//! From marks to numbers and back, and what keeps its mark.

use std::time::Duration;

use onceward_consumer::{BatchTx, BuildError, HandlerError};
use onceward_core::{Headers, Message, wire};
use onceward_testkit::wait;

use super::{message, row};
use crate::common::{Order, SOON, Stage, write_effect};

#[tokio::test]
async fn what_was_marked_before_the_switch_is_not_handled_again() {
    let stage = Stage::new().await;
    for number in 1..=5 {
        stage.number(number);
    }
    stage.broker.drop_acks(true);
    let with_marks = stage.run(stage.builder().on("*", write_effect));
    stage.settled(5).await;
    with_marks.kill().await;
    stage.broker.drop_acks(false);
    stage.number(6);
    stage.number(7);

    let settled = stage.write_all().await;

    assert_eq!((settled.handled, settled.duplicates), (2, 5));
    assert_eq!(stage.effects().await, (1..=7).collect::<Vec<_>>());
    assert_eq!(stage.row().await, row(7, "{[1,6)}", 7));
    assert_eq!(stage.marks().await, 6);
}

#[tokio::test]
async fn from_numbers_to_marks_and_back_again_nothing_is_handled_twice() {
    let stage = Stage::new().await;
    let sent: Vec<Message> = (1..=8).map(|n| message(n, n, n)).collect();
    let send = |numbers: std::ops::RangeInclusive<usize>| {
        numbers.for_each(|number| stage.send(sent[number - 1].clone()));
    };
    send(2..=2);
    assert_eq!(stage.write_all().await.handled, 1);
    send(3..=5);
    let by_mark = || stage.builder().on("*", write_effect);
    assert_eq!(stage.settle(by_mark()).await.handled, 3);

    // What was settled by marks comes again, in order and not, behind a number that comes late.
    send(1..=1);
    send(3..=3);
    send(5..=6);
    send(4..=8);
    send(3..=8);

    let settled = stage.write_all().await;
    assert_eq!((settled.handled, settled.duplicates), (4, 11));
    assert_eq!(stage.effects().await, [2, 3, 4, 5, 1, 6, 7, 8]);
    assert_eq!(stage.row().await, row(8, "{[3,6)}", 8));
    assert!(stage.letters().await.is_empty());
}

#[tokio::test]
async fn what_the_log_numbers_again_after_it_has_gone_back_is_a_dead_letter_and_not_lost() {
    let stage = Stage::new().await;
    let before: Vec<Message> = (1..=4).map(|n| message(n, n, n)).collect();
    before.iter().for_each(|one| stage.send(one.clone()));
    // The log has lost 2 to 4, and gives their numbers again.
    let again = (2..=5).map(|n| {
        let mut again = message(10 + n, n, n);
        again.time = again.time.map(|time| time + Duration::from_secs(60));
        again
    });
    let again: Vec<Message> = again.collect();
    again.iter().for_each(|one| stage.send(one.clone()));
    before.iter().for_each(|one| stage.send(one.clone()));
    again.iter().for_each(|one| stage.send(one.clone()));

    let settled = stage.write_all().await;

    assert_eq!(stage.effects().await, [1, 2, 3, 4, 15]);
    assert_eq!(
        (settled.handled, settled.dead, settled.duplicates),
        (5, 3, 8)
    );
    assert_eq!(stage.reasons().await, ["sequence_reused"; 3]);
}

#[tokio::test]
async fn a_message_that_is_enqueued_twice_under_one_id_is_handled_once() {
    let stage = Stage::new().await;
    stage.number(1);
    let sent = message(2, 2, 2);
    // As a producer does that does not know what became of its COMMIT.
    let mut again = sent.clone();
    again.seq = Some(3);
    again.time = again.time.map(|time| time + Duration::from_secs(1));
    stage.send(sent);
    stage.send(again);
    stage.send(message(3, 3, 4));

    let settled = stage.write_all().await;

    assert_eq!((settled.handled, settled.duplicates), (3, 1));
    assert_eq!(stage.effects().await, [1, 2, 3]);
    assert_eq!(stage.row().await, row(3, "{}", 4));
}

#[tokio::test]
async fn after_the_switch_back_what_was_settled_by_its_number_is_handled_again_and_by_its_mark_is_not()
 {
    let stage = Stage::new().await;
    (1..=3).for_each(|number| stage.number(number));
    stage.broker.drop_acks(true);
    let by_number = stage.run(stage.by_sequence().on("*", write_effect));
    wait::until_true(SOON, "all effects", || async {
        stage.effects().await.len() == 3
    })
    .await;
    by_number.kill().await;
    stage.broker.drop_acks(false);

    let settled = stage.settle(stage.builder().on("*", write_effect)).await;

    // As the guide says: settle everything first.
    assert_eq!((settled.handled, settled.duplicates), (2, 1));
    assert_eq!(stage.effects().await, [1, 2, 3, 2, 3]);
}

#[tokio::test]
async fn what_has_no_number_no_key_or_is_not_ours_keeps_its_mark() {
    let stage = Stage::new().await;
    let mut keyless = message(1, 1, 1);
    keyless.key = None;
    let mut foreign = message(2, 2, 2);
    foreign.seq = None;
    let mut plain = message(3, 3, 3);
    plain.headers = Headers::new();
    for sent in [keyless, foreign, plain] {
        stage.send(sent.clone());
        stage.send(sent);
    }
    let bad: [(&str, &[u8]); 4] = [
        ("ce-id", b"018f4e3a-5b6c-7d8e-9f00-112233445566"),
        ("ce-partitionkey", b"k"),
        ("ce-sequence", b"nine"),
        (wire::SEQ, b"9"),
    ];
    stage.put(&bad, br#"{"order": 4}"#);
    stage.put(&bad, br#"{"order": 4}"#);

    let settled = stage.write_all().await;

    assert_eq!((settled.handled, settled.duplicates), (4, 4));
    assert_eq!(stage.marks().await, 4);
    let rows: i64 = sqlx::query_scalar("select count(*) from onceward.key_sequences")
        .fetch_one(stage.pool())
        .await
        .unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn handlers_of_batches_keep_marks_and_a_consumer_that_says_both_is_not_built() {
    async fn batch(_: Vec<Order>, _: &mut BatchTx) -> Result<(), HandlerError> {
        Ok(())
    }
    let stage = Stage::new().await;

    let built = stage.by_sequence().on_batch("*", batch).build();

    assert!(matches!(built, Err(BuildError::BatchBySequence)));
}
