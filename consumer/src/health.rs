//! Whether the database takes work. While it does not, everybody waits here and no delivery is read.

use std::time::Duration;

use onceward_core::{Backoff, Schema};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, SqlSafeStr as _, SqlStr};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::commits::Commits;
use crate::transaction::COMMIT;
use crate::trouble::chain;
use crate::within::within;
use crate::{ConsumerName, sql};

/// How long a connection may take to be made. What follows may take as long as a handler's commit.
const CONNECT: Duration = Duration::from_secs(5);

/// Changes nothing, but has something to commit. By primary key; the row is locked until the commit has ended, so that of a consumer's
/// probes one at a time waits for a standby, however many members there are and however long it takes. $1 consumer.
const TOUCH: &str = "
insert into {schema}.consumers as c (consumer)
values ($1)
on conflict (consumer) do update
set started_at = c.started_at";

const BETWEEN: Backoff = Backoff {
    base: Duration::from_millis(100),
    max: Duration::from_secs(5),
};

/// A handle; clones are handles to the same.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    up: watch::Sender<bool>,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self {
            up: watch::Sender::new(true),
        }
    }

    /// Says that the database did not answer.
    pub(crate) fn outage(&self, error: &str) {
        let was_up = self.up.send_replace(false);
        if was_up {
            warn!(error, "the database is out of reach; the consumer pauses");
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Waits until the database answers. Safe to drop.
    pub(crate) async fn wait_until_up(&self) {
        // Fails only when the sender is gone, and we hold it.
        drop(self.up.subscribe().wait_for(|up| *up).await);
    }

    /// Waits until something changes. Safe to drop.
    pub(crate) fn changes(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Asks the database after each outage, until it takes writes again. Never ends; safe to drop.
    pub(crate) async fn keep_probing(self, probe: Probe) {
        let mut changes = self.up.subscribe();
        loop {
            drop(changes.wait_for(|up| !*up).await);
            let mut probes = 0;
            while let Err(error) = probe.ask().await {
                probes += 1;
                if probes % 10 == 1 {
                    warn!(probes, error = %chain(&error), "the database is still out of reach");
                }
                tokio::time::sleep(BETWEEN.delay(probes, 0.5 + fastrand::f64() / 2.0)).await;
            }
            info!(probes, "the database answers");
            self.up.send_replace(true);
        }
    }
}

/// How the database is asked whether it takes work: by a commit that waits for all that those of handlers wait for. While a standby
/// stalls, a database that answers reads takes none.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) pool: PgPool,
    pub(crate) schema: Schema,
    pub(crate) consumer: ConsumerName,
    pub(crate) commits: Commits,
}

impl Probe {
    /// Over a connection of its own: those of the pool may be dead, or all in use.
    async fn ask(&self) -> Result<(), sqlx::Error> {
        let options = self.pool.connect_options();
        let mut connection = within(CONNECT, PgConnection::connect_with(&options)).await?;
        let committed = async {
            match self.write(&mut connection).await {
                Err(error) if may_not(&error) => {}
                written => written?,
            }
            connection.close().await
        };
        within(COMMIT, committed).await
    }

    async fn write(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let mut transaction = connection.begin_with(begin(self.commits)).await?;
        sqlx::query(sql::over(&self.schema, TOUCH))
            .bind(self.consumer.as_str())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}

/// Fails on the server, before we give up, if another probe has the row. Nor does it keep the row for long where our answer is lost. A standby
/// refuses it.
fn begin(commits: Commits) -> SqlStr {
    let commit = commits.setting();
    let text = format!(
        "begin isolation level read committed read write;
         set local statement_timeout = '4s';
         set local lock_timeout = '2s';
         set local idle_in_transaction_session_timeout = '4s';
         set local synchronous_commit = {commit}"
    );
    AssertSqlSafe(text).into_sql_str()
}

/// Whether the table is not ours to write. That is no outage, as a consumer starts without it too: then the answer has to do.
fn may_not(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| matches!(&*code, "42501" | "42P01"))
}
