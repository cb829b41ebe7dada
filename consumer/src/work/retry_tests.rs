//! Tests of one message that has waited, in a real database.

use onceward_testkit::postgres::Database as TestDatabase;
use onceward_testkit::wait;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::testing::{refuse_letters, tries, without_handlers, workshop_with};
use super::*;
use crate::alarm::Alarm;
use crate::keeper::Keeper;
use crate::transaction::DueLine;

const KIND: &str = "t";

async fn workshop() -> (TestDatabase, Arc<Workshop>) {
    workshop_with(Keeper::new().0).await
}

/// A line of one message, which is due.
async fn due_line(shop: &Workshop) -> Uuid {
    let line = Uuid::now_v7();
    for sql in [
        "insert into onceward.processed_messages (slot, consumer, message_id, outcome)
         values (onceward.mark_slot($1), 'billing', $1, 1)",
        "insert into onceward.held_keys (consumer, line, topic, due_at) values ('billing', $1, 'orders', now())",
        "insert into onceward.retries (consumer, line, message_id, mark_slot, topic, type, payload, due_at)
         values ('billing', $1, $1, onceward.mark_slot($1), 'orders', 't', '', now())",
    ] {
        sqlx::query(sql)
            .bind(line)
            .execute(&shop.database.pool)
            .await
            .unwrap();
    }
    line
}

fn job(line: Uuid) -> DueJob {
    DueJob {
        number: 1,
        due: DueLine::found(line, KIND.to_owned()),
        trial: None,
        leave: CancellationToken::new(),
        alarm: Alarm::new(),
    }
}

#[test]
fn a_line_goes_on_by_itself_when_its_next_message_is_due_already_but_not_for_ever() {
    let mut line = DueLine::found(Uuid::now_v7(), KIND.to_owned());
    let follower = |due, ours| {
        Some(Follower {
            due: Duration::from_secs(due),
            kind: KIND.to_owned(),
            ours,
        })
    };

    assert_eq!(Then::follows(&line, None), Then::Nothing);
    let later = Then::Due(Duration::from_secs(3));
    assert_eq!(Then::follows(&line, follower(3, false)), later);
    for _ in 0..16 {
        assert!(line.goes_on());
        let Then::GoesOn(again) = Then::follows(&line, follower(0, true)) else {
            panic!("it is ours");
        };
        line = again;
    }
    assert!(!line.goes_on());
    let at_once = Then::Due(Duration::ZERO);
    assert_eq!(Then::follows(&line, follower(0, false)), at_once);
}

#[tokio::test]
async fn whoever_finds_that_a_line_need_not_wait_for_its_type_knows_that_it_is_resumed() {
    let (_test, shop) = workshop().await;
    let line = due_line(&shop).await;
    // As one who has not heard of the end of the pause yet.
    shop.types.paused(KIND);

    let report = shop.clone().retry(job(line)).await;

    assert_eq!(report.then, Then::Due(Duration::ZERO));
    assert!(
        !shop.types.is_paused(KIND),
        "it must not wait in vain again"
    );
}

#[tokio::test]
async fn a_line_whose_type_is_paused_waits_for_that() {
    let (_test, shop) = workshop().await;
    let line = due_line(&shop).await;
    let database = &shop.database;
    database.pause(KIND, "", Duration::ZERO).await.unwrap();
    shop.types.paused(KIND);

    let report = shop.clone().retry(job(line)).await;

    let hour = Duration::from_secs(3_600);
    assert!(matches!(report.then, Then::Due(due) if due > hour));
    assert!(shop.types.is_paused(KIND));
}

/// When the only line is due.
async fn due_at(shop: &Workshop) -> OffsetDateTime {
    sqlx::query_scalar("select due_at from onceward.held_keys")
        .fetch_one(&shop.database.pool)
        .await
        .unwrap()
}

