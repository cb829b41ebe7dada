//! Tests of settling a delivery without its handler, in a real database.

use onceward_core::{MAX_PAYLOAD, Origin, Partition};
use onceward_testkit::wait;
use tokio_util::sync::CancellationToken;

use super::super::testing::{refuse_letters, tries, without_handlers};
use super::*;
use crate::alarm::Alarm;
use crate::mark::Mark;

const LIMIT: Duration = Duration::from_secs(60);

fn job() -> Job {
    let draft = Message::json("orders.created", &1).unwrap();
    let message = draft.finish(MAX_PAYLOAD).unwrap().message;
    Job {
        number: 1,
        mark: Mark::of(&message),
        body: Body::Message(message.into()),
        origin: Origin {
            broker: "none",
            partition: Partition::new("orders"),
            position: None,
            redelivered: None,
            sent_at: None,
        },
        route: None,
        suspect: false,
        leave: CancellationToken::new(),
        alarm: Alarm::new(),
    }
}

#[tokio::test]
async fn what_the_database_refuses_is_written_again_and_is_no_outage() {
    let (_test, shop) = without_handlers().await;
    refuse_letters(&shop, 2).await;

    let report = tokio::time::timeout(LIMIT, shop.clone().work(job())).await;

    assert_eq!(report.unwrap().outcome, Some(Outcome::Dead));
    assert_eq!(tries(&shop).await, 3);
    assert!(shop.health.is_up());
}

#[tokio::test]
async fn what_the_database_refuses_for_ever_is_left_unsettled_at_a_stop() {
    let (_test, shop) = without_handlers().await;
    refuse_letters(&shop, i64::MAX).await;
    let job = job();
    let leave = job.leave.clone();

    let work = tokio::time::timeout(LIMIT, shop.clone().work(job));
    let stop = async {
        wait::until_true(LIMIT, "another try", || async { tries(&shop).await >= 2 }).await;
        leave.cancel();
    };
    let (report, ()) = futures_util::future::join(work, stop).await;

    assert_eq!(report.unwrap().outcome, None);
    let marks: i64 = sqlx::query_scalar("select count(*) from onceward.processed_messages")
        .fetch_one(&shop.database.pool)
        .await
        .unwrap();
    assert_eq!(marks, 0);
    assert!(shop.health.is_up());
}
