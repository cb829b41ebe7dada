//! How far a consumer has come, and what that says of deliveries that are older than any mark.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::scripted::{Did, Member, delivery, partition};
use common::{Order, SOON, Stage, effect, effects_of, quick, write_effect};
use onceward_consumer::{BatchTx, HandlerError, HandlerSettings, Tx, dead_letter};
use onceward_core::Arrival;
use onceward_core::wire::SEQUENCE;
use onceward_testkit::proxy::Proxy;
use onceward_testkit::wait;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::Semaphore;

const DAY: Duration = Duration::from_secs(24 * 3_600);

async fn write_all(events: Vec<Order>, tx: &mut BatchTx) -> Result<(), HandlerError> {
    effects_of(&events, tx).await
}

/// One that the broker got so long ago. The same order is the same message each time.
fn sent(order: u64, ago: Duration) -> Arrival<u64> {
    let mut arrival = delivery(order, None);
    if let Arrival::Delivery(delivery) = &mut arrival {
        delivery.origin.sent_at = Some(SystemTime::now() - ago);
        let message = delivery.message.as_mut().unwrap();
        message.id = onceward_core::MessageId::Uuid(uuid::Uuid::from_u128(order.into()));
    }
    arrival
}

/// The position noted of the partition of these tests.
async fn noted(stage: &Stage) -> Option<i64> {
    let ask = "select highest_settled from onceward.consumer_positions
               where consumer = 'billing' and partition = $1";
    sqlx::query_scalar(ask)
        .bind(partition().as_str())
        .fetch_optional(stage.pool())
        .await
        .unwrap()
}

async fn wait_until_noted(stage: &Stage, position: i64) {
    wait::until_true(SOON, "the position to be noted", || async {
        noted(stage).await == Some(position)
    })
    .await;
}

