//! One transaction on one connection of the pool. Whatever happens, a connection with an open transaction never
//! returns to the pool.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgTransactionManager;
use sqlx::{PgConnection, Postgres, SqlStr};
use sqlx_core::transaction::TransactionManager;

use crate::trouble::is_cancelled;

/// A transaction. Dropped while open, its connection is closed, and the server rolls back.
pub(crate) struct Session {
    connection: PoolConnection<Postgres>,
    /// Whether the transaction may still be open on the server.
    open: bool,
}

impl Session {
    /// Begins a transaction by `statement`.
    pub(crate) async fn begin(
        connection: PoolConnection<Postgres>,
        statement: SqlStr,
    ) -> Result<Self, sqlx::Error> {
        let mut session = Self {
            connection,
            open: true,
        };
        PgTransactionManager::begin(&mut session.connection, Some(statement)).await?;
        Ok(session)
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    pub(crate) fn reference(&self) -> &PgConnection {
        &self.connection
    }

    /// Whether a savepoint of the handler's is still open.
    pub(crate) fn has_savepoint(&self) -> bool {
        PgTransactionManager::get_transaction_depth(&self.connection) > 1
    }

    pub(crate) async fn commit(mut self) -> Result<(), sqlx::Error> {
        PgTransactionManager::commit(&mut self.connection).await?;
        self.open = false;
        Ok(())
    }

    /// Rolls back. Gives the session for as long as its connection is good; none: it is closed, and the server rolls back
    /// when it notices.
    pub(crate) async fn roll_back(mut self, within: Duration) -> Option<Self> {
        let done = tokio::time::timeout(within, self.end()).await;
        if matches!(done, Ok(Ok(()))) {
            self.open = false;
            Some(self)
        } else {
            None
        }
    }

    async fn end(&mut self) -> Result<(), sqlx::Error> {
        // Savepoints first, and the error of a cancelled statement may still be on its way: it answers the next one.
        let mut patience = 16_u8;
        while PgTransactionManager::get_transaction_depth(&self.connection) > 0 {
            match PgTransactionManager::rollback(&mut self.connection).await {
                Err(error) if is_cancelled(&error) && patience > 0 => patience -= 1,
                other => other?,
            }
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.open {
            self.connection.close_on_drop();
        }
    }
}
