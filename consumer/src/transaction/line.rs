//! Lines in the database: held keys and the messages that wait. Who changes a line locks it first, and looks only then.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{ANSWER, Claimed, Database, within};
use crate::faults::{Bug, Failpoint, pass, planted};
use crate::history::History;
use crate::joining::Joining;
use crate::mark::Mark;
use crate::plan::{LEASE, Until};
use crate::stored::Stored;

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
    pub(crate) until: Until<'a>,
}

/// The first of a line, once the one before it has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Follower {
    pub(crate) due: Duration,
    pub(crate) kind: String,
    /// It is due already, and its line is leased to whoever has worked on the one before it.
    pub(crate) ours: bool,
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
            .fetch_one(connection);
        within(deadline + ANSWER, ask).await
    }

    /// Puts a message at the end of its line, which is held from now on.
    pub(super) async fn add(
        &self,
        connection: &mut PgConnection,
        waiting: &Waiting<'_>,
    ) -> Result<(), sqlx::Error> {
        let line = self.wait_of_line(connection, waiting.until).await?;
        let joining = Joining {
            consumer: self.consumer.as_str(),
            line: waiting.line,
            mark: waiting.mark.id,
            digest: waiting.mark.digest.as_ref().map(|digest| &digest[..]),
            content: waiting.content,
            attempts: i32::try_from(waiting.attempts).unwrap_or(i32::MAX),
            forgiven: 0,
            history: waiting.history.attempts(),
            error: waiting.error,
            delay: waiting.until.of_message(),
            line_delay: line.delay,
            waits_for: line.waits_for,
            dead_letter: None,
        };
        let hold = joining.hold(self.statements.hold.sql());
        within(ANSWER * 5, hold.execute(&mut *connection)).await?;
        let add = joining.add(self.statements.add.sql());
        within(ANSWER * 5, add.execute(connection)).await.map(drop)
    }

    /// Takes a claimed message out of its line. Tells who follows; none: nobody waited behind it. `goes_on`: whoever is due already
    /// is worked on at once, and nobody else need look for it.
    pub(super) async fn leave_line(
        &self,
        connection: &mut PgConnection,
        claimed: &Claimed,
        goes_on: bool,
    ) -> Result<Option<Follower>, sqlx::Error> {
        let (consumer, line) = (self.consumer.as_str(), claimed.due.line);
        let remove = sqlx::query(self.statements.remove.sql())
            .bind(claimed.id)
            .execute(&mut *connection);
        within(ANSWER, remove).await?;
        pass(Failpoint::LeavingLine);
        // Whoever is joining the line is waited for. The statement after it sees what they have added.
        let lock = sqlx::query(self.statements.lock_line.sql())
            .bind(consumer)
            .bind(line)
            .execute(&mut *connection);
        within(ANSWER * 5, lock).await?;
        let head = if planted(Bug::FollowersForgotten) {
            None
        } else {
            let ask = sqlx::query_as::<_, (f64, String)>(self.statements.head.sql())
                .bind(consumer)
                .bind(line)
                .fetch_optional(&mut *connection);
            within(ANSWER, ask).await?
        };
        let Some((due, kind)) = head else {
            let end = sqlx::query(self.statements.end_line.sql())
                .bind(consumer)
                .bind(line)
                .execute(connection);
            within(ANSWER, end).await?;
            return Ok(None);
        };
        let ours = goes_on && due <= 0.0;
        let until = if ours { LEASE.as_secs_f64() } else { due };
        self.move_line(connection, line, until, None).await?;
        Ok(Some(Follower {
            due: duration(due),
            kind,
            ours,
        }))
    }

    /// Says in how many seconds the first of a line is due, and which paused type it waits for.
    pub(super) async fn move_line(
        &self,
        connection: &mut PgConnection,
        line: Uuid,
        due: f64,
        waits_for: Option<&str>,
    ) -> Result<(), sqlx::Error> {
        let set = sqlx::query(self.statements.move_line.sql())
            .bind(self.consumer.as_str())
            .bind(line)
            .bind(due)
            .bind(waits_for)
            .execute(connection);
        within(ANSWER, set).await.map(drop)
    }
}

/// What has passed is due now.
pub(super) fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
}
