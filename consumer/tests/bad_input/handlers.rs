//! Handlers that reject, fail, panic, hang, and do what they may not.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use onceward_consumer::{Handler, HandlerError, HandlerSettings, Message, Schema, Tx, dead_letter};
use onceward_testkit::wait;

use crate::common::{Order, SOON, Stage, effect, quick};

#[tokio::test]
async fn a_rejected_message_leaves_its_reason_and_no_effect() {
    async fn rejects(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        let why = "out of range".parse::<i64>().unwrap_err();
        Err(HandlerError::reject("the order is closed").because(why))
    }
    let stage = Stage::new().await;
    stage.publish(1, None);

    let running = stage.run(stage.builder().on("*", rejects));
    stage.settled(1).await;
    running.stop().await;

    assert!(stage.effects().await.is_empty());
    let letters = stage.letters().await;
    assert_eq!(letters[0].0, "rejected");
    assert_eq!(
        letters[0].1,
        "the order is closed: invalid digit found in string"
    );
}

#[tokio::test]
async fn after_the_last_attempt_a_dead_letter_tells_of_all_of_them() {
    #[derive(Debug, thiserror::Error)]
    #[error("the invoice was refused")]
    struct Refused(#[source] std::num::ParseIntError);

    async fn fails(_: Order, _: &mut Tx) -> Result<(), HandlerError> {
        Err(Refused("x".parse::<i64>().unwrap_err()).into())
    }
    let stage = Stage::new().await;
    let id = stage.publish(1, Some(7));

    let running = stage.run(stage.builder().on("*", fails));
    stage.settled(1).await;
    running.stop().await;

    let pool = stage.pool();
    let schema = Schema::default();
    let list = dead_letter::list(pool, &schema, &dead_letter::Filter::default())
        .await
        .unwrap();
    let letter = dead_letter::show(pool, &schema, list[0].id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(letter.summary.reason, "attempts");
    assert_eq!(letter.summary.message_id, id);
    assert_eq!(letter.summary.key.as_deref(), Some("7"));
    assert_eq!(letter.original_id, Some(id.to_string()));
    assert_eq!(letter.headers["content-type"], "application/json");
    assert_eq!(letter.origin["seq"], 2);
    assert_eq!(letter.history.len(), 3);
    assert_eq!(letter.history[2].number, 3);
    assert_eq!(
        letter.history[0].error,
        "the invoice was refused: invalid digit found in string"
    );
    assert_eq!(letter.first_failed_at, Some(letter.history[0].at));
    let counts = dead_letter::counts(pool, &schema).await.unwrap();
    assert_eq!(
        (counts[0].consumer.as_str(), counts[0].count),
        ("billing", 1)
    );
    serde_json::to_string(&letter).unwrap();
}

#[tokio::test]
async fn a_handler_that_panics_has_failed_and_the_consumer_goes_on() {
    async fn panics(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        assert!(event.order != 1, "order {} is not for me", event.order);
        Ok(())
    }
    let stage = Stage::new().await;
    stage.publish(1, None);
    stage.publish(2, None);

    let running = stage.run(stage.builder().on("*", panics));
    stage.settled(2).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [2]);
    let letters = stage.letters().await;
    assert_eq!((letters[0].0.as_str(), letters[0].2), ("attempts", 3));
    assert!(
        letters[0].1.contains("order 1 is not for me"),
        "{}",
        letters[0].1
    );
}

#[tokio::test]
async fn a_swallowed_database_error_is_found_out_before_the_ack() {
    async fn swallows(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        drop(sqlx::query("select 1 / 0").execute(&mut **tx).await);
        Ok(())
    }
    let stage = Stage::new().await;
    stage.publish(1, None);

    let running = stage.run(stage.builder().on("*", swallows));
    stage.settled(1).await;
    running.stop().await;

    assert!(stage.effects().await.is_empty());
    let letters = stage.letters().await;
    assert_eq!((letters[0].0.as_str(), letters[0].2), ("attempts", 3));
    assert_eq!(letters[0].1, "a statement failed and the handler went on");
}

/// Ends the transaction by itself, and fails or not.
struct Ends(&'static str, bool);

impl Handler for Ends {
    async fn handle(&self, _: &Message, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(1, tx).await?;
        sqlx::raw_sql(self.0).execute(&mut **tx).await?;
        if self.1 {
            Err("after that".into())
        } else {
            Ok(())
        }
    }
}

#[tokio::test]
async fn a_handler_that_ends_the_transaction_is_found_out_and_not_tried_again() {
    for (sql, fails, effects) in [
        ("commit", false, vec![1]),
        ("commit", true, vec![1]),
        ("commit; begin", false, vec![1]),
        ("commit; begin", true, vec![1]),
        ("rollback", false, vec![]),
        ("rollback; begin", false, vec![]),
        // In a transaction of its own, which is not kept.
        (
            "commit; begin; insert into effects (order_id) values (9)",
            false,
            vec![1],
        ),
        (
            "rollback; begin; insert into effects (order_id) values (9)",
            false,
            vec![],
        ),
    ] {
        let stage = Stage::new().await;
        stage.publish(1, None);

        let running = stage.run(stage.builder().handler("*", Ends(sql, fails)));
        wait::until_true(SOON, "a dead letter", || async {
            !stage.letters().await.is_empty()
        })
        .await;
        running.stop().await;

        let letters = stage.letters().await;
        assert_eq!(letters[0].0, "transaction_ended", "{sql} {fails}");
        assert_eq!(stage.outcomes().await, [2], "{sql} {fails}");
        assert_eq!(stage.effects().await, effects, "{sql} {fails}");
    }
}

#[tokio::test]
async fn a_handler_that_ignores_its_deadline_is_ended_on_the_server_and_has_failed() {
    async fn sleeps(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        // Longer than the server's own limit, which a handler may lift.
        sqlx::query("select set_config('statement_timeout', '0', true)")
            .execute(&mut **tx)
            .await?;
        sqlx::query("select pg_sleep(600)")
            .execute(&mut **tx)
            .await?;
        Ok(())
    }
    let stage = Stage::new().await;
    stage.publish(1, None);
    let settings = HandlerSettings {
        deadline: Duration::from_millis(200),
        ..quick(2)
    };

    let began = Instant::now();
    let running = stage.run(stage.builder().on("*", sleeps).with(settings));
    stage.settled(1).await;
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
    wait::until_true(SOON, "no query to be left", || async {
        let left: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and state <> 'idle' and query like '%pg_sleep%'
               and pid <> pg_backend_pid()",
        )
        .fetch_one(stage.pool())
        .await
        .unwrap();
        left == 0
    })
    .await;
    running.stop().await;

    assert!(stage.effects().await.is_empty());
    let letters = stage.letters().await;
    assert_eq!((letters[0].0.as_str(), letters[0].2), ("attempts", 2));
    assert!(
        letters[0].1.contains("deadline of 200ms"),
        "{}",
        letters[0].1
    );
}

#[tokio::test]
async fn a_handler_that_sleeps_past_its_deadline_keeps_its_connection() {
    async fn idles(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        tokio::time::sleep(Duration::from_secs(600)).await;
        Ok(())
    }
    let stage = Stage::new().await;
    stage.publish(1, None);
    let settings = HandlerSettings {
        deadline: Duration::from_millis(100),
        ..quick(2)
    };

    let running = stage.run(stage.builder().on("*", idles).with(settings));
    stage.settled(1).await;
    running.stop().await;

    assert_eq!(stage.letters().await[0].0, "attempts");
    assert!(stage.effects().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_blocks_its_thread_keeps_its_key_and_others_go_on() {
    async fn blocks(gate: Arc<Barrier>, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if event.order == 1 {
            gate.wait();
        }
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    let gate = Arc::new(Barrier::new(2));
    stage.publish(1, Some(1));
    stage.publish(2, Some(1));
    stage.publish(3, Some(2));
    let settings = HandlerSettings {
        // Twice this is how long the server lets the transaction idle.
        deadline: Duration::from_secs(5),
        ..quick(3)
    };

    let builder = stage.builder().on_with("*", gate.clone(), blocks);
    let running = stage.run(builder.with(settings));
    stage.settled(1).await;
    assert_eq!(stage.effects().await, [3], "the key of 1 and 2 is taken");
    tokio::task::spawn_blocking(move || gate.wait())
        .await
        .unwrap();
    stage.settled(3).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [3, 1, 2]);
}

#[tokio::test]
async fn a_savepoint_left_open_is_a_failure() {
    async fn leaves(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        use sqlx::Connection as _;
        let inner = tx.begin().await?;
        std::mem::forget(inner);
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    stage.publish(1, None);

    let running = stage.run(stage.builder().on("*", leaves));
    stage.settled(1).await;
    running.stop().await;

    assert!(stage.effects().await.is_empty());
    assert!(stage.letters().await[0].1.contains("savepoint"));
}
