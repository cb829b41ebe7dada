//! Dedupe by the producer's own numbers: one row for each key, and every number handled once.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use common::{Order, SOON, Stage, TOPIC, effect, quick, write_effect};
use onceward_consumer::dead_letter::{self, Filter, Replayed, To};
use onceward_consumer::{
    BatchTx, BuildError, ConsumerBuilder, HandlerError, HandlerSettings, Schema, Settled, Tx,
};
use onceward_core::{Headers, MAX_PAYLOAD, Message, Source, wire};
use onceward_testkit::wait;
use sqlx::Connection as _;
use time::OffsetDateTime;
use tokio::sync::Semaphore;

/// One of ours: what it is about, its producer's number, and its number in the log.
fn message(order: i64, number: i64, seq: i64) -> Message {
    let event = serde_json::json!({ "order": order });
    let draft = Message::json(TOPIC, &event).unwrap();
    let draft = draft.key("k").sequence(number);
    let mut message = draft.finish(MAX_PAYLOAD).unwrap().message;
    message.source = Some(Source::try_from("/shop").unwrap());
    message.seq = Some(seq);
    message.time = Some(*BEGAN + Duration::from_secs(seq.unsigned_abs()));
    message
}

/// When the log began: a message was written in the second of its number in it.
static BEGAN: LazyLock<OffsetDateTime> =
    LazyLock::new(|| OffsetDateTime::now_utc() - Duration::from_secs(3_600));

/// What is said of the key: high, gaps, seen, reused.
type Row = (i64, String, i64, bool);

impl Stage {
    /// Publishes the order of that number, which is its number in the log as well.
    fn number(&self, number: i64) {
        self.send(message(number, number, number));
    }

    fn send(&self, message: Message) {
        self.broker.publish(message).unwrap();
    }

    fn by_sequence(&self) -> ConsumerBuilder {
        self.builder().dedupe_by_sequence()
    }

    /// Handles all that is there.
    async fn settle(&self, builder: ConsumerBuilder) -> Settled {
        let subscriber = self.broker.subscriber("billing", &[TOPIC]);
        let consumer = builder.build().unwrap();
        consumer.run_until_idle(subscriber).await.unwrap()
    }

    async fn write_all(&self) -> Settled {
        self.settle(self.by_sequence().on("*", write_effect)).await
    }

    async fn row(&self) -> Row {
        sqlx::query_as("select high, gaps::text, seen, reused from onceward.key_sequences")
            .fetch_one(self.pool())
            .await
            .unwrap()
    }

    async fn marks(&self) -> usize {
        self.outcomes().await.len()
    }

    async fn reasons(&self) -> Vec<String> {
        let letters = self.letters().await.into_iter();
        letters.map(|(reason, ..)| reason).collect()
    }
}

fn row(high: i64, gaps: &str, seen: i64) -> Row {
    (high, gaps.to_owned(), seen, false)
}

fn deferring(attempts: u32) -> HandlerSettings {
    HandlerSettings {
        defer_after: Duration::ZERO,
        ..quick(attempts)
    }
}

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

