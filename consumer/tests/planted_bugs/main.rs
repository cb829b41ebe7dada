//! Each planted bug has the effect that it is to have: else nobody could trust the checks that are to find it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../common/mod.rs"]
mod common;
mod settling;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::scripted::{Did, Member, delivery};
use common::{Order, SOON, Stage, TOPIC, effect, quick, write_effect};
use onceward_consumer::{BatchTx, Bug, HandlerError, Tx, plant};
use onceward_core::{Arrival, MAX_PAYLOAD, Message, MessageId};
use onceward_memory::MemoryBroker;
use onceward_testkit::postgres::{Options, Postgres};
use onceward_testkit::wait;
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use uuid::Uuid;

/// Bugs are planted for the whole process: one test at a time.
async fn alone(bug: Bug) -> Planted {
    static ONE: Mutex<()> = Mutex::const_new(());
    let guard = ONE.lock().await;
    plant(bug, true);
    Planted(bug, guard)
}

struct Planted(
    Bug,
    #[expect(dead_code, reason = "held")] MutexGuard<'static, ()>,
);

impl Drop for Planted {
    fn drop(&mut self) {
        plant(self.0, false);
    }
}

#[tokio::test]
async fn without_the_proof_a_swallowed_error_loses_the_message() {
    async fn swallows(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        if event.order == 1 {
            drop(sqlx::query("select 1 / 0").execute(&mut **tx).await);
        }
        Ok(())
    }
    let _planted = alone(Bug::CommitWithoutProof).await;
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    stage.publish(2, Some(1));

    let running = stage.run(stage.builder().on("*", swallows));
    stage.settled(1).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [2], "1 is gone");
    assert!(stage.letters().await.is_empty());
}

#[tokio::test]
async fn acked_before_the_commit_a_crash_loses_the_message() {
    async fn waits(gate: Arc<Semaphore>, _: Order, _: &mut Tx) -> Result<(), HandlerError> {
        gate.add_permits(1);
        std::future::pending().await
    }
    let _planted = alone(Bug::AckBeforeCommit).await;
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    let begun = Arc::new(Semaphore::new(0));
    let first = stage.run(stage.builder().on_with("*", begun.clone(), waits));
    begun.acquire().await.unwrap().forget();
    first.kill().await;

    stage.publish(2, Some(1));
    let second = stage.run(stage.builder().on("*", write_effect));
    stage.settled(1).await;
    second.stop().await;

    assert_eq!(stage.effects().await, [2], "1 is gone");
}

#[tokio::test]
async fn with_the_dedupe_outside_a_failure_in_between_doubles_the_effect() {
    let _planted = alone(Bug::DedupeOutside).await;
    let stage = Stage::new().await;
    let id = stage.publish(1, Some(1));
    let mut other = stage.pool().begin().await.unwrap();
    sqlx::query(
        "insert into onceward.processed_messages (slot, consumer, message_id, outcome)
         values (onceward.mark_slot($1), 'billing', $1, 0)",
    )
    .bind(id)
    .execute(&mut *other)
    .await
    .unwrap();

    let running = stage.run(stage.builder().on("*", write_effect));
    wait::until_true(SOON, "a mark that waits, to be cut off", || async {
        let cut: Option<bool> = sqlx::query_scalar(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_optional(stage.pool())
        .await
        .unwrap();
        cut == Some(true)
    })
    .await;
    other.rollback().await.unwrap();
    stage.settled(1).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1, 1]);
}

