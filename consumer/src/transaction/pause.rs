//! Paused types in the database, so that all members obey.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{ANSWER, Database, within};
use crate::trouble::clean;

/// Between two tries of a paused type.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// What is known of the paused types of a consumer.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    pub(crate) types: HashSet<String>,
    /// Lines whose first message this member is to try.
    pub(crate) probes: Vec<Uuid>,
    /// How many messages wait, if any type is paused.
    pub(crate) waiting: usize,
}

impl Database {
    pub(crate) async fn pause(&self, kind: &str, error: &str) -> Result<(), sqlx::Error> {
        let pause = sqlx::query(self.statements.pause.sql())
            .bind(self.consumer.as_str())
            .bind(kind)
            .bind(clean(error))
            .bind(PROBE_EVERY.as_secs_f64())
            .execute(&self.pool);
        within(ANSWER, pause).await.map(drop)
    }

    /// Which types are paused, and the turns to try one that are ours. A type of which nothing waits is handled again.
    /// Counts what waits up to `limit`.
    pub(crate) async fn pauses(&self, limit: usize) -> Result<Pauses, sqlx::Error> {
        let consumer = self.consumer.as_str();
        let ask = sqlx::query_as::<_, (String, bool)>(self.statements.paused.sql())
            .bind(consumer)
            .fetch_all(&self.pool);
        let mut pauses = Pauses::default();
        for (kind, turn) in within(ANSWER, ask).await? {
            if turn {
                match self.turn(&kind).await? {
                    Some(Some(line)) => pauses.probes.push(line),
                    Some(None) => {
                        self.resume(&kind).await?;
                        continue;
                    }
                    None => {}
                }
            }
            pauses.types.insert(kind);
        }
        if !pauses.types.is_empty() {
            let count = sqlx::query_scalar::<_, i64>(self.statements.count.sql())
                .bind(consumer)
                .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                .fetch_one(&self.pool);
            pauses.waiting = usize::try_from(within(ANSWER, count).await?).unwrap_or(0);
        }
        Ok(pauses)
    }

    pub(crate) async fn is_paused(&self, kind: &str) -> Result<bool, sqlx::Error> {
        let ask = sqlx::query_scalar(self.statements.is_paused.sql())
            .bind(self.consumer.as_str())
            .bind(kind)
            .fetch_one(&self.pool);
        within(ANSWER, ask).await
    }

    /// How long a message waits that is deferred because its type is paused: not at all, if that has ended meanwhile.
    pub(super) async fn wait_of_type(
        &self,
        connection: &mut PgConnection,
        kind: Option<&str>,
        delay: Duration,
    ) -> Result<Duration, sqlx::Error> {
        let Some(kind) = kind else {
            return Ok(delay);
        };
        let ask = sqlx::query_scalar::<_, bool>(self.statements.stays_paused.sql())
            .bind(self.consumer.as_str())
            .bind(kind)
            .fetch_optional(connection);
        let paused = within(ANSWER * 5, ask).await?.is_some();
        Ok(if paused { delay } else { Duration::ZERO })
    }

    /// Makes one message of a paused type due, to be tried. None: another member has the turn; `Some(None)`: none waits.
    async fn turn(&self, kind: &str) -> Result<Option<Option<Uuid>>, sqlx::Error> {
        let probe = sqlx::query_scalar::<_, Option<Uuid>>(self.statements.probe.sql())
            .bind(self.consumer.as_str())
            .bind(kind)
            .bind(PROBE_EVERY.as_secs_f64())
            .fetch_optional(&self.pool);
        let line = within(ANSWER, probe).await?;
        if let Some(Some(line)) = line {
            let make_due = sqlx::query(self.statements.probe_line.sql())
                .bind(self.consumer.as_str())
                .bind(line)
                .execute(&self.pool);
            within(ANSWER, make_due).await?;
        }
        Ok(line)
    }

    /// A type is handled again, and what has waited for it is due.
    pub(crate) async fn resume(&self, kind: &str) -> Result<(), sqlx::Error> {
        for statement in [&self.statements.resume, &self.statements.make_due] {
            let run = sqlx::query(statement.sql())
                .bind(self.consumer.as_str())
                .bind(kind)
                .execute(&self.pool);
            within(ANSWER * 12, run).await?;
        }
        Ok(())
    }
}
