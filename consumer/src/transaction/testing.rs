//! A consumer's database for tests.

use onceward_core::Schema;
use onceward_testkit::postgres::{Database as TestDatabase, Postgres};

use super::Database;
use crate::ConsumerName;
use crate::commits::Commits;
use crate::sql::Statements;

/// A fresh database with the schema in it, and what the consumer `billing` has of it.
pub(crate) async fn database() -> (TestDatabase, Database) {
    let test = Postgres::shared().await.database().await;
    onceward_migrations::run(test.pool()).await.unwrap();
    let database = Database {
        pool: test.pool().clone(),
        statements: Statements::new(Schema::default()),
        consumer: ConsumerName::try_from("billing").unwrap(),
        commits: Commits::Flushed,
        outbound: None,
        sequences: None,
    };
    (test, database)
}
