//! The database's clock jumps by an hour, forward and back, while a consumer runs.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Order, Running, SOON, Stage, effect, quick};
use onceward_consumer::{Consumer, HandlerError, HandlerSettings, Tx};
use onceward_testkit::wait;
use sqlx::postgres::PgPoolOptions;
use time::OffsetDateTime;

/// How long what is below a hundred asks to wait, once; what is above asks to wait for a moment.
const HALF_AN_HOUR: Duration = Duration::from_secs(1_800);

/// The orders that have asked.
type Asked = Arc<Mutex<HashSet<i64>>>;

async fn asks_to_wait_once(asked: Asked, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
    if asked.lock().unwrap().insert(event.order) {
        let long = event.order < 100;
        let moment = Duration::from_millis(20);
        return Err(HandlerError::retry_after(if long {
            HALF_AN_HOUR
        } else {
            moment
        }));
    }
    effect(event.order, tx).await
}

impl Stage {
    /// A member with connections that see the clock which the test sets. All that waits is in the database.
    async fn member(&self, asked: &Asked) -> Running {
        let pool = PgPoolOptions::new().connect(self.database.url());
        let builder = Consumer::builder("billing").pool(pool.await.unwrap());
        let settings = HandlerSettings {
            defer_after: Duration::ZERO,
            ..quick(3)
        };
        let handler = builder.on_with("*", asked.clone(), asks_to_wait_once);
        self.run(handler.with(settings))
    }

    /// A message that lives for so many minutes, by this machine's clock.
    fn publish_living(&self, order: i64, minutes: i64) {
        let at = OffsetDateTime::now_utc() + time::Duration::minutes(minutes);
        self.publish_until(order, at);
    }

    async fn wait_for_effects(&self, expected: &[i64]) {
        let what = format!("the effects of {expected:?}");
        wait::until_true(SOON, &what, || async {
            let mut effects = self.effects().await;
            effects.sort_unstable();
            effects == expected
        })
        .await;
    }

    /// Waits until one message waits because it has asked to: how long is decided when that is written.
    async fn one_has_asked(&self) {
        wait::until_true(SOON, "one to wait as it asks", || async {
            let asked = "select count(*) from onceward.retries where attempts > 0";
            let count: i64 = sqlx::query_scalar(asked)
                .fetch_one(self.pool())
                .await
                .unwrap();
            count == 1
        })
        .await;
    }

    /// Each of so many messages was handled once, and none has expired or was given up on.
    async fn all_were_handled(&self, count: usize) {
        assert_eq!(self.outcomes().await, vec![0; count]);
        assert!(self.letters().await.is_empty());
        self.nothing_waits().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_an_hour_forward_ends_waits_early_and_loses_nothing_that_lives() {
    let stage = Stage::new().await;
    let asked = Asked::default();
    stage.set_database_clock(0).await;
    let members = [stage.member(&asked).await, stage.member(&asked).await];
    stage.publish_living(1, 120);
    stage.publish(2, Some(1));
    stage.wait_for_retries(2).await;

    stage.set_database_clock(60).await;
    // 2 has waited behind it, and asks to wait by itself now.
    stage.wait_for_effects(&[1]).await;
    stage.publish_living(100, 90);
    stage.publish(101, None);
    stage.wait_for_effects(&[1, 100, 101]).await;
    stage.one_has_asked().await;
    stage.set_database_clock(120).await;

    stage.wait_for_effects(&[1, 2, 100, 101]).await;
    for member in members {
        member.stop().await;
    }
    stage.all_were_handled(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_an_hour_back_makes_waits_longer_and_loses_nothing_that_lives() {
    let stage = Stage::new().await;
    let asked = Asked::default();
    stage.set_database_clock(60).await;
    let member = stage.member(&asked).await;
    // It lives until long after, by either clock.
    stage.publish_living(1, 300);
    stage.publish(2, Some(1));
    stage.wait_for_retries(2).await;

    stage.set_database_clock(0).await;
    // Its wait is as long as it asks, and whoever has looked for it knows of the new time.
    stage.publish_living(100, 300);
    stage.wait_for_effects(&[100]).await;
    // By the clock as it was before, this one has expired.
    stage.publish_living(101, 30);
    stage.wait_for_effects(&[100, 101]).await;
    assert_eq!(stage.retries().await, 2, "an hour longer than they asked");
    // As an hour and a half would.
    stage.set_database_clock(91).await;
    stage.wait_for_effects(&[1, 100, 101]).await;
    stage.one_has_asked().await;
    stage.set_database_clock(180).await;

    stage.wait_for_effects(&[1, 2, 100, 101]).await;
    member.stop().await;
    stage.all_were_handled(4).await;
}
