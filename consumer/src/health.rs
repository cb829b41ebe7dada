//! Whether the database takes work. While it does not, everybody waits here and nothing is read.

use std::time::Duration;

use onceward_core::Backoff;
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::trouble::chain;
use crate::within::within;

const PROBE: Duration = Duration::from_secs(5);

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
    pub(crate) async fn keep_probing(self, pool: PgPool) {
        let mut changes = self.up.subscribe();
        loop {
            drop(changes.wait_for(|up| !*up).await);
            let mut probes = 0;
            while let Err(error) = probe(&pool).await {
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

/// Over a connection of its own: those of the pool may be dead, or all in use.
async fn probe(pool: &PgPool) -> Result<(), sqlx::Error> {
    let options = pool.connect_options();
    let asked = async {
        let mut connection = PgConnection::connect_with(&options).await?;
        let standby: bool = sqlx::query_scalar("select pg_is_in_recovery()")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok(standby)
    };
    if within(PROBE, asked).await? {
        return Err(sqlx::Error::Protocol(
            "the server is a standby and takes no writes".to_owned(),
        ));
    }
    Ok(())
}