/// As if eight days had passed since.
async fn forget_marks(stage: &Stage) {
    sqlx::raw_sql("delete from onceward.processed_messages")
        .execute(stage.pool())
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_settled_without_a_gap_is_noted_within_seconds_and_when_the_consumer_stops() {
    async fn waits_at_3(
        gate: Arc<Semaphore>,
        event: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        if event.order == 3 {
            gate.acquire().await?.forget();
        }
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let member = Member::run(stage.builder().on_with("*", gate.clone(), waits_at_3));
    let unkeyed = |order| {
        let mut arrival = delivery(order, None);
        if let Arrival::Delivery(delivery) = &mut arrival {
            delivery.message.as_mut().unwrap().key = None;
        }
        arrival
    };
    member.say((1..=5).map(unkeyed).collect());

    member.book.has(Did::Ack(5)).await;
    wait_until_noted(&stage, 2).await;
    gate.add_permits(1);
    wait_until_noted(&stage, 5).await;
    member.say(vec![unkeyed(6)]);
    member.book.has(Did::Ack(6)).await;
    member.stop().await;

    assert_eq!(noted(&stage).await, Some(6));
}

#[tokio::test]
async fn a_position_never_goes_back_whoever_writes_it() {
    let stage = Stage::new().await;
    sqlx::query(
        "insert into onceward.consumer_positions (consumer, partition, highest_settled)
         values ('billing', $1, 100)",
    )
    .bind(partition().as_str())
    .execute(stage.pool())
    .await
    .unwrap();

    let member = Member::run(stage.builder().on("*", write_effect));
    member.say(vec![delivery(1, None)]);
    member.book.has(Did::Ack(1)).await;
    member.stop().await;

    assert_eq!(noted(&stage).await, Some(100));
}

#[tokio::test]
async fn what_a_member_loses_unsettled_is_not_passed() {
    async fn fails(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if event.order == 2 {
            return Err("not now".into());
        }
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    let settings = HandlerSettings {
        attempts: 1_000,
        ..quick(1)
    };
    let member = Member::run(stage.builder().on("*", fails).with(settings));
    member.say(vec![delivery(1, None), delivery(2, None)]);
    member.book.has(Did::Ack(1)).await;

    member.say(vec![member.revoking(SOON)]);
    member.book.has(Did::Released).await;
    member.stop().await;

    assert_eq!(noted(&stage).await, Some(1));
}

#[tokio::test]
async fn of_what_was_passed_long_ago_the_numbers_of_a_key_tell_what_they_know_and_the_rest_is_a_dead_letter()
 {
    let numbered = |order: u64, ago: Duration| {
        let mut arrival = sent(order, ago);
        if let Arrival::Delivery(delivery) = &mut arrival {
            let message = delivery.message.as_mut().unwrap();
            message.seq = Some(i64::try_from(order).unwrap());
            message.time = Some(time::OffsetDateTime::now_utc() - ago);
            let number = order.to_string();
            message.headers.insert(SEQUENCE, &number).unwrap();
        }
        arrival
    };
    let stage = Stage::new().await;
    let by_marks = Member::run(stage.builder().on("*", write_effect));
    by_marks.say((1..=3).map(|n| numbered(n, Duration::ZERO)).collect());
    by_marks.book.has(Did::Ack(3)).await;
    by_marks.stop().await;
    let builder = || stage.builder().dedupe_by_sequence();
    let by_numbers = Member::run(builder().on("*", write_effect));
    by_numbers.say((4..=6).map(|n| numbered(n, Duration::ZERO)).collect());
    by_numbers.book.has(Did::Ack(6)).await;
    by_numbers.stop().await;
    forget_marks(&stage).await;

    let member = Member::run(builder().on("*", write_effect));
    let days = [(2, 9), (5, 9), (7, 9)];
    member.say(days.map(|(n, days)| numbered(n, DAY * days)).into());
    member.book.has(Did::Ack(7)).await;
    member.stop().await;

    assert_eq!(stage.effects().await, [1, 2, 3, 4, 5, 6, 7]);
    let letters = stage.letters().await;
    let reasons: Vec<&str> = letters.iter().map(|letter| letter.0.as_str()).collect();
    assert_eq!(reasons, ["too_old"], "2 was marked, and its mark is gone");
}

#[tokio::test]
async fn a_delivery_that_is_older_than_marks_and_was_passed_is_a_dead_letter() {
    for batches in [false, true] {
        let stage = Stage::new().await;
        let builder = || {
            let builder = stage.builder();
            if batches {
                builder.on_batch("*", write_all)
            } else {
                builder.on("*", write_effect)
            }
        };
        let first = Member::run(builder());
        first.say((1..=4).map(|order| sent(order, 9 * DAY)).collect());
        first.book.has(Did::Ack(4)).await;
        first.stop().await;
        assert_eq!(stage.effects().await, [1, 2, 3, 4], "all of them were new");
        assert_eq!(noted(&stage).await, Some(4));
        // 4 is still marked.
        sqlx::query("delete from onceward.processed_messages where message_id <> $1")
            .bind(uuid::Uuid::from_u128(4))
            .execute(stage.pool())
            .await
            .unwrap();

        let second = Member::run(builder());
        second.say((2..=6).map(|order| sent(order, 9 * DAY)).collect());
        for order in 2..=6 {
            second.book.has(Did::Ack(order)).await;
        }
        second.stop().await;

        assert_eq!(
            stage.effects().await,
            [1, 2, 3, 4, 5, 6],
            "batches: {batches}"
        );
        let letters = stage.letters().await;
        assert_eq!(letters.len(), 2, "of 2 and 3");
        assert!(letters.iter().all(|one| one.0 == "too_old" && one.2 == 0));
        assert!(letters[0].1.contains("cannot be told"));
        assert_eq!(noted(&stage).await, Some(6));
    }
}

#[tokio::test]
async fn what_is_young_enough_to_be_marked_is_told_by_its_mark_alone() {
    let stage = Stage::new().await;
    let first = Member::run(stage.builder().on("*", write_effect));
    first.say(vec![sent(1, DAY), sent(2, DAY)]);
    first.book.has(Did::Ack(2)).await;
    first.stop().await;
    forget_marks(&stage).await;

    // Such as of a topic that was made anew, whose positions begin again.
    let second = Member::run(stage.builder().on("*", write_effect));
    second.say(vec![sent(2, DAY)]);
    second.book.has(Did::Ack(2)).await;
    second.stop().await;

    assert_eq!(stage.effects().await, [1, 2, 2]);
    assert!(stage.letters().await.is_empty());
}

#[tokio::test]
async fn a_new_consumer_handles_a_backlog_of_any_age() {
    for batches in [false, true] {
        let stage = Stage::new().await;
        let builder = if batches {
            stage.builder().on_batch("*", write_all)
        } else {
            stage.builder().on("*", write_effect)
        };
        let member = Member::run(builder);
        member.say((1..=30).map(|order| sent(order, 400 * DAY)).collect());
        member.book.has(Did::Ack(30)).await;
        member.stop().await;

        assert_eq!(stage.effects().await, (1..=30).collect::<Vec<i64>>());
        assert!(stage.letters().await.is_empty());
    }
}

#[tokio::test]
async fn one_that_was_too_old_is_handled_when_a_person_replays_it() {
    let stage = Stage::new().await;
    let first = Member::run(stage.builder().on("*", write_effect));
    first.say(vec![sent(1, 9 * DAY)]);
    first.book.has(Did::Ack(1)).await;
    first.stop().await;
    forget_marks(&stage).await;
    sqlx::raw_sql("delete from effects")
        .execute(stage.pool())
        .await
        .unwrap();
    let second = Member::run(stage.builder().on("*", write_effect));
    second.say(vec![sent(1, 9 * DAY)]);
    second.book.has(Did::Ack(1)).await;

    let schema = onceward_consumer::Schema::default();
    let id: i64 = sqlx::query_scalar("select id from onceward.dead_letters")
        .fetch_one(stage.pool())
        .await
        .unwrap();
    dead_letter::replay(stage.pool(), &schema, id, dead_letter::To::Consumer, "test")
        .await
        .unwrap();
    wait::until_true(SOON, "the effect", || async {
        stage.effects().await == [1]
    })
    .await;
    second.stop().await;
}

#[tokio::test]
async fn positions_that_cannot_be_written_hold_up_nothing() {
    let stage = Stage::new().await;
    let direct: PgConnectOptions = stage.database.url().parse().unwrap();
    let mut proxy = Proxy::to(direct.get_port()).await;
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .connect_with(direct.host("127.0.0.1").port(proxy.port()))
        .await
        .unwrap();
    let mut lock = stage.pool().begin().await.unwrap();
    sqlx::raw_sql("lock table onceward.consumer_positions in access exclusive mode")
        .execute(&mut *lock)
        .await
        .unwrap();

    let member = Member::run(stage.builder().pool(pool).on("*", write_effect));
    member.say(vec![delivery(1, None)]);
    member.book.has(Did::Ack(1)).await;
    wait::until_true(SOON, "a write that waits", || async {
        let count: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock' and query like '%consumer_positions%'",
        )
        .fetch_one(stage.pool())
        .await
        .unwrap();
        count > 0
    })
    .await;
    member.say(vec![delivery(2, None)]);
    member.book.has(Did::Ack(2)).await;
    proxy.cut().await;
    lock.rollback().await.unwrap();
    proxy.heal().await;
    member.say(vec![delivery(3, None)]);
    member.book.has(Did::Ack(3)).await;
    wait_until_noted(&stage, 3).await;
    member.stop().await;

    assert_eq!(stage.effects().await, [1, 2, 3]);
}
