//! The way to the keeper's connection, which is made as those of the consumer's pool are.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};

use crate::within::within;

/// How long one statement may take, and a connection.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// Makes connections beside the pool.
#[derive(Debug)]
pub(crate) struct Link {
    pool: PgPool,
    /// As the pool, with what is done to each of its connections, but nobody else takes one of it.
    own: PgPool,
}

impl Link {
    /// Beside this pool. Connects only when it is asked to.
    pub(crate) fn beside(pool: &PgPool) -> Self {
        let options = pool.options().clone();
        let own = options.max_connections(1).min_connections(0);
        Self {
            pool: pool.clone(),
            own: own.connect_lazy_with((*pool.connect_options()).clone()),
        }
    }

    /// The pool that it connects by.
    pub(crate) fn own(&self) -> &PgPool {
        &self.own
    }

    /// A connection that is nobody else's.
    pub(super) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        // They change when the credentials do.
        let options = (*self.pool.connect_options()).clone();
        self.own.set_connect_options(options);
        Ok(within(ANSWER, self.own.acquire()).await?.detach())
    }
}
