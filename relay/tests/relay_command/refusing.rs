use futures_util::StreamExt as _;
use nix::sys::signal::Signal;
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::{Options, Postgres};
use onceward_testkit::{unique, wait};
use tokio::time::timeout;

use crate::common::Shell;
use crate::{Running, SOON, enqueue, migrated, shell, subscribe};

#[tokio::test]
async fn a_database_on_which_the_promise_would_not_hold_is_refused() {
    let database = migrated().await;
    sqlx::raw_sql("alter table onceward.messages enable row level security")
        .execute(database.pool())
        .await
        .unwrap();

    let answer = shell(&database, "orders", "nats://127.0.0.1:1")
        .run(&["relay"])
        .await;

    answer.assert_refused(1, &["row security", "disable row level security"]);
}

#[tokio::test]
async fn a_database_without_the_tables_or_with_those_of_a_newer_release_is_refused() {
    let database = Postgres::shared().await.database().await;
    let shell = shell(&database, "orders", "nats://127.0.0.1:1");

    let without = shell.run(&["relay"]).await;
    shell.ok(&["migrate"]).await;
    sqlx::raw_sql(
        "insert into onceward.migrations (version, name, checksum) values (99, 'later', 'x')",
    )
    .execute(database.pool())
    .await
    .unwrap();
    let newer = shell.run(&["relay"]).await;

    without.assert_refused(1, &["no schema onceward", "run `onceward migrate`"]);
    newer.assert_refused(1, &["version 99", "newer release"]);
}

#[tokio::test]
async fn a_retention_that_the_ring_cannot_hold_is_refused() {
    let database = migrated().await;
    let shell = shell(&database, "orders", "nats://127.0.0.1:1")
        .variable("ONCEWARD__RETENTION__MESSAGES", "10d");

    shell
        .run(&["relay"])
        .await
        .assert_refused(1, &["10days", "12 slots", "retention.messages"]);
}

#[tokio::test]
async fn a_standby_is_refused() {
    let primary = Postgres::start(Options::default()).await;
    let database = primary.database().await;
    Shell::with_database(database.url()).ok(&["migrate"]).await;
    let standby = primary.standby("copy").await;
    let there = Shell::with_database(&standby.url(database.name()));
    wait::until_true(SOON, "the schema to reach the standby", || async {
        there.run(&["migrate", "--check"]).await.code == 0
    })
    .await;

    let answer = shell(&database, "orders", "nats://127.0.0.1:1")
        .variable("ONCEWARD__DATABASE__URL", &standby.url(database.name()))
        .run(&["relay"])
        .await;

    answer.assert_refused(1, &["standby", "connect to the primary"]);
}

/// The statements that the documentation gives for publishing the whole log anew.
fn publish_anew() -> &'static str {
    let page = include_str!("../../../docs/recovery.md");
    let (_, section) = page.split_once("## Publish anew").unwrap();
    let (_, code) = section.split_once("```sql").unwrap();
    code.split_once("```").unwrap().0
}

#[tokio::test]
async fn a_restored_dump_is_refused_and_the_documented_way_out_publishes_all_of_it() {
    let database = migrated().await;
    let nats = Nats::shared().await;
    let topic = unique("orders");
    let mut tap = subscribe(nats, &topic).await;
    enqueue(&database, &topic).await;
    enqueue(&database, &topic).await;
    // As after pg_dump and restore: rows of another cluster's transactions, cursors of another cluster.
    sqlx::raw_sql("update onceward.messages set txid = '900000000000'")
        .execute(database.pool())
        .await
        .unwrap();
    let shell = shell(&database, &topic, nats.url());

    let refused = shell.run(&["relay"]).await;
    sqlx::raw_sql(publish_anew())
        .execute(database.pool())
        .await
        .unwrap();
    shell.ok(&["doctor"]).await;
    let relay = Running::start(&shell).await;

    refused.assert_refused(1, &["docs/recovery.md#future-transactions"]);
    for _ in 0..2 {
        timeout(SOON, tap.next()).await.unwrap().unwrap();
    }
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_log_whose_sequence_was_changed_is_refused_at_the_start_and_while_it_runs() {
    let (database, nats) = (migrated().await, Nats::shared().await);
    let topic = unique("orders");
    let mut tap = subscribe(nats, &topic).await;
    let shell = shell(&database, &topic, nats.url());
    let relay = Running::start(&shell).await;
    enqueue(&database, &topic).await;
    timeout(SOON, tap.next()).await.unwrap().unwrap();
    sqlx::raw_sql("alter sequence onceward.messages_seq_seq cache 20")
        .execute(database.pool())
        .await
        .unwrap();

    let while_running = relay.ended().await;
    let at_the_start = shell.run(&["relay"]).await;

    let page = "docs/recovery.md#numbers-out-of-order";
    assert_eq!(while_running.code, Some(1));
    assert!(while_running.log.contains(page), "{}", while_running.log);
    at_the_start.assert_refused(1, &[page]);
}

#[tokio::test]
async fn another_cluster_is_refused_and_after_an_upgrade_the_documented_statement_lets_it_go_on() {
    let database = migrated().await;
    let nats = Nats::shared().await;
    let topic = unique("orders");
    let mut tap = subscribe(nats, &topic).await;
    let shell = shell(&database, &topic, nats.url());
    enqueue(&database, &topic).await;
    let before = Running::start(&shell).await;
    timeout(SOON, tap.next()).await.unwrap().unwrap();
    before.signal(Signal::SIGTERM);
    before.ended().await;
    sqlx::raw_sql("update onceward.streams set system_identifier = 4711")
        .execute(database.pool())
        .await
        .unwrap();
    enqueue(&database, &topic).await;

    let refused = shell.run(&["relay"]).await;
    sqlx::raw_sql("update onceward.streams set system_identifier = null")
        .execute(database.pool())
        .await
        .unwrap();
    let after = Running::start(&shell).await;

    refused.assert_refused(1, &["docs/recovery.md#another-cluster"]);
    timeout(SOON, tap.next()).await.unwrap().unwrap();
    after.signal(Signal::SIGTERM);
    assert_eq!(after.ended().await.code, Some(0));
}
