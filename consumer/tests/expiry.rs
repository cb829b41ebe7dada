//! Messages that are of no use any more.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::time::Duration;

use common::{Order, Stage, effect, quick, write_effect};
use onceward_consumer::{HandlerError, HandlerSettings, Tx};
use onceward_core::{MAX_PAYLOAD, Message};
use time::OffsetDateTime;

impl Stage {
    fn publish_until(&self, order: i64, at: OffsetDateTime) {
        let event = serde_json::json!({ "order": order });
        let draft = Message::json(common::TOPIC, &event).unwrap();
        let draft = draft.key(order).expires_at(at);
        let mut message = draft.finish(MAX_PAYLOAD).unwrap().message;
        message.seq = Some(1);
        self.broker.publish(message).unwrap();
    }
}

#[tokio::test]
async fn an_expired_message_is_counted_and_not_handled() {
    let stage = Stage::new().await;
    let now = OffsetDateTime::now_utc();
    stage.publish_until(1, now - Duration::from_secs(60));
    stage.publish_until(2, now + Duration::from_secs(3600));

    let consumer = stage.builder().on("*", write_effect).build().unwrap();
    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    let settled = consumer.run_until_idle(subscriber).await.unwrap();

    assert_eq!((settled.handled, settled.expired), (1, 1));
    assert_eq!(stage.effects().await, [2]);
    let mut outcomes = stage.outcomes().await;
    outcomes.sort_unstable();
    assert_eq!(outcomes, [0, 3]);
    assert!(stage.letters().await.is_empty());
}

#[tokio::test]
async fn a_message_that_expires_while_it_waits_lets_its_followers_go_on() {
    async fn waits(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if event.order == 1 {
            return Err(HandlerError::retry_after(Duration::from_millis(100)));
        }
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    stage.publish_until(1, OffsetDateTime::now_utc() + Duration::from_secs(2));
    stage.publish(2, Some(1));
    let settings = HandlerSettings {
        defer_after: Duration::ZERO,
        ..quick(1_000)
    };

    let running = stage.run(stage.builder().defaults(settings).on("*", waits));
    onceward_testkit::wait::until_true(common::SOON, "the follower", || async {
        stage.effects().await == [2]
    })
    .await;
    running.stop().await;

    assert_eq!(stage.outcomes().await, [3, 0]);
    stage.nothing_waits().await;
}