#[tokio::test]
async fn acked_before_the_commit_is_durable_a_crash_of_the_server_loses_the_message() {
    let _planted = alone(Bug::AckBeforeDurable).await;
    let options = Options::default().config("wal_writer_delay", "10s");
    let postgres = Postgres::start(options).await;
    let mut lost = 0;
    // The server may happen to write its log in time.
    for _ in 0..5 {
        let stage = Stage::on(&postgres).await;
        stage.publish(1, Some(1));
        let running = stage.run(stage.builder().on("*", write_effect).with(quick(1)));
        stage.settled(1).await;
        // Acked after its commit, and before the next one is looked at.
        running.stop().await;
        postgres.kill();
        postgres.start_again().await;

        let again = stage.run(stage.builder().on("*", write_effect));
        stage.publish(2, Some(1));
        wait::until_true(SOON, "the second effect", || async {
            let found =
                sqlx::query_scalar::<_, i64>("select order_id from effects where order_id = 2");
            found
                .fetch_optional(stage.pool())
                .await
                .is_ok_and(|found| found.is_some())
        })
        .await;
        again.stop().await;
        lost += usize::from(stage.effects().await == [2]);
    }

    assert!(lost > 0, "no message was lost");
}

#[tokio::test]
async fn with_neighbours_counted_innocents_are_buried_with_the_message_that_kills() {
    /// The neighbour is slow, and in work at each crash.
    async fn hangs(begun: Arc<Semaphore>, _: Order, _: &mut Tx) -> Result<(), HandlerError> {
        begun.add_permits(1);
        std::future::pending().await
    }
    let _planted = alone(Bug::NeighboursCounted).await;
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    stage.publish(2, Some(2));
    let begun = Arc::new(Semaphore::new(0));
    for _ in 0..3 {
        let running = stage.run(stage.builder().on_with("*", begun.clone(), hangs));
        begun.acquire_many(2).await.unwrap().forget();
        running.kill().await;
    }

    let last = stage.run(stage.builder().on("*", write_effect));
    stage.settled(2).await;
    last.stop().await;

    let reasons: Vec<String> = stage.letters().await.into_iter().map(|one| one.0).collect();
    assert_eq!(reasons, ["crashed", "crashed"], "one of them is innocent");
}

