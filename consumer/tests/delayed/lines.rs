//! What waits behind one that waits: how a line is worked off, in order, whatever its first one comes to.

use std::time::Duration;

use onceward_consumer::{HandlerError, Tx};
use onceward_testkit::wait;

use crate::common::{Order, SOON, Stage, effect};
use crate::{Failures, LONG, SHORT, builder, deferring};

#[tokio::test]
async fn followers_of_a_key_line_up_behind_the_one_that_waits_and_others_go_on() {
    let stage = Stage::new().await;
    let failures = Failures::of(&[(1, 3)], Duration::from_secs(1));
    for order in 1..=5 {
        stage.publish(order, Some(1));
    }
    for order in 6..=8 {
        stage.publish(order, Some(order));
    }

    let running = stage.run(builder(&stage, &failures));
    wait::until_true(SOON, "all effects", || async {
        stage.effects().await.len() == 8
    })
    .await;
    running.stop().await;

    let effects = stage.effects().await;
    let of_key: Vec<i64> = effects.iter().copied().filter(|n| *n <= 5).collect();
    assert_eq!(of_key, [1, 2, 3, 4, 5]);
    assert!(effects.iter().position(|n| *n == 8) < effects.iter().position(|n| *n == 1));
    stage.nothing_waits().await;
    assert_eq!(stage.outcomes().await, [0; 8]);
}

#[tokio::test]
async fn a_dead_letter_at_the_head_of_a_line_lets_the_next_one_go_on() {
    let stage = Stage::new().await;
    let failures = Failures::of(&[(1, 99)], SHORT);
    for order in 1..=3 {
        stage.publish(order, Some(1));
    }

    let builder = builder(&stage, &failures).defaults(deferring(3));
    let running = stage.run(builder);
    wait::until_true(SOON, "the followers", || async {
        stage.effects().await.len() == 2
    })
    .await;
    running.stop().await;

    assert_eq!(stage.effects().await, [2, 3]);
    assert_eq!(stage.letters().await.len(), 1);
    assert_eq!(stage.letters().await[0].2, 3);
    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_handler_that_commits_by_itself_leaves_its_line_as_a_dead_letter() {
    async fn commits(
        statement: &'static str,
        event: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        if event.order > 1 {
            return effect(event.order, tx).await;
        }
        if tx.attempt() == 1 {
            return Err(HandlerError::retry_after(SHORT));
        }
        effect(event.order, tx).await?;
        sqlx::raw_sql(statement).execute(&mut **tx).await?;
        Ok(())
    }
    for statement in [
        "commit",
        // In a transaction of its own, which is not kept.
        "commit; begin; insert into effects (order_id) values (9)",
    ] {
        let stage = Stage::new().await;
        stage.publish(1, Some(1));
        stage.publish(2, Some(1));

        let builder = stage.builder().defaults(deferring(5));
        let running = stage.run(builder.on_with("*", statement, commits));
        wait::until_true(SOON, "the follower", || async {
            stage.effects().await.contains(&2)
        })
        .await;
        running.stop().await;

        assert_eq!(stage.effects().await, [1, 2], "{statement}");
        assert_eq!(stage.letters().await[0].0, "transaction_ended");
        stage.nothing_waits().await;
    }
}

#[tokio::test]
async fn a_handler_that_rolls_back_by_itself_loses_nothing_from_its_line() {
    async fn rolls_back(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if tx.attempt() == 1 {
            return Err(HandlerError::retry_after(SHORT));
        }
        sqlx::raw_sql("rollback").execute(&mut **tx).await?;
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    stage.publish(1, Some(1));

    let running = stage.run(stage.builder().defaults(deferring(5)).on("*", rolls_back));
    wait::until_true(SOON, "a dead letter", || async {
        stage.letters().await.len() == 1
    })
    .await;
    running.stop().await;

    assert_eq!(stage.letters().await[0].0, "transaction_ended");
    assert_eq!(stage.outcomes().await, [2]);
    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_swallowed_error_in_a_retry_is_found_out() {
    async fn swallows(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        match tx.attempt() {
            1 => return Err(HandlerError::retry_after(SHORT)),
            2 => drop(sqlx::query("select 1 / 0").execute(&mut **tx).await),
            _ => {}
        }
        Ok(())
    }
    let stage = Stage::new().await;
    stage.publish(1, Some(1));

    let running = stage.run(stage.builder().defaults(deferring(5)).on("*", swallows));
    wait::until_true(SOON, "the effect", || async {
        stage.effects().await == [1]
    })
    .await;
    running.stop().await;

    assert_eq!(stage.outcomes().await, [0]);
    stage.nothing_waits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_that_fail_and_die_keep_each_key_in_order() {
    async fn by_chance(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        if fastrand::u8(..) < 80 {
            return Err(HandlerError::retry_after(Duration::from_millis(
                fastrand::u64(0..40),
            )));
        }
        Ok(())
    }
    let stage = Stage::new().await;
    let keys = 9;
    for order in 0..400 {
        stage.publish(order, Some(order % keys));
    }
    let start = || {
        let builder = stage
            .builder()
            .defaults(deferring(1_000))
            .on("*", by_chance);
        stage.run(builder)
    };

    let mut members = vec![start(), start()];
    for round in 1..=6 {
        wait::until_true(SOON, "some more effects", || async {
            stage.effects().await.len() >= round * 50
        })
        .await;
        members.remove(0).kill().await;
        members.push(start());
    }
    wait::until_true(SOON, "all effects", || async {
        stage.effects().await.len() == 400
    })
    .await;
    for member in members {
        member.stop().await;
    }

    stage.in_order(keys).await;
    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_thousand_followers_of_one_key_are_handled_one_by_one_in_order() {
    let stage = Stage::new().await;
    let failures = Failures::of(&[(0, 2)], SHORT);
    for order in 0..1_000 {
        stage.publish(order, Some(0));
    }

    let running = stage.run(builder(&stage, &failures));
    wait::until_true(SOON, "all effects", || async {
        stage.effects().await.len() == 1_000
    })
    .await;
    running.stop().await;

    stage.in_order(1).await;
    stage.nothing_waits().await;
}

#[tokio::test]
async fn what_waits_in_a_line_follows_one_by_one_without_a_look_for_each() {
    let stage = Stage::new().await;
    let failures = Failures::of(&[(1, 1)], LONG);
    for order in 1..=40 {
        stage.publish(order, Some(1));
    }
    let running = stage.run(builder(&stage, &failures));
    stage.wait_for_retries(40).await;
    sqlx::raw_sql(
        "update onceward.retries set due_at = now();
         update onceward.held_keys set due_at = now();
         create sequence moves;
         create function note() returns trigger language plpgsql as $$ begin perform nextval('moves'); return null; end $$;
         create trigger note after update on onceward.held_keys for each row execute function note()",
    )
    .execute(stage.pool())
    .await
    .unwrap();

    wait::until_true(SOON, "all of the line", || async {
        stage.effects().await.len() == 40
    })
    .await;
    running.stop().await;

    assert_eq!(stage.effects().await, (1..=40).collect::<Vec<_>>());
    let moves: i64 = sqlx::query_scalar("select last_value from moves")
        .fetch_one(stage.pool())
        .await
        .unwrap();
    // One for each that leaves it, and few looks.
    assert!((39..60).contains(&moves), "{moves}");
}
