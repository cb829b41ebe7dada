//! Messages that are of no use any more.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Order, Stage, effect, quick, write_effect};
use onceward_consumer::{Consumer, ConsumerBuilder, HandlerError, HandlerSettings, Settled, Tx};
use sqlx::postgres::PgPoolOptions;
use time::OffsetDateTime;

impl Stage {
    /// Handles one message that expires in so many minutes, as `handled` says, with new connections.
    async fn handle(
        &self,
        expires_in: i32,
        handled: impl FnOnce(ConsumerBuilder) -> ConsumerBuilder,
    ) -> Settled {
        let at = OffsetDateTime::now_utc() + time::Duration::minutes(expires_in.into());
        self.publish_until(1, at);
        let pool = PgPoolOptions::new().connect(self.database.url());
        let builder = Consumer::builder("billing").pool(pool.await.unwrap());
        let consumer = handled(builder).build().unwrap();
        let subscriber = self.broker.subscriber("billing", &[common::TOPIC]);
        let settled = consumer.run_until_idle(subscriber).await.unwrap();
        self.nothing_waits().await;
        settled
    }
}

/// The database's clock and when a message expires, in minutes from ours, and whether it is of use by the database's clock.
const CLOCKS: [(i32, i32, bool); 2] = [(-60, -30, true), (60, 30, false)];

#[tokio::test]
async fn a_clock_of_ours_that_is_an_hour_off_lets_nothing_expire_early_or_late() {
    for (database, expires_in, of_use) in CLOCKS {
        let stage = Stage::new().await;
        stage.set_database_clock(database).await;

        let on = |builder: ConsumerBuilder| builder.on("*", write_effect);
        let settled = stage.handle(expires_in, on).await;

        let expected = if of_use { (1, 0) } else { (0, 1) };
        assert_eq!((settled.handled, settled.expired), expected, "{database}");
        assert_eq!(stage.effects().await.len() as u64, settled.handled);
    }
}

#[tokio::test]
async fn what_waits_with_a_clock_that_is_an_hour_off_is_due_in_time_and_does_not_expire() {
    async fn once(failed: Arc<AtomicBool>, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if !failed.swap(true, Ordering::Relaxed) {
            return Err(HandlerError::retry_after(Duration::from_millis(100)));
        }
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    stage.set_database_clock(-60).await;
    let settings = HandlerSettings {
        defer_after: Duration::ZERO,
        ..quick(3)
    };

    let once = |builder: ConsumerBuilder| builder.on_with("*", Arc::default(), once).with(settings);
    stage.handle(-30, once).await;

    assert_eq!(stage.effects().await, [1]);
    assert_eq!(stage.outcomes().await, [0]);
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
