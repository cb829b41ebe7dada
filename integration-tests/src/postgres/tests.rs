use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnection, PgPool};

use super::*;
use crate::wait;

async fn count(pool: &PgPool) -> Option<i64> {
    sqlx::query_scalar("select count(*) from kept")
        .fetch_one(pool)
        .await
        .ok()
}

async fn keep_one_row(pool: &PgPool) {
    sqlx::query("create table kept (n int)")
        .execute(pool)
        .await
        .unwrap();
    sqlx::query("insert into kept values (1)")
        .execute(pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn two_tests_have_a_database_each() {
    let server = Postgres::shared().await;
    let (one, two) = (server.database().await, server.database().await);

    keep_one_row(one.pool()).await;
    keep_one_row(two.pool()).await;

    assert_ne!(one.name(), two.name());
    assert_eq!(count(one.pool()).await, Some(1));
}

#[tokio::test]
async fn a_database_is_gone_when_its_test_is_over() {
    let server = Postgres::shared().await;
    let database = server.database().await;
    let name = database.name().to_owned();

    drop(database);

    let witness = server.database().await;
    let there: bool =
        sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(name)
            .fetch_one(witness.pool())
            .await
            .unwrap();
    assert!(!there);
}

#[tokio::test]
async fn what_was_committed_survives_a_kill_and_a_stop() {
    let server = Postgres::start(Options::default()).await;
    let database = server.database().await;
    keep_one_row(database.pool()).await;

    server.kill();
    assert!(PgConnection::connect(database.url()).await.is_err());
    server.start_again().await;
    wait::until(Duration::from_secs(5), "the row after a crash", || async {
        count(database.pool()).await
    })
    .await;
    server.stop().await;
    server.start_again().await;

    let rows = wait::until(Duration::from_secs(5), "the row after a stop", || async {
        count(database.pool()).await
    })
    .await;
    assert_eq!(rows, 1);
}

async fn a_standby_takes_over(options: Options) {
    let primary = Postgres::start(options).await;
    let database = primary.database().await;
    let standby = primary.standby("second").await;
    keep_one_row(database.pool()).await;
    let pool = PgPool::connect_lazy(&standby.url(database.name())).unwrap();
    wait::until(
        Duration::from_secs(10),
        "the row on the standby",
        || async { count(&pool).await.filter(|rows| *rows == 1) },
    )
    .await;
    assert!(
        sqlx::query("insert into kept values (2)")
            .execute(&pool)
            .await
            .is_err()
    );

    primary.kill();
    standby.promote().await;

    sqlx::query("insert into kept values (2)")
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(count(&pool).await, Some(2));
}

#[tokio::test]
async fn a_standby_takes_over_from_a_killed_primary() {
    a_standby_takes_over(Options::default()).await;
}

#[tokio::test]
async fn a_standby_of_a_newer_major_takes_over_too() {
    a_standby_takes_over(Options {
        bindir: Some(newer_bindir()),
        ..Options::default()
    })
    .await;
}

#[tokio::test]
async fn a_frozen_server_hangs_until_it_goes_on() {
    let server = Postgres::start(Options::default()).await;
    let database = server.database().await;

    server.freeze();
    let answer = tokio::time::timeout(
        Duration::from_millis(300),
        sqlx::query("select 1").execute(database.pool()),
    )
    .await;
    server.cont();

    assert!(answer.is_err(), "a frozen server answered");
    assert!(
        sqlx::query("select 1")
            .execute(database.pool())
            .await
            .is_ok()
    );
}

/// The id of a server's segment of shared memory.
pub(crate) fn segment(server: &Postgres) -> String {
    let told = std::fs::read_to_string(server.own().data().join("postmaster.pid")).unwrap();
    let (_key, id) = told.lines().nth(6).unwrap().trim().split_once(' ').unwrap();
    id.trim().to_owned()
}

/// All on this machine.
pub(crate) fn segments() -> Vec<String> {
    let told = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let id = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    told.lines().filter_map(id).collect()
}

#[tokio::test]
async fn a_server_that_was_killed_leaves_no_shared_memory() {
    let server = Postgres::start(Options::default()).await;
    let its = segment(&server);
    assert!(segments().contains(&its));

    drop(server);

    // Its last processes have it until they are gone.
    wait::until_true(Duration::from_secs(10), "no segment", || async {
        !segments().contains(&its)
    })
    .await;
}