#[tokio::test]
async fn a_message_that_waits_and_its_followers_are_handled_once_in_order() {
    async fn fails_thrice(
        calls: Arc<AtomicU32>,
        event: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        if event.order == 2 && calls.fetch_add(1, Ordering::SeqCst) < 3 {
            return Err(HandlerError::retry_after(Duration::from_millis(30)));
        }
        Ok(())
    }
    let stage = Stage::new().await;
    (1..=6).for_each(|number| stage.number(number));
    let builder = || {
        let calls = Arc::new(AtomicU32::new(0));
        let builder = stage.by_sequence().defaults(deferring(10));
        builder.on_with("*", calls, fails_thrice)
    };
    stage.broker.drop_acks(true);
    let first = stage.run(builder());
    wait::until_true(SOON, "all effects", || async {
        stage.effects().await.len() == 6
    })
    .await;
    first.kill().await;
    stage.broker.drop_acks(false);

    let settled = stage.settle(builder()).await;

    assert_eq!((settled.duplicates, settled.handled), (6, 0));
    assert_eq!(stage.effects().await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(stage.row().await, row(6, "{}", 6));
    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_copy_of_a_message_that_waits_is_a_duplicate() {
    async fn waits(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        Err(HandlerError::retry_after(Duration::from_secs(3_600)))
    }
    let stage = Stage::new().await;
    (1..=3).for_each(|number| stage.number(number));
    let builder = || stage.by_sequence().defaults(deferring(10)).on("*", waits);
    stage.broker.drop_acks(true);
    let first = stage.run(builder());
    stage.wait_for_retries(3).await;
    first.kill().await;
    stage.broker.drop_acks(false);

    let settled = stage.settle(builder()).await;

    assert_eq!(settled.duplicates, 3);
    assert_eq!(stage.retries().await, 3);
    assert_eq!(stage.outcomes().await, [1; 3]);
}

#[tokio::test]
async fn what_is_rejected_ignored_or_expired_takes_its_number() {
    async fn rejects(_: Order, _: &mut Tx) -> Result<(), HandlerError> {
        Err(HandlerError::reject("no"))
    }
    let stage = Stage::new().await;
    let of_type = |kind: &str, number: i64| {
        let mut sent = message(number, number, number);
        sent.kind = onceward_core::Kind::received(kind);
        sent
    };
    let past = OffsetDateTime::now_utc() - Duration::from_secs(60);
    let expired = Message::json(TOPIC, &serde_json::json!({ "order": 5 })).unwrap();
    let expired = expired.key("k").sequence(5).expires_at(past);
    let mut expired = expired.finish(MAX_PAYLOAD).unwrap().message;
    expired.source = Some(Source::try_from("/shop").unwrap());
    expired.seq = Some(5);
    expired.time = Some(*BEGAN);
    let all = [
        of_type("handled", 1),
        of_type("rejected", 2),
        of_type("ignored", 3),
        of_type("unknown", 4),
        expired,
        of_type("handled", 6),
    ];
    all.iter()
        .chain(&all)
        .for_each(|sent| stage.send(sent.clone()));

    let builder = stage.by_sequence().on("handled", write_effect);
    let builder = builder.on("rejected", rejects).ignore("ignored");
    let settled = stage.settle(builder.on(TOPIC, write_effect)).await;

    let expected = Settled {
        handled: 2,
        dead: 2,
        ignored: 1,
        expired: 1,
        duplicates: 6,
        ..Settled::default()
    };
    assert_eq!(settled, expected);
    assert_eq!(stage.reasons().await, ["rejected", "no_handler"]);
    assert_eq!(stage.row().await, row(6, "{}", 6));
    assert_eq!(stage.marks().await, 3, "of the first and of both letters");
}

#[tokio::test]
async fn of_two_members_with_one_message_the_second_waits_and_finds_it_settled() {
    async fn slow(gate: Arc<Semaphore>, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        if event.order == 2 {
            gate.acquire().await?.forget();
        }
        Ok(())
    }
    let stage = Stage::new().await;
    let (one, two) = (message(1, 1, 1), message(2, 2, 2));
    stage.send(one.clone());
    stage.write_all().await;
    let gate = Arc::new(Semaphore::new(0));
    let builder = || stage.by_sequence().on_with("*", gate.clone(), slow);
    stage.send(two.clone());
    let owner = stage.run(builder());
    wait::until_true(SOON, "the owner at work", || async {
        locks(&stage).await > 0
    })
    .await;

    // The same deliveries, to one who thinks that they are his.
    let other = onceward_memory::MemoryBroker::new();
    other.publish(one).unwrap();
    other.publish(two).unwrap();
    let zombie = builder().build().unwrap();
    let subscriber = other.subscriber("billing", &[TOPIC]);
    let zombie = tokio::spawn(zombie.run_until_idle(subscriber));
    wait::until_true(SOON, "the other to wait", || async {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock' and query like '%key_sequences%'",
        )
        .fetch_one(stage.pool())
        .await
        .unwrap();
        waiting == 1
    })
    .await;
    gate.add_permits(2);

    let settled = zombie.await.unwrap().unwrap();
    owner.stop().await;
    assert_eq!((settled.handled, settled.duplicates), (0, 2));
    assert_eq!(stage.effects().await, [1, 2]);
}

/// How many transactions have written numbers and are not over.
async fn locks(stage: &Stage) -> i64 {
    sqlx::query_scalar(
        "select count(*) from pg_locks l
         where l.relation = 'onceward.key_sequences'::regclass and l.mode = 'RowExclusiveLock'",
    )
    .fetch_one(stage.pool())
    .await
    .unwrap()
}

#[tokio::test]
async fn a_statement_that_failed_and_was_swallowed_is_a_failed_attempt() {
    async fn swallows(
        calls: Arc<AtomicU32>,
        event: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        if event.order == 2 && calls.fetch_add(1, Ordering::SeqCst) == 0 {
            drop(sqlx::query("select 1 / 0").execute(&mut **tx).await);
        }
        Ok(())
    }
    let stage = Stage::new().await;
    (1..=3).for_each(|number| stage.number(number));
    let calls = Arc::new(AtomicU32::new(0));
    let builder = stage.by_sequence().on_with("*", calls.clone(), swallows);

    let settled = stage.settle(builder).await;

    assert_eq!(settled.handled, 3);
    assert_eq!(stage.effects().await, [1, 2, 3]);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_handler_that_commits_by_itself_is_a_dead_letter_and_not_run_again() {
    async fn commits(
        statement: &'static str,
        event: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        if event.order == 2 {
            sqlx::raw_sql(statement).execute(&mut **tx).await?;
        }
        Ok(())
    }
    for statement in ["commit", "rollback"] {
        let stage = Stage::new().await;
        let sent: Vec<Message> = (1..=3).map(|n| message(n, n, n)).collect();
        sent.iter()
            .chain(&sent)
            .for_each(|one| stage.send(one.clone()));

        let builder = stage.by_sequence().on_with("*", statement, commits);
        let settled = stage.settle(builder).await;

        assert_eq!(
            (settled.dead, settled.handled, settled.duplicates),
            (1, 2, 3),
            "{statement}"
        );
        assert_eq!(stage.reasons().await, ["transaction_ended"], "{statement}");
        let (_, error, _) = stage.letters().await.swap_remove(0);
        assert!(
            error.contains("another member may have handled it"),
            "{error}"
        );
        assert_eq!(stage.row().await, row(3, "{}", 3), "{statement}");
    }
}

#[tokio::test]
async fn a_nested_transaction_of_the_handler_does_not_hold_the_number() {
    async fn nested(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        let mut inner = tx.begin().await?;
        sqlx::query("insert into effects (order_id) values (-1)")
            .execute(&mut *inner)
            .await?;
        inner.rollback().await?;
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    (1..=3).for_each(|number| stage.number(number));

    stage.settle(stage.by_sequence().on("*", nested)).await;

    assert_eq!(stage.effects().await, [1, 2, 3]);
    assert_eq!(stage.row().await, row(3, "{}", 3));
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