/// Seconds until the only line is due.
async fn due_in(shop: &Workshop) -> f64 {
    sqlx::query_scalar(
        "select extract(epoch from due_at - clock_timestamp())::float8 from onceward.held_keys",
    )
    .fetch_one(&shop.database.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_line_whose_first_message_is_of_another_type_than_was_said_is_due_at_once() {
    let (_test, shop) = workshop().await;
    let line = due_line(&shop).await;
    shop.database.lease(line, LEASE).await.unwrap();
    let mut job = job(line);
    job.due.kind = "another".to_owned();

    let report = shop.clone().retry(job).await;

    assert_eq!(report.then, Then::Due(LATER));
    assert!(due_in(&shop).await <= 0.0);
}

#[tokio::test]
async fn the_lease_of_a_line_that_waits_for_its_own_time_is_not_moved() {
    let (_test, shop) = workshop().await;
    let line = due_line(&shop).await;
    sqlx::query("update onceward.held_keys set due_at = now() + interval '1 hour'")
        .execute(&shop.database.pool)
        .await
        .unwrap();

    shop.database.lease(line, Duration::ZERO).await.unwrap();

    assert!(due_in(&shop).await > 3_000.0);
}

#[tokio::test]
async fn a_line_stays_ours_while_its_message_waits_to_be_alone() {
    let (_test, shop) = workshop().await;
    let job = job(due_line(&shop).await);
    let long = Duration::from_secs(60);
    let beside = shop.come_in(false, long, &job.leave).await.unwrap();

    let stay = async { shop.come_in_for(&job, long, true).await.is_some() };
    let renewed = async {
        let (mut renewals, mut before) = (0, due_at(&shop).await);
        while renewals < 3 {
            tokio::task::yield_now().await;
            let at = due_at(&shop).await;
            renewals += i32::from(at > before);
            before = at;
        }
        drop(beside);
    };
    let in_time = tokio::time::timeout(long, futures_util::future::join(stay, renewed)).await;

    assert!(in_time.unwrap().0);
}

#[tokio::test]
async fn a_stop_does_not_wait_until_a_start_is_written() {
    // Nobody answers.
    let (keeper, _asked) = Keeper::new();
    let (_test, shop) = workshop_with(keeper).await;
    let job = job(due_line(&shop).await);

    shop.kill.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(4), shop.clone().retry(job)).await;

    assert_eq!(ended.unwrap().outcome, None);
}

#[tokio::test]
async fn a_message_that_is_to_be_left_does_not_wait_for_long_until_its_start_is_written() {
    // Nobody answers.
    let (keeper, _asked) = Keeper::new();
    let (_test, shop) = workshop_with(keeper).await;
    let job = job(due_line(&shop).await);
    let leave = job.leave.clone();
    let is_claimed = || async {
        let free = sqlx::query("select from onceward.retries for update skip locked")
            .fetch_optional(&shop.database.pool)
            .await;
        free.unwrap().is_none()
    };

    let retry = tokio::time::timeout(Duration::from_secs(60), shop.clone().retry(job));
    let left = async {
        while !is_claimed().await {
            tokio::task::yield_now().await;
        }
        leave.cancel();
        Instant::now()
    };
    let (ended, left) = futures_util::future::join(retry, left).await;

    assert_eq!(ended.unwrap().outcome, None);
    // Else it takes 15 seconds.
    assert!(left.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn what_has_waited_and_cannot_be_settled_is_settled_later_and_is_no_outage() {
    let (_test, shop) = without_handlers().await;
    let job = job(due_line(&shop).await);
    refuse_letters(&shop, 2).await;

    let report = shop.clone().retry(job).await;

    assert_eq!(report.outcome, Some(Outcome::Dead));
    assert_eq!(report.then, Then::Nothing, "the line has ended");
    assert_eq!(tries(&shop).await, 3);
    assert!(shop.health.is_up());
}

#[tokio::test]
async fn what_has_waited_and_can_never_be_settled_gives_up_its_place_for_a_while() {
    let (_test, shop) = without_handlers().await;
    let line = due_line(&shop).await;
    refuse_letters(&shop, i64::MAX).await;

    let report = shop.clone().retry(job(line)).await;

    assert_eq!(report.outcome, None);
    assert_eq!(report.then, Then::Due(REFUSED));
    assert_eq!(tries(&shop).await, i64::from(SHORT) + 1);
    let later = "select due_at > clock_timestamp() + interval '5 seconds' from onceward.held_keys";
    let waits: bool = sqlx::query_scalar(later)
        .fetch_one(&shop.database.pool)
        .await
        .unwrap();
    assert!(waits, "so nobody else takes the line meanwhile");
    assert!(shop.health.is_up());
}

#[tokio::test]
async fn what_has_waited_and_cannot_be_settled_is_left_as_it_was_at_a_stop() {
    let (_test, shop) = without_handlers().await;
    let job = job(due_line(&shop).await);
    let leave = job.leave.clone();
    refuse_letters(&shop, i64::MAX).await;

    let long = Duration::from_secs(60);
    let retry = tokio::time::timeout(long, shop.clone().retry(job));
    let stop = async {
        wait::until_true(long, "another try", || async { tries(&shop).await >= 2 }).await;
        leave.cancel();
    };
    let (report, ()) = futures_util::future::join(retry, stop).await;

    assert_eq!(report.unwrap().outcome, None);
    let attempts: Vec<i32> = sqlx::query_scalar("select attempts from onceward.retries")
        .fetch_all(&shop.database.pool)
        .await
        .unwrap();
    assert_eq!(attempts, [0]);
    assert!(shop.health.is_up());
}
