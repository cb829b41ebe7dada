//! Lines in the database: held keys and the messages that wait. Who changes a line locks it first, and looks only then.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::{ANSWER, Claimed, Database, within};
use crate::faults::{Failpoint, Fault, pass, planted};
use crate::history::History;
use crate::mark::Mark;
use crate::stored::Stored;
use crate::trouble::clean;

/// Longer waits than these are none that anybody means, and beyond what Postgres can add to a time.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A message that is to wait at the end of its line.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    pub(crate) mark: &'a Mark,
    pub(crate) line: Uuid,
    pub(crate) content: &'a Stored,
    /// So far.
    pub(crate) attempts: u32,
    pub(crate) history: &'a History,
    pub(crate) error: &'a str,
    pub(crate) delay: Duration,
}

impl Database {
    /// Whether earlier messages of the line wait. Nobody can end the line before this transaction.
    pub(super) async fn is_held(
        &self,
        connection: &mut PgConnection,
        line: Uuid,
        deadline: Duration,
    ) -> Result<bool, sqlx::Error> {
        let ask = sqlx::query_scalar::<_, bool>(self.statements.is_held.sql())
            .bind(self.consumer.as_str())
            .bind(line)
            .fetch_optional(connection);
        Ok(within(deadline + ANSWER, ask).await?.is_some())
    }

    /// Puts a message at the end of its line, which is held from now on.
    pub(super) async fn add(
        &self,
        connection: &mut PgConnection,
        waiting: &Waiting<'_>,
    ) -> Result<(), sqlx::Error> {
        let (content, delay) = (waiting.content, seconds(waiting.delay));
        let hold = sqlx::query(self.statements.hold.sql())
            .bind(self.consumer.as_str())
            .bind(waiting.line)
            .bind(&content.topic)
            .bind(&content.key)
            .bind(delay)
            .execute(&mut *connection);
        within(ANSWER * 5, hold).await?;
        let add = sqlx::query(self.statements.add.sql())
            .bind(self.consumer.as_str())
            .bind(waiting.line)
            .bind(waiting.mark.id)
            .bind(waiting.mark.digest.as_ref().map(|digest| &digest[..]))
            .bind(&content.original_id)
            .bind(&content.topic)
            .bind(&content.key)
            .bind(&content.kind)
            .bind(&content.headers)
            .bind(&content.payload[..])
            .bind(&content.source)
            .bind(content.created_at)
            .bind(&content.origin)
            .bind(i32::try_from(waiting.attempts).unwrap_or(i32::MAX))
            .bind(0)
            .bind(Json(waiting.history.attempts()))
            .bind(clean(waiting.error))
            .bind(delay)
            .execute(connection);
        within(ANSWER * 5, add).await.map(drop)
    }

    /// Takes a claimed message out of its line. Tells when the next one is due; none: nobody waited behind it.
    pub(super) async fn leave_line(
        &self,
        connection: &mut PgConnection,
        claimed: &Claimed,
    ) -> Result<Option<Duration>, sqlx::Error> {
        let consumer = self.consumer.as_str();
        let remove = sqlx::query(self.statements.remove.sql())
            .bind(claimed.id)
            .execute(&mut *connection);
        within(ANSWER, remove).await?;
        pass(Failpoint::LeavingLine);
        // Whoever is joining the line is waited for. The statement after it sees what they have added.
        let lock = sqlx::query(self.statements.lock_line.sql())
            .bind(consumer)
            .bind(claimed.line)
            .execute(&mut *connection);
        within(ANSWER * 5, lock).await?;
        let head = if planted(Fault::FollowersForgotten) {
            None
        } else {
            let ask = sqlx::query_scalar::<_, f64>(self.statements.head.sql())
                .bind(consumer)
                .bind(claimed.line)
                .fetch_optional(&mut *connection);
            within(ANSWER, ask).await?
        };
        self.set_line(connection, claimed.line, head).await?;
        Ok(head.map(duration))
    }

    /// Says when the first of a line is due; none: the line has ended.
    pub(super) async fn set_line(
        &self,
        connection: &mut PgConnection,
        line: Uuid,
        due: Option<f64>,
    ) -> Result<(), sqlx::Error> {
        let consumer = self.consumer.as_str();
        let set = match due {
            Some(due) => sqlx::query(self.statements.move_line.sql())
                .bind(consumer)
                .bind(line)
                .bind(due),
            None => sqlx::query(self.statements.end_line.sql())
                .bind(consumer)
                .bind(line),
        };
        within(ANSWER, set.execute(connection)).await.map(drop)
    }
}

pub(super) fn seconds(delay: Duration) -> f64 {
    delay.min(LONGEST).as_secs_f64()
}

/// What has passed is due now.
pub(super) fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
}
