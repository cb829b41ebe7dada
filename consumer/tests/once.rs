//! Effects happen once, whatever the broker delivers.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Order, SOON, Stage, effect, quick, write_effect};
use onceward_consumer::{HandlerError, HandlerSettings, Tx};
use onceward_core::{MAX_PAYLOAD, Message};
use onceward_testkit::wait;
use sqlx::Connection as _;
use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

#[tokio::test]
async fn a_message_is_handled_marked_and_acked() {
    let stage = Stage::new().await;
    let id = stage.publish(17, Some(1));

    let running = stage.run(stage.builder().on("orders.*", write_effect));
    stage.settled(1).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [17]);
    let mark: (uuid::Uuid, i16, Vec<u8>, String) = sqlx::query_as(
        "select message_id, outcome, digest, consumer from onceward.processed_messages",
    )
    .fetch_one(stage.pool())
    .await
    .unwrap();
    assert_eq!((mark.0, mark.1, mark.3.as_str()), (id, 0, "billing"));
    assert_eq!(mark.2.len(), 16);
}

#[tokio::test]
async fn what_was_not_acked_comes_again_and_its_mark_drops_it() {
    let stage = Stage::new().await;
    for order in 1..=20 {
        stage.publish(order, Some(order % 3));
    }
    stage.broker.drop_acks(true);
    let first = stage.run(stage.builder().on("*", write_effect));
    stage.settled(20).await;
    first.kill().await;

    stage.broker.drop_acks(false);
    let second = stage.run(stage.builder().on("*", write_effect));
    let last = stage.publish(21, Some(0));
    stage.settled(21).await;
    second.stop().await;

    let mut effects = stage.effects().await;
    effects.sort_unstable();
    assert_eq!(effects, (1..=21).collect::<Vec<i64>>());
    assert!(!last.is_nil());
}

#[tokio::test]
async fn ids_and_times_from_another_century_are_handled_once_like_any_other() {
    let stage = Stage::new().await;
    let time = |year: i32| OffsetDateTime::now_utc().replace_year(year).unwrap();
    for (order, year) in [(1, 1971), (2, 2125), (3, 9999)] {
        let at = time(year);
        let event = serde_json::json!({ "order": order });
        let seconds = u64::try_from(at.unix_timestamp()).unwrap();
        let id = Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, 0));
        let draft = Message::json(common::TOPIC, &event).unwrap().id(id);
        let mut message = draft.finish(MAX_PAYLOAD).unwrap().message;
        message.time = Some(at);
        message.seq = Some(order);
        stage.broker.publish(message.clone()).unwrap();
        stage.broker.publish(message).unwrap();
    }

    stage.broker.drop_acks(true);
    let first = stage.run(stage.builder().on("*", write_effect));
    stage.settled(3).await;
    first.kill().await;
    stage.broker.drop_acks(false);
    let consumer = stage.builder().on("*", write_effect).build().unwrap();
    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    let again = consumer.run_until_idle(subscriber).await.unwrap();

    assert_eq!((again.handled, again.duplicates), (0, 6));
    assert_eq!(stage.effects().await.len(), 3);
    assert!(stage.letters().await.is_empty());
}

#[tokio::test]
async fn two_consumers_on_one_database_each_handle_a_message() {
    let stage = Stage::new().await;
    stage.publish(1, None);

    let billing = stage.run(stage.builder().on("*", write_effect));
    let shipping = onceward_consumer::Consumer::builder("shipping")
        .pool(stage.pool().clone())
        .on("*", write_effect)
        .build()
        .unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let subscriber = stage.broker.subscriber("shipping", &[common::TOPIC]);
    let task = tokio::spawn(shipping.run(subscriber, stop.clone()));
    stage.settled(2).await;
    stop.cancel();
    task.await.unwrap().unwrap();
    billing.stop().await;

    assert_eq!(stage.effects().await, [1, 1]);
}

#[tokio::test]
async fn a_failed_attempt_leaves_nothing_behind() {
    static CALLS: AtomicU32 = AtomicU32::new(0);

    async fn fails_twice(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        if CALLS.fetch_add(1, Ordering::SeqCst) < 2 {
            return Err("not yet".into());
        }
        assert_eq!(tx.attempt(), 3);
        Ok(())
    }
    let stage = Stage::new().await;
    stage.publish(1, None);

    let running = stage.run(stage.builder().on("*", fails_twice));
    stage.settled(1).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1]);
    assert_eq!(stage.outcomes().await, [0]);
    assert_eq!(CALLS.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_savepoint_of_the_handler_is_its_own_and_the_mark_is_not_in_it() {
    async fn with_savepoint(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        let mut inner = tx.begin().await?;
        sqlx::query("insert into effects (order_id) values (-1)")
            .execute(&mut *inner)
            .await?;
        inner.rollback().await?;
        let mut inner = tx.begin().await?;
        sqlx::query("insert into effects (order_id) values ($1)")
            .bind(event.order)
            .execute(&mut *inner)
            .await?;
        inner.commit().await?;
        Ok(())
    }
    let stage = Stage::new().await;
    stage.publish(1, None);

    let running = stage.run(stage.builder().on("*", with_savepoint));
    stage.settled(1).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1]);
}