/// Two members get the same messages in opposite orders, and meet in the middle. Gives the deadlocks that the server has seen.
async fn two_batches_in_opposite_order() -> i64 {
    async fn write_all(events: Vec<Order>, tx: &mut BatchTx) -> Result<(), HandlerError> {
        for event in events {
            sqlx::query("insert into effects (order_id) values ($1)")
                .bind(event.order)
                .execute(&mut **tx)
                .await?;
        }
        Ok(())
    }
    let (mut stage, there, back) = (Stage::new().await, MemoryBroker::new(), MemoryBroker::new());
    stage.broker = there.clone();
    let ids: Vec<Uuid> = (0..20).map(|order| stage.publish(order, None)).collect();
    for record in there.stored(TOPIC).into_iter().rev() {
        back.put(TOPIC, record.headers, record.payload).unwrap();
    }
    let mut middle = stage.pool().begin().await.unwrap();
    sqlx::query(
        "insert into onceward.processed_messages (slot, consumer, message_id, outcome)
         values (onceward.mark_slot($1), 'billing', $1, 0)",
    )
    .bind(ids[10])
    .execute(&mut *middle)
    .await
    .unwrap();

    let first = stage.run(stage.builder().on_batch("*", write_all));
    stage.broker = back;
    let second = stage.run(stage.builder().on_batch("*", write_all));
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    wait::until_true(SOON, "both to wait for a mark", || async {
        let count: i64 = sqlx::query_scalar(waiting)
            .fetch_one(stage.pool())
            .await
            .unwrap();
        count == 2
    })
    .await;
    middle.rollback().await.unwrap();
    stage.settled(20).await;
    first.stop().await;
    second.stop().await;

    let mut effects = stage.effects().await;
    effects.sort_unstable();
    assert_eq!(effects, (0..20).collect::<Vec<i64>>());
    // A backend tells what it has counted when it ends, at the latest.
    stage.pool().close().await;
    let pool = sqlx::PgPool::connect(stage.database.url()).await.unwrap();
    sqlx::query_scalar("select deadlocks from pg_stat_database where datname = current_database()")
        .fetch_one(&pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_marks_in_order_of_arrival_two_batches_wait_for_one_another() {
    let planted = alone(Bug::MarksInOrderOfArrival).await;

    assert!(two_batches_in_opposite_order().await > 0);

    plant(Bug::MarksInOrderOfArrival, false);
    assert_eq!(two_batches_in_opposite_order().await, 0);
    drop(planted);
}

/// One message is in work while a later one is settled; then the member crashes, and it takes nine days until the broker delivers
/// the first one again. Gives what took effect, and the reasons of dead letters.
async fn a_crash_with_a_gap() -> (Vec<i64>, Vec<String>) {
    async fn waits_at_1(
        gate: Arc<Semaphore>,
        event: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        if event.order == 1 {
            gate.acquire().await?.forget();
        }
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    let unkeyed = |order: u64, days: u32| {
        let mut arrival = delivery(order, None);
        if let Arrival::Delivery(delivery) = &mut arrival {
            let day = Duration::from_secs(24 * 3_600);
            delivery.origin.sent_at = Some(SystemTime::now() - days * day);
            let message = delivery.message.as_mut().unwrap();
            message.id = MessageId::Uuid(Uuid::from_u128(order.into()));
            message.key = None;
        }
        arrival
    };
    let gate = Arc::new(Semaphore::new(0));
    for days in [0, 9] {
        let builder = stage.builder().on_with("*", gate.clone(), waits_at_1);
        let member = Member::run(builder);
        let last = if days == 0 { 2 } else { 3 };
        member.say([1, 2, last].map(|order| unkeyed(order, days)).into());
        member.book.has(Did::Ack(last)).await;
        if days == 9 {
            gate.add_permits(1);
            member.book.has(Did::Ack(1)).await;
        } else {
            let ticks = "the member to have had time to note its position";
            wait::until_true(SOON, ticks, || async { member.book.backlogs() >= 2 }).await;
        }
        member.task.abort();
        drop(member.task.await);
    }
    let mut effects = stage.effects().await;
    effects.sort_unstable();
    let reasons = stage.letters().await.into_iter().map(|one| one.0);
    (effects, reasons.collect())
}

#[tokio::test]
async fn where_the_newest_position_is_noted_what_was_never_handled_is_too_old() {
    let planted = alone(Bug::PositionOfTheNewest).await;

    let (effects, reasons) = a_crash_with_a_gap().await;
    assert_eq!((effects, reasons), (vec![2, 3], vec!["too_old".to_owned()]));

    plant(Bug::PositionOfTheNewest, false);
    let (effects, reasons) = a_crash_with_a_gap().await;
    assert_eq!((effects, reasons), (vec![1, 2, 3], vec![]));
    drop(planted);
}

#[tokio::test]
async fn where_gaps_are_forgotten_a_number_that_comes_late_is_lost() {
    let _planted = alone(Bug::GapsForgotten).await;
    let stage = Stage::new().await;
    for number in [1, 3, 2] {
        let event = serde_json::json!({ "order": number });
        let draft = Message::json(TOPIC, &event).unwrap();
        let draft = draft.key("k").sequence(number);
        let mut message = draft.finish(MAX_PAYLOAD).unwrap().message;
        message.seq = Some(number);
        message.time = Some(time::OffsetDateTime::UNIX_EPOCH);
        stage.broker.publish(message).unwrap();
    }

    let builder = stage.builder().dedupe_by_sequence();
    let consumer = builder.on("*", write_effect).build().unwrap();
    let subscriber = stage.broker.subscriber("billing", &[TOPIC]);
    let settled = consumer.run_until_idle(subscriber).await.unwrap();

    assert_eq!((settled.handled, settled.duplicates), (2, 1));
    assert_eq!(stage.effects().await, [1, 3], "2 is gone");
    assert!(stage.letters().await.is_empty());
}
