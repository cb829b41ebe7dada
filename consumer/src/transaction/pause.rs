//! Paused types in the database, so that all members obey.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{ANSWER, Database, DueLine, conclude, within};
use crate::plan::failing::TURN;
use crate::plan::{LEASE, LineWait, Until};
use crate::trouble::{Trouble, classify, clean};

/// How many lines may be due before more are made due.
const SOME: i64 = 1_000;

/// How many are made due all the same: others may be due for ever.
const FEW: i64 = 10;

/// A type that is paused, or that is handled again and whose messages are not all due yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PausedType {
    pub(crate) kind: String,
    /// Whether it is handled again.
    pub(crate) resumed: bool,
    /// Whether it is time to try one.
    pub(crate) turn: bool,
}

impl<'r> FromRow<'r, PgRow> for PausedType {
    fn from_row(row: &'r PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            kind: row.try_get(0)?,
            resumed: row.try_get(1)?,
            turn: row.try_get(2)?,
        })
    }
}

/// What came of the wish to try one message of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Another member has it.
    Theirs,
    /// No message waits for the type: the next one that comes is to be tried.
    NoneWaits,
    /// The first message of this line. It is ours until then, and that tells it from other turns.
    Ours(DueLine, OffsetDateTime),
}

impl Database {
    /// Pauses a type for all members. False: it was paused.
    pub(crate) async fn pause(
        &self,
        kind: &str,
        error: &str,
        probe_every: Duration,
    ) -> Result<bool, sqlx::Error> {
        let mut session = self.begin_brief().await?;
        let pause = sqlx::query(self.statements.pause.sql())
            .bind(self.consumer.as_str())
            .bind(kind)
            .bind(clean(error))
            .bind(probe_every.as_secs_f64())
            .execute(session.connection());
        let paused = within(ANSWER, pause).await;
        Ok(conclude(session, paused).await?.rows_affected() > 0)
    }

    /// The paused types, and those that are being resumed.
    pub(crate) async fn paused_types(&self) -> Result<Vec<PausedType>, sqlx::Error> {
        let mut session = self.begin_brief().await?;
        let ask = sqlx::query_as(self.statements.paused.sql())
            .bind(self.consumer.as_str())
            .fetch_all(session.connection());
        let paused = within(ANSWER, ask).await;
        conclude(session, paused).await
    }

    /// How many messages wait, counted up to `limit`. None: that could not be counted in time.
    pub(crate) async fn count_waiting(&self, limit: u64) -> Result<Option<u64>, sqlx::Error> {
        let mut session = self.begin_brief().await?;
        let count = sqlx::query_scalar::<_, i64>(self.statements.count.sql())
            .bind(self.consumer.as_str())
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_one(session.connection());
        let count = within(ANSWER, count).await;
        match conclude(session, count).await {
            Ok(count) => Ok(Some(u64::try_from(count).unwrap_or(0))),
            Err(error) if classify(&error) == Trouble::TimedOut => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the turn to try one message of a paused type, if it has come. The next one comes when this one has ended, or after [`TURN`]
    /// should nobody say that it goes on.
    pub(crate) async fn turn(&self, kind: &str) -> Result<Turn, sqlx::Error> {
        let mut session = self.begin_brief().await?;
        let probe = sqlx::query_as(self.statements.probe.sql())
            .bind(self.consumer.as_str())
            .bind(kind)
            .bind(TURN.as_secs_f64())
            .bind(LEASE.as_secs_f64())
            .fetch_optional(session.connection());
        let line = within(ANSWER, probe).await;
        let turn: Option<(Option<Uuid>, Option<OffsetDateTime>)> = conclude(session, line).await?;
        Ok(match turn {
            None => Turn::Theirs,
            Some((Some(line), Some(until))) => {
                let kind = kind.to_owned();
                Turn::Ours(DueLine::found(line, kind), until)
            }
            Some((None, _) | (_, None)) => Turn::NoneWaits,
        })
    }

    /// Says after how long the next turn comes, of one that was ours until `until`. Gives until when it is ours now; none: it was not
    /// any more.
    pub(crate) async fn move_turn(
        &self,
        kind: &str,
        until: OffsetDateTime,
        after: Duration,
    ) -> Result<Option<OffsetDateTime>, sqlx::Error> {
        let mut session = self.begin_brief().await?;
        let set = sqlx::query_scalar(self.statements.move_turn.sql())
            .bind(self.consumer.as_str())
            .bind(kind)
            .bind(until)
            .bind(after.as_secs_f64())
            .fetch_optional(session.connection());
        let moved = within(ANSWER, set).await;
        conclude(session, moved).await
    }

    /// Says that a type is handled again. From then on nobody begins to wait for it.
    pub(crate) async fn resume(&self, kind: &str) -> Result<(), sqlx::Error> {
        let mut session = self.begin_brief().await?;
        let resume = sqlx::query(self.statements.resume.sql())
            .bind(self.consumer.as_str())
            .bind(kind)
            .execute(session.connection());
        let resumed = within(ANSWER, resume).await;
        conclude(session, resumed).await.map(drop)
    }

    /// Makes some of what has waited for a type due, unless it is paused again. False: it was all that nobody else has locked.
    pub(crate) async fn make_due(&self, kind: &str) -> Result<bool, sqlx::Error> {
        let mut session = self.begin_brief().await?;
        let make_due = sqlx::query(self.statements.make_due.sql())
            .bind(self.consumer.as_str())
            .bind(kind)
            .bind(SOME)
            .bind(FEW)
            .bind(LEASE.as_secs_f64())
            .execute(session.connection());
        let made = within(ANSWER, make_due).await;
        Ok(conclude(session, made).await?.rows_affected() > 0)
    }

    /// Forgets a type that is handled again, once nothing waits for it and nobody is about to. False: it is not forgotten yet.
    pub(crate) async fn forget_type(&self, kind: &str) -> Result<bool, sqlx::Error> {
        let mut session = self.begin_brief().await?;
        let connection = session.connection();
        let forget = async {
            let locked = sqlx::query(self.statements.lock_resumed.sql())
                .bind(self.consumer.as_str())
                .bind(kind)
                .fetch_optional(&mut *connection)
                .await?;
            if locked.is_none() {
                return Ok(false);
            }
            // A new statement, which sees whatever was deferred under the lock that is now gone.
            let forgotten = sqlx::query(self.statements.forget.sql())
                .bind(self.consumer.as_str())
                .bind(kind)
                .execute(connection)
                .await?;
            Ok(forgotten.rows_affected() > 0)
        };
        let forgotten = within(ANSWER, forget).await;
        conclude(session, forgotten).await
    }

    /// How long a line waits whose first message is deferred, and what for. A type that is handled again is not waited for;
    /// one that is still paused cannot be forgotten before this transaction has ended.
    pub(super) async fn wait_of_line<'a>(
        &self,
        connection: &mut PgConnection,
        until: Until<'a>,
    ) -> Result<LineWait<'a>, sqlx::Error> {
        let paused = match until {
            Until::After(_) => false,
            Until::Resumed { kind, .. } => {
                let ask = sqlx::query_scalar::<_, bool>(self.statements.stays_paused.sql())
                    .bind(self.consumer.as_str())
                    .bind(kind)
                    .fetch_optional(connection);
                within(ANSWER * 5, ask).await?.is_some()
            }
        };
        Ok(until.of_line(paused, fastrand::f64()))
    }
}

#[cfg(test)]
#[path = "pause_tests.rs"]
mod tests;
