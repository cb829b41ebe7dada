//! The transaction of the mark: dedupe, handler and commit in one.

mod attempt;
mod cancel;
mod mark;
#[cfg(feature = "faults")]
mod planted;
mod settle;

use std::future::Future;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};

use crate::ConsumerName;
use crate::faults::{Fault, planted};
use crate::session::Session;
use crate::sql::Statements;

pub(crate) use attempt::{Order, Ran};
use mark::Marked;
pub(crate) use settle::ToSettle;

/// On top of what the server itself allows, for an answer to arrive.
const ANSWER: Duration = Duration::from_secs(5);

/// COMMIT waits for the disk and perhaps for a standby; nothing on the server ends it. Not to wait it out is safe: what
/// became of it is unknown then, and the next attempt finds the mark, or waits for it. To wait long is not: an answer
/// that was lost never comes, and its key waits for it.
const COMMIT: Duration = Duration::from_secs(10);

/// The database of a consumer.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pub(crate) pool: PgPool,
    pub(crate) statements: Statements,
    pub(crate) consumer: ConsumerName,
}

impl Database {
    async fn begin(&self, deadline: Duration) -> Result<Session, sqlx::Error> {
        // The pool has a time limit of its own, but a long one, and it tries idle connections that may be dead.
        let connection: PoolConnection<Postgres> = within(ANSWER, self.pool.acquire()).await?;
        let statement = Statements::begin(deadline, !planted(Fault::AckBeforeDurable));
        within(ANSWER, Session::begin(connection, statement)).await
    }
}

/// No answer in time is an outage: sqlx has no keepalive, and a connection may be dead without knowing it.
async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("the database did not answer within {limit:?}"),
        ))),
    }
}