#[tokio::test]
async fn a_mark_that_somebody_else_is_inserting_is_waited_for_without_an_attempt() {
    let stage = Stage::new().await;
    let id = stage.publish(1, None);
    let mut other = stage.pool().begin().await.unwrap();
    sqlx::query(
        "insert into onceward.processed_messages (slot, consumer, message_id, outcome)
         values (onceward.mark_slot($1), 'billing', $1, 0)",
    )
    .bind(id)
    .execute(&mut *other)
    .await
    .unwrap();
    // Half of the deadline is the time it waits for locks: several looks pass while the other one works.
    let settings = HandlerSettings {
        deadline: Duration::from_millis(100),
        ..quick(1)
    };

    let running = stage.run(stage.builder().on("*", write_effect).with(settings));
    waits_for_a_lock(&stage, 4).await;
    other.commit().await.unwrap();
    running.stop().await;

    assert!(stage.effects().await.is_empty(), "the other one settled it");
    assert!(stage.letters().await.is_empty());
}

/// Waits until `count` waits for a lock by different transactions were seen.
async fn waits_for_a_lock(stage: &Stage, count: usize) {
    let seen = Arc::new(tokio::sync::Mutex::new(std::collections::HashSet::new()));
    wait::until_true(SOON, "waits for a lock", || async {
        let xid: Option<String> = sqlx::query_scalar(
            "select xact_start::text from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_optional(stage.pool())
        .await
        .unwrap();
        let mut seen = seen.lock().await;
        seen.extend(xid);
        seen.len() >= count
    })
    .await;
}

#[tokio::test]
async fn conflicts_between_transactions_repeat_for_free() {
    static CALLS: AtomicU32 = AtomicU32::new(0);

    async fn conflicts(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        assert_eq!(tx.attempt(), 1, "a conflict costs no attempt");
        if CALLS.fetch_add(1, Ordering::SeqCst) < 5 {
            sqlx::query("do $$ begin raise sqlstate '40001'; end $$")
                .execute(&mut **tx)
                .await?;
        }
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    stage.publish(1, None);

    let running = stage.run(stage.builder().on("*", conflicts).with(quick(1)));
    stage.settled(1).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1]);
    assert_eq!(stage.outcomes().await, [0]);
}

#[tokio::test]
async fn a_conflict_that_shows_at_commit_repeats_for_free_too() {
    let stage = Stage::new().await;
    // Fails at COMMIT, for the first two.
    let setup = "create sequence tries;
        create function fail() returns trigger language plpgsql as $$
        begin
          if nextval('tries') <= 2 then raise sqlstate '40001'; end if;
          return null;
        end $$;
        create constraint trigger at_commit after insert on effects
        deferrable initially deferred for each row execute function fail()";
    sqlx::raw_sql(setup).execute(stage.pool()).await.unwrap();
    stage.publish(1, None);

    let running = stage.run(stage.builder().on("*", write_effect).with(quick(1)));
    stage.settled(1).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1]);
    assert!(stage.letters().await.is_empty());
}

/// What a handler sees of a setting of its transaction, where the database says something else by default.
async fn seen_with(default: &str, setting: &'static str) -> String {
    async fn looks(
        (setting, seen): (&'static str, Arc<Mutex<String>>),
        _: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        let value: String = sqlx::query_scalar("select current_setting($1)")
            .bind(setting)
            .fetch_one(&mut **tx)
            .await?;
        *seen.lock().unwrap() = value;
        Ok(())
    }
    let stage = Stage::new().await;
    let alter = format!("alter database {} set {default}", stage.database.name());
    sqlx::raw_sql(sqlx::AssertSqlSafe(alter))
        .execute(stage.pool())
        .await
        .unwrap();
    stage.publish(1, None);
    let pool = sqlx::PgPool::connect(stage.database.url()).await.unwrap();
    let seen = Arc::new(Mutex::new(String::new()));

    let state = (setting, Arc::clone(&seen));
    let builder = stage.builder().pool(pool).on_with("*", state, looks);
    let running = stage.run(builder.with(quick(1)));
    stage.settled(1).await;
    running.stop().await;

    seen.lock().unwrap().clone()
}

#[tokio::test]
async fn the_commit_is_synchronous_whatever_the_database_says() {
    for (default, seen) in [
        ("off", "on"),
        ("local", "on"),
        ("remote_apply", "remote_apply"),
    ] {
        let default = format!("synchronous_commit = {default}");

        assert_eq!(
            seen_with(&default, "synchronous_commit").await,
            seen,
            "{default}"
        );
    }
}

#[tokio::test]
async fn the_isolation_is_read_committed_whatever_the_database_says() {
    for default in ["repeatable read", "serializable"] {
        let default = format!("default_transaction_isolation = '{default}'");

        let seen = seen_with(&default, "transaction_isolation").await;

        assert_eq!(seen, "read committed", "{default}");
    }
}
