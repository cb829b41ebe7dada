//! An asynchronous standby is promoted while the old primary, its writers and its relay live on.

use std::time::Duration;

use onceward_testkit::ledger::Workload;
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::{Options, Postgres};
use onceward_testkit::wait;
use sqlx::postgres::PgPool;

use crate::stage::{Changes, SOON, Stage, WINDOW};
use crate::writers::Writers;

async fn rows(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from ledger.business")
        .fetch_one(pool)
        .await
        .unwrap()
}

/// Ends the standby's streaming, as a partition of the network would.
async fn cut_off(standby: &PgPool) {
    for statement in [
        "alter system set primary_conninfo = ''",
        "select pg_reload_conf()",
    ] {
        sqlx::raw_sql(statement).execute(standby).await.unwrap();
    }
    let gone = || async {
        let statement = "select not exists (select from pg_stat_wal_receiver)";
        sqlx::query_scalar(statement)
            .fetch_one(standby)
            .await
            .unwrap()
    };
    wait::until_true(SOON, "the standby to be cut off", gone).await;
}

#[tokio::test]
async fn a_promoted_standby_takes_over_without_phantoms_while_the_old_relay_lives() {
    let primary = Postgres::start(Options::default()).await;
    let stage = Stage::nats(&primary, Nats::shared().await).await;
    let mut stage = stage.consumed_at(Postgres::shared().await).await;
    let standby = primary.standby("second").await;
    let url = standby.url(stage.log.name());
    let second = PgPool::connect(&url).await.unwrap();
    let old = stage.relay(&Changes {
        stream: "publish_after = \"replicated\"\nstandby = \"second\"".to_owned(),
        ..Changes::default()
    });
    let consumer = stage.consumer(&Changes::default());
    let load = Workload {
        messages: u64::MAX,
        per_second: Some(200),
        ..stage.workload()
    };
    let writers = stage.write(load.clone());
    stage.wait_until_handled(200).await;

    cut_off(&second).await;
    let kept = rows(&second).await;
    let ahead = || async { rows(stage.log.pool()).await > kept + 200 };
    wait::until_true(SOON, "commits that the standby never sees", ahead).await;
    standby.promote().await;
    stage.ledger.move_to(&second);
    let heir = stage.relay(&Changes {
        url: Some(url.clone()),
        ..Changes::default()
    });
    let others = Writers::begin(&url, load);
    let handled = stage.handled().await;
    stage.wait_until_handled(handled + 300).await;
    // The old primary has gone on all the time, and its relay with it.
    old.runs();
    writers.stop().await;
    others.stop().await;

    stage.ledger.allow_duplicates(WINDOW, 1);
    stage.ledger.only_takeovers_repeat();
    let verdict = stage.must_be_green(&[&heir, &consumer, &old]).await;
    assert!(verdict.claims >= 2, "{verdict}");
    assert!(rows(stage.log.pool()).await > 0);
}

/// The counterpart: a relay that does not wait for the standby publishes what the service then loses.
#[tokio::test]
async fn without_waiting_for_the_standby_the_ledger_turns_red() {
    let primary = Postgres::start(Options::default()).await;
    let mut stage = Stage::nats(&primary, Nats::shared().await).await;
    let standby = primary.standby("second").await;
    let second = PgPool::connect(&standby.url(stage.log.name()))
        .await
        .unwrap();
    let old = stage.relay(&Changes::default());
    cut_off(&second).await;

    let load = Workload {
        messages: 100,
        slow_for: Duration::ZERO,
        ..stage.workload()
    };
    stage.write_all(load).await;
    stage.wait_until_published(100).await;
    standby.promote().await;
    stage.ledger.move_to(&second);

    let verdict = stage.ledger.verdict().await;
    assert!(verdict.phantom >= 100, "{verdict}");
    old.stop().await;
}
