//! Looks whether anybody has committed, for a fraction of a read's cost.

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::error::LogError;
use super::pause::pause;
use super::read::LogReader;
use super::snapshot::{Snapshot, SnapshotError};
use crate::sql::render;

const LOOKING: &str = "looking for commits";

/// What a read would see, without reading.
const LOOK: &str = "select pg_current_snapshot()::text, pg_backend_pid()";

/// The same over and over, by the server itself, until it is something else.
const WATCH: &str = "select {{schema}}.watch($1, $2, $3), pg_backend_pid()";

/// How much longer than the server is to watch its answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// What the server's waits are counted in.
const TICK: Duration = Duration::from_millis(1);

impl LogReader {
    /// What a read could see after `wait`, which may be far below a millisecond; for a fraction of a read's cost. [`Quiet`](super::Quiet)
    /// knows whether that says that there is nothing to read. It may last two milliseconds longer.
    ///
    /// # Errors
    /// As those of [`read`](Self::read).
    ///
    /// # Cancel safety
    /// As that of [`read`](Self::read).
    pub async fn look(&mut self, wait: Duration) -> Result<Snapshot, LogError> {
        pause(wait).await;
        let row = self
            .session
            .call(LOOKING, async |connection| {
                sqlx::query(LOOK).fetch_one(connection).await
            })
            .await?;
        self.seen(&row)
    }

    /// What a read could see, once that is something else than `seen`, or after `patience` at the latest: the server looks every `every`, so
    /// that nobody here is woken in vain. Both count in whole milliseconds, and as one at least; `patience` as `every` at least, and as a third of the
    /// time that a call may take at most.
    ///
    /// The server waits by the clock of its machine: set back meanwhile, it waits for longer, and the call ends with an error two seconds after
    /// `patience`.
    ///
    /// # Errors
    /// As those of [`read`](Self::read).
    ///
    /// # Cancel safety
    /// As that of [`read`](Self::read).
    pub async fn watch(
        &mut self,
        seen: &Snapshot,
        every: Duration,
        patience: Duration,
    ) -> Result<Snapshot, LogError> {
        let sql = render(&self.schema, WATCH);
        let patience = patience.min(self.within() / 3).max(TICK);
        let every = every.clamp(TICK, patience);
        let within = self.within().min(patience + ANSWER);
        let row = self
            .session
            .call_within(within, LOOKING, async |connection| {
                sqlx::query(sql)
                    .bind(seen.to_string())
                    .bind(every.as_secs_f64())
                    .bind(patience.as_secs_f64())
                    .fetch_one(connection)
                    .await
            })
            .await?;
        self.seen(&row)
    }

    fn seen(&self, row: &PgRow) -> Result<Snapshot, LogError> {
        self.session.check_pid(row, 1)?;
        let seen: &str = row
            .try_get(0)
            .map_err(|error| LogError::malformed(LOOKING, error))?;
        seen.parse()
            .map_err(|error: SnapshotError| LogError::malformed(LOOKING, error))
    }
}
