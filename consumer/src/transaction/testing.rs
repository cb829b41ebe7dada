//! A consumer's database for tests.

use std::fmt::Debug;
use std::io::ErrorKind;
use std::time::Duration;

use onceward_core::Schema;
use onceward_testkit::postgres::{Database as TestDatabase, Postgres};
use onceward_testkit::proxy::Proxy;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

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

/// A pool of one connection, which is silent from its next statement on.
struct Silent {
    pool: PgPool,
    _proxy: Proxy,
    _test: TestDatabase,
}

impl Silent {
    /// Stops the clock besides: as nothing answers, whatever is waited for comes at once, and that is a limit if there is one.
    async fn new() -> Self {
        let (test, _) = database().await;
        let direct: PgConnectOptions = test.url().parse().unwrap();
        let proxy = Proxy::to(direct.get_port()).await;
        let pool = PgPoolOptions::new()
            .max_connections(1)
            // Else the pool would notice.
            .test_before_acquire(false)
            .connect_with(direct.host("127.0.0.1").port(proxy.port()))
            .await
            .unwrap();
        proxy.stall();
        tokio::time::pause();
        Self {
            pool,
            _proxy: proxy,
            _test: test,
        }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        tokio::time::resume();
    }
}

/// What is asked ends as an outage when there is no answer, and its connection leaves the pool.
pub(crate) async fn has_a_limit<T: Debug>(
    what: &str,
    ask: impl AsyncFnOnce(&PgPool) -> Result<T, sqlx::Error>,
) {
    let silent = Silent::new().await;
    let day = Duration::from_secs(24 * 3_600);

    let asked = tokio::time::timeout(day, ask(&silent.pool)).await;
    let closed = async {
        while silent.pool.size() > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let closed = tokio::time::timeout(day, closed).await;

    let asked = asked.unwrap_or_else(|_| panic!("{what} waits for ever"));
    let error = asked.expect_err("nobody answers");
    assert!(
        matches!(&error, sqlx::Error::Io(io) if io.kind() == ErrorKind::TimedOut),
        "{what}: {error}"
    );
    assert!(closed.is_ok(), "{what} keeps its place in the pool");
}
