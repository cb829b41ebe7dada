//! The schema on a real server: how it gets there, who may do what in it, and what its functions refuse.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::too_many_lines,
    reason = "helpers of tests fail the test, and tables of cases are long"
)]

mod enqueue;
mod marks;
mod migrate;
mod order;
mod refused;
mod rights;
mod shape;

use onceward_testkit::postgres::{Database, Postgres};

/// A fresh database with the schema in it.
async fn migrated() -> Database {
    let database = Postgres::shared().await.database().await;
    let report = onceward_migrations::run(database.pool())
        .await
        .expect("the schema can be made");
    assert_eq!(
        report.applied,
        (1..=onceward_migrations::LATEST).collect::<Vec<_>>()
    );
    database
}

/// The SQLSTATE of a refusal.
#[track_caller]
fn code<T: std::fmt::Debug>(result: Result<T, sqlx::Error>) -> String {
    let error = result.expect_err("the database must refuse this");
    let error = error.as_database_error().expect("refused by the database");
    error.code().expect("with a code").into_owned()
}
