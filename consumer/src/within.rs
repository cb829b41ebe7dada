//! Limits to how long the database may take to answer: sqlx has no keepalive, and a connection may be dead without knowing it.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};

/// For a statement at the start. A server that takes longer to tell of its own catalog could not serve a consumer; whoever starts it
/// is told so, and may try again.
pub(crate) const START: Duration = Duration::from_secs(15);

/// No answer in time is an outage.
pub(crate) async fn within<T>(
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

/// A connection of a pool, for statements outside of transactions. Dropped before it is given back, it is closed: the pool would ask one
/// that is silent whether it is alive and wait for the answer without a limit, and have one connection less meanwhile.
pub(crate) struct Borrowed {
    connection: PoolConnection<Postgres>,
    good: bool,
}

impl Borrowed {
    /// Takes one, within the pool's own limit.
    pub(crate) async fn of(pool: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self {
            connection: pool.acquire().await?,
            good: false,
        })
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// It has answered whatever it was asked.
    pub(crate) fn give_back(mut self) {
        self.good = true;
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if !self.good {
            self.connection.close_on_drop();
        }
    }
}

#[cfg(test)]
#[path = "within_tests.rs"]
mod tests;
