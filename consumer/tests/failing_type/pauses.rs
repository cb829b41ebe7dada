//! What pauses a type, and what becomes of its messages then.

use std::sync::atomic::Ordering;
use std::time::Duration;

use onceward_consumer::{BatchTx, BuildError, FailingTypes, HandlerError, HandlerSettings, Tx};
use onceward_core::{MAX_PAYLOAD, Message, Source};
use onceward_testkit::wait;
use time::OffsetDateTime;

use crate::common::{self, Order, SOON, Stage, effect, quick, write_effect};
use crate::{
    Dependency, builder, lines_that_wait, pause_by_hand, paused, publish_failing, wait_for_calls,
    wait_for_effects, wait_until_forgotten,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_dependency_costs_a_few_attempts_and_no_dead_letters() {
    let stage = Stage::new().await;
    for order in 0..200 {
        stage.publish(order, Some(order % 50));
    }
    let dependency = Dependency::default();

    let members = [0, 1].map(|_| stage.run(builder(&stage, &dependency)));
    stage.wait_for_retries(200).await;
    assert_eq!(paused(&stage).await, [common::TOPIC]);
    let before = dependency.calls();
    assert!(before < 200, "{before} calls");
    wait_for_calls(&dependency, before + 3).await;
    assert_eq!(stage.retries().await, 200);
    assert!(stage.letters().await.is_empty());

    dependency.up(true);
    wait_for_effects(&stage, 200).await;
    wait_until_forgotten(&stage).await;
    for member in members {
        member.stop().await;
    }

    stage.in_order(50).await;
    stage.nothing_waits().await;
    assert!(stage.letters().await.is_empty());
}

#[tokio::test]
async fn other_types_go_on_while_one_is_paused_even_behind_it_in_a_line() {
    async fn fails(_: Order, _: &mut Tx) -> Result<(), HandlerError> {
        Err("always".into())
    }
    async fn works(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if tx.attempt() == 1 {
            return Err(HandlerError::retry_after(Duration::from_millis(1)));
        }
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    let at_once = HandlerSettings {
        defer_after: Duration::ZERO,
        ..quick(100)
    };
    // All in the database: lines whose first message is of the type that works, and whose second one is of the other.
    for order in 0..20 {
        stage.publish_of("works", order, Some(order));
        stage.publish_of("fails", 100 + order, Some(order));
    }

    let builder = stage.builder().defaults(at_once);
    let running = stage.run(builder.on("works", works).on("fails", fails));
    wait_for_effects(&stage, 20).await;
    wait::until_true(SOON, "the others to wait for their type", || async {
        lines_that_wait(&stage).await >= 19
    })
    .await;
    let wrong: i64 = sqlx::query_scalar(
        "select count(*) from onceward.held_keys h
         where h.waits_for is not null
           and h.waits_for <> (
             select r.type from onceward.retries r
             where r.consumer = h.consumer and r.line = h.line order by r.id limit 1)",
    )
    .fetch_one(stage.pool())
    .await
    .unwrap();
    running.stop().await;

    assert_eq!(wrong, 0, "a line waits for the type of its first message");
    assert_eq!(paused(&stage).await, ["fails"]);
}

#[tokio::test]
async fn a_rejection_is_a_decision_about_one_message_and_pauses_nothing() {
    async fn rejects(_: Order, _: &mut Tx) -> Result<(), HandlerError> {
        Err(HandlerError::reject("no"))
    }
    let stage = Stage::new().await;
    publish_failing(&stage, 30);

    let running = stage.run(stage.builder().on("*", rejects));
    stage.settled(30).await;
    running.stop().await;

    assert_eq!(stage.letters().await.len(), 30);
    assert!(paused(&stage).await.is_empty());
}

#[tokio::test]
async fn who_wants_no_pauses_has_none() {
    async fn fails(_: Order, _: &mut Tx) -> Result<(), HandlerError> {
        Err("always".into())
    }
    let stage = Stage::new().await;
    publish_failing(&stage, 30);
    let never = FailingTypes {
        recent: 0,
        ..FailingTypes::default()
    };

    let builder = stage.builder().failing_types(never).defaults(quick(2));
    let running = stage.run(builder.on("*", fails));
    stage.settled(30).await;
    running.stop().await;

    assert_eq!(stage.letters().await.len(), 30);
    let error = stage.builder().on("*", fails).failing_types(FailingTypes {
        probe_every: Duration::ZERO,
        ..FailingTypes::default()
    });
    assert!(matches!(error.build(), Err(BuildError::Settings { .. })));
}

#[tokio::test]
async fn a_pause_that_somebody_deletes_by_hand_ends_too() {
    let stage = Stage::new().await;
    publish_failing(&stage, 20);
    let dependency = Dependency::default();
    let running = stage.run(builder(&stage, &dependency));
    stage.wait_for_retries(20).await;
    dependency.up(true);
    running.stop().await;
    sqlx::query("delete from onceward.paused_types")
        .execute(stage.pool())
        .await
        .unwrap();
    // As fifteen minutes would.
    sqlx::query("update onceward.held_keys set due_at = now()")
        .execute(stage.pool())
        .await
        .unwrap();

    let running = stage.run(builder(&stage, &dependency));
    wait_for_effects(&stage, 20).await;
    running.stop().await;

    stage.nothing_waits().await;
}

#[tokio::test]
async fn messages_of_a_paused_type_are_in_no_batch_and_wait_without_an_attempt() {
    async fn depends(
        on: Dependency,
        events: Vec<Order>,
        tx: &mut BatchTx,
    ) -> Result<(), HandlerError> {
        on.calls.fetch_add(1, Ordering::SeqCst);
        for event in events {
            sqlx::query("insert into effects (order_id) values ($1)")
                .bind(event.order)
                .execute(&mut **tx)
                .await?;
        }
        if !on.up.load(Ordering::SeqCst) {
            return Err("the dependency is down".into());
        }
        Ok(())
    }
    let stage = Stage::new().await;
    let dependency = Dependency::default();
    publish_failing(&stage, 200);
    let often = FailingTypes {
        probe_every: Duration::from_millis(100),
        ..FailingTypes::default()
    };

    let builder = stage.builder().defaults(quick(100)).failing_types(often);
    let running = stage.run(builder.on_batch_with("*", dependency.clone(), depends));
    stage.wait_for_retries(200).await;
    let calls = dependency.calls();
    assert!(calls < 200, "{calls} calls");
    // Later ones come when the pause is known.
    for order in 200..210 {
        stage.publish(order, Some(order));
    }
    stage.wait_for_retries(210).await;
    dependency.up(true);
    wait_for_effects(&stage, 210).await;
    wait_until_forgotten(&stage).await;
    running.stop().await;

    stage.nothing_waits().await;
    assert!(stage.letters().await.is_empty());
}

#[tokio::test]
async fn a_type_that_is_known_to_be_paused_costs_no_dead_letters() {
    let stage = Stage::new().await;
    let dependency = Dependency::default();
    publish_failing(&stage, 60);
    let one_attempt = || builder(&stage, &dependency).defaults(quick(1));

    let running = stage.run(one_attempt());
    stage.settled(60).await;
    running.stop().await;
    let letters = stage.letters().await.len();
    assert_eq!(letters, 9, "the tenth one has paused the type");
    assert_eq!(stage.retries().await, 51);

    // Another member asks before it begins.
    let running = stage.run(one_attempt());
    for order in 60..80 {
        stage.publish(order, Some(order));
    }
    stage.wait_for_retries(71).await;
    running.stop().await;

    assert_eq!(stage.letters().await.len(), letters);
}

/// Whoever begins to wait has its mark taken for its own later: what was settled otherwise must be told before.
#[tokio::test]
async fn a_number_that_was_given_before_is_told_though_the_type_is_paused() {
    fn numbered(order: i64, seq: i64) -> Message {
        let event = serde_json::json!({ "order": order });
        let draft = Message::json(common::TOPIC, &event).unwrap();
        let draft = draft.key("k").sequence(1);
        let mut message = draft.finish(MAX_PAYLOAD).unwrap().message;
        message.source = Some(Source::try_from("/shop").unwrap());
        (message.seq, message.time) = (Some(seq), Some(OffsetDateTime::now_utc()));
        message
    }
    let stage = Stage::new().await;
    let run = || {
        let builder = stage.builder().dedupe_by_sequence();
        stage.run(builder.on("*", write_effect))
    };
    stage.broker.publish(numbered(1, 1)).unwrap();
    let running = run();
    wait_for_effects(&stage, 1).await;
    running.stop().await;

    pause_by_hand(&stage, common::TOPIC, 3_600).await;
    stage.broker.publish(numbered(2, 2)).unwrap();
    let running = run();
    wait::until_true(SOON, "a dead letter", || async {
        !stage.letters().await.is_empty()
    })
    .await;
    running.stop().await;

    assert_eq!(stage.letters().await[0].0, "sequence_reused");
    assert_eq!(stage.retries().await, 0);
}
