//! What is no crash, and leaves no start behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onceward_consumer::{HandlerError, HandlerSettings, Limits, Tx};
use onceward_core::{SubscribeError, SubscribeErrorKind};
use onceward_testkit::postgres::{Options, Postgres};
use onceward_testkit::wait;

use crate::common::scripted::{Member, delivery};
use crate::common::{Order, SOON, Stage, effect, quick, write_effect};
use crate::{DEADLY, Deadly, deadly, one_at_a_time, starts};

#[tokio::test]
async fn of_a_partition_that_nobody_died_at_only_the_first_deliveries_write_a_start() {
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    sqlx::raw_sql(
        "create sequence written;
         create function note() returns trigger language plpgsql as $$ begin perform nextval('written'); return null; end $$;
         create trigger note after insert or update on onceward.starts for each row execute function note()",
    )
    .execute(stage.pool())
    .await
    .unwrap();
    for order in 0..300 {
        stage.publish(order, Some(order));
    }

    let running = stage.run(stage.builder().on("*", write_effect));
    stage.settled(300).await;
    running.stop().await;

    let written: i64 = sqlx::query_scalar("select last_value from written")
        .fetch_one(stage.pool())
        .await
        .unwrap();
    // As many as run at a time, and those that ran beside the last of them.
    let at_a_time = i64::try_from(Limits::default().concurrency).unwrap();
    assert!((1..=2 * at_a_time).contains(&written), "{written}");
    assert_eq!(starts(&stage).await, 0);
}

#[tokio::test]
async fn an_attempt_that_fails_is_no_crash_and_leaves_no_start() {
    async fn fails(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        match tx.attempt() {
            1 => Err("not yet".into()),
            2 => Err(HandlerError::retry_after(Duration::from_secs(6))),
            3 => {
                sqlx::query("select 1 / 0").execute(&mut **tx).await?;
                Ok(())
            }
            4 => std::future::pending().await,
            5 => panic!("planned"),
            _ => effect(event.order, tx).await,
        }
    }
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    let settings = HandlerSettings {
        deadline: Duration::from_millis(300),
        ..quick(9)
    };

    let running = stage.run(stage.builder().defaults(settings).on("*", fails));
    wait::until_true(SOON, "the effect", || async {
        stage.effects().await == [1]
    })
    .await;
    running.stop().await;

    assert_eq!(starts(&stage).await, 0);
    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_member_that_is_stopped_is_not_taken_for_dead() {
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    let deadly = Deadly::new();
    let limits = Limits {
        grace: Duration::from_millis(50),
        ..Limits::default()
    };

    for _ in 0..5 {
        let running = stage.run(deadly.builder(&stage).limits(limits.clone()));
        deadly.begun.acquire().await.unwrap().forget();
        running.stop().await;
        assert_eq!(starts(&stage).await, 0);
    }

    assert!(stage.letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_partition_and_still_handles_is_not_taken_for_dead() {
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    let deadly = Deadly::new();
    let slow = HandlerSettings {
        deadline: Duration::from_secs(4),
        ..quick(50)
    };
    let members = [0, 1].map(|_| {
        let builder = stage.builder().defaults(slow.clone());
        stage.run(builder.on_with("*", deadly.clone(), self::deadly))
    });
    deadly.begun.acquire().await.unwrap().forget();

    // The other one gets it, or this one again, and neither may count the other's start.
    for _ in 0..4 {
        stage.broker.stop();
        stage.broker.start();
        deadly.begun.acquire().await.unwrap().forget();
    }
    for member in members {
        member.kill().await;
    }

    assert!(stage.letters().await.is_empty());
    let counted: i32 = sqlx::query_scalar("select coalesce(max(crashes), 0) from onceward.starts")
        .fetch_one(stage.pool())
        .await
        .unwrap();
    assert_eq!(counted, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_database_while_a_suspect_runs_alone_is_no_crash() {
    let _one = one_at_a_time().await;
    let postgres = Postgres::start(Options::default()).await;
    let stage = Stage::on(&postgres).await;
    stage.publish(1, Some(1));
    let deadly = Deadly::new();
    deadly.kill(stage.run(deadly.builder(&stage)), 1).await;
    let quick = HandlerSettings {
        deadline: Duration::from_secs(2),
        ..quick(1_000)
    };

    let running = stage.run(deadly.builder(&stage).defaults(quick));
    for _ in 0..4 {
        deadly.begun.acquire().await.unwrap().forget();
        postgres.kill();
        postgres.start_again().await;
    }
    deadly.begun.acquire().await.unwrap().forget();
    running.stop().await;

    assert!(stage.letters().await.is_empty());
    // The server may have forgotten the start, but nothing has counted as a crash, or would.
    wait::until_true(SOON, "the end of the last start", || async {
        let counted: i64 =
            sqlx::query_scalar("select count(*) from onceward.starts where alone or crashes > 0")
                .fetch_one(stage.pool())
                .await
                .unwrap();
        counted == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspect_that_fails_while_it_is_alone_is_handled_later_and_leaves_no_start() {
    async fn fails(fails: Arc<AtomicBool>, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        if fails.load(Ordering::SeqCst) {
            return Err("not yet".into());
        }
        Ok(())
    }
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    stage.publish(DEADLY, Some(1));
    stage.publish(2, Some(2));
    let deadly = Deadly::new();
    deadly.kill(stage.run(deadly.builder(&stage)), 2).await;
    assert_eq!(starts(&stage).await, 2);

    let failing = Arc::new(AtomicBool::new(true));
    let settings = HandlerSettings {
        defer_after: Duration::ZERO,
        ..quick(1_000)
    };
    let builder = stage.builder().defaults(settings);
    let running = stage.run(builder.on_with("*", failing.clone(), fails));
    stage.wait_for_retries(2).await;
    failing.store(false, Ordering::SeqCst);
    wait::until_true(SOON, "the effects", || async {
        stage.effects().await.len() == 2
    })
    .await;
    running.stop().await;

    assert_eq!(starts(&stage).await, 0);
    stage.nothing_waits().await;
    assert!(stage.letters().await.is_empty());
}

#[tokio::test]
async fn a_consumer_that_ends_by_an_error_leaves_no_start_behind() {
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    let deadly = Deadly::new();
    let member = Member::run(deadly.builder(&stage));
    member.say(vec![delivery(u64::try_from(DEADLY).unwrap(), None)]);
    let begun = tokio::time::timeout(SOON, deadly.begun.acquire());
    begun.await.unwrap().unwrap().forget();
    assert_eq!(starts(&stage).await, 1);

    let error = SubscribeError::new(SubscribeErrorKind::Misconfigured, "because");
    member.script.send(Err(error)).unwrap();
    let ended = tokio::time::timeout(SOON, member.task).await;
    let ended = ended.unwrap().unwrap();

    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(starts(&stage).await, 0);
}
