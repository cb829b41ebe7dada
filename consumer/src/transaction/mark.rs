//! The mark: its insert, which decides, and its proof.

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{ANSWER, Database, within};
use crate::faults::{Bug, planted};
use crate::mark::Mark;

/// What a mark says of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub(crate) enum Says {
    Handled = 0,
    /// It waits in `retries`.
    Deferred = 1,
    Dead = 2,
    Expired = 3,
    Ignored = 4,
}

/// What stands for a message that is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    Mark,
    /// The numbers of its key, in the place of the mark.
    Numbers {
        line: Uuid,
    },
}

/// A mark that this transaction has inserted, or taken up.
#[derive(Debug, Clone)]
pub(crate) struct Marked {
    pub(crate) row: Row,
    /// The transaction.
    pub(crate) xid: String,
    /// The backend that runs it. Its number may be given again: to one that begins later than `at`.
    pub(crate) pid: i32,
    /// The server's time as the mark was written.
    pub(crate) at: OffsetDateTime,
}

/// What the proof found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// This transaction is the one that wrote the mark.
    Ours,
    /// It is another one: the handler has ended that.
    NotOurs,
}

impl Database {
    /// Inserts the mark. None: it is there, somebody else has settled the delivery.
    pub(super) async fn insert_mark(
        &self,
        connection: &mut PgConnection,
        mark: &Mark,
        says: Says,
        deadline: Duration,
    ) -> Result<Option<Marked>, sqlx::Error> {
        let marked = self.insert_mark_of_line(connection, mark, None, says, deadline);
        Ok(marked.await?.map(|(marked, _)| marked))
    }

    /// Inserts the mark, and tells whether earlier messages of the line wait: then nobody can end the line before this transaction.
    pub(super) async fn insert_mark_of_line(
        &self,
        connection: &mut PgConnection,
        mark: &Mark,
        line: Option<Uuid>,
        says: Says,
        deadline: Duration,
    ) -> Result<Option<(Marked, bool)>, sqlx::Error> {
        let insert =
            sqlx::query_as::<_, (String, i32, OffsetDateTime, bool)>(self.statements.mark.sql())
                .bind(self.consumer.as_str())
                .bind(mark.id)
                .bind(says as i16)
                .bind(mark.digest.as_ref().map(|digest| &digest[..]))
                .bind(line)
                .bind(mark.slot())
                .fetch_optional(connection);
        let row = within(deadline + ANSWER, insert).await?;
        Ok(row.map(|(xid, pid, at, held)| {
            let row = Row::Mark;
            (Marked { row, xid, pid, at }, held)
        }))
    }

    /// Takes up the mark of a deferred message. None: somebody else has finished it.
    pub(super) async fn take_up(
        &self,
        connection: &mut PgConnection,
        mark: &Mark,
        says: Says,
        deadline: Duration,
    ) -> Result<Option<Marked>, sqlx::Error> {
        let take_up =
            sqlx::query_as::<_, (String, i32, OffsetDateTime)>(self.statements.take_up.sql())
                .bind(self.consumer.as_str())
                .bind(mark.id)
                .bind(says as i16)
                .bind(mark.digest.as_ref().map(|digest| &digest[..]))
                .bind(mark.slot())
                .fetch_optional(connection);
        let row = within(deadline + ANSWER, take_up).await?;
        Ok(row.map(|(xid, pid, at)| Marked {
            row: Row::Mark,
            xid,
            pid,
            at,
        }))
    }

    /// Whether a mark that is there is that of another message with the same id.
    pub(super) async fn is_conflict(
        &self,
        connection: &mut PgConnection,
        mark: &Mark,
    ) -> Result<bool, sqlx::Error> {
        let ask = sqlx::query_scalar::<_, Option<Vec<u8>>>(self.statements.digest.sql())
            .bind(self.consumer.as_str())
            .bind(mark.id)
            .bind(mark.slot())
            .fetch_optional(connection);
        let stored = within(ANSWER, ask).await?.flatten();
        Ok(mark.conflicts_with(stored.as_deref()) && !planted(Bug::DigestIgnored))
    }

    /// Gives a mark that this transaction has inserted another outcome.
    pub(super) async fn change_mark(
        &self,
        connection: &mut PgConnection,
        mark: &Mark,
        says: Says,
    ) -> Result<(), sqlx::Error> {
        let change = sqlx::query(self.statements.change_mark.sql())
            .bind(mark.slot())
            .bind(self.consumer.as_str())
            .bind(mark.id)
            .bind(says as i16)
            .execute(connection);
        within(ANSWER, change).await.map(drop)
    }

    /// Changes a mark that a handler has committed by itself. False: it is not there.
    pub(super) async fn take_over(
        &self,
        connection: &mut PgConnection,
        mark: &Mark,
        xid: &str,
        says: Says,
    ) -> Result<bool, sqlx::Error> {
        let update = sqlx::query(self.statements.take_over.sql())
            .bind(self.consumer.as_str())
            .bind(mark.id)
            .bind(xid)
            .bind(says as i16)
            .bind(mark.slot())
            .execute(connection);
        Ok(within(ANSWER, update).await?.rows_affected() > 0)
    }

    /// The last statement before COMMIT. It fails in an aborted transaction, whose COMMIT would be a rollback.
    pub(super) async fn prove(
        &self,
        connection: &mut PgConnection,
        marked: &Marked,
        deadline: Duration,
    ) -> Result<Proof, sqlx::Error> {
        let ask = sqlx::query_scalar::<_, bool>(self.statements.proof.sql())
            .bind(&marked.xid)
            .fetch_one(connection);
        let ours = within(deadline + ANSWER, ask).await?;
        Ok(if ours { Proof::Ours } else { Proof::NotOurs })
    }

    /// Forgets the starts of messages whose marks this transaction holds.
    pub(super) async fn forget_starts(
        &self,
        connection: &mut PgConnection,
        marks: &[Uuid],
    ) -> Result<(), sqlx::Error> {
        let forget = sqlx::query(self.statements.forget_starts.sql())
            .bind(self.consumer.as_str())
            .bind(marks)
            .execute(connection);
        within(ANSWER, forget).await.map(drop)
    }

    /// Whether a transaction that was rolled back has left its mark all the same: then the handler had committed it.
    pub(super) async fn left_its_mark(
        &self,
        connection: &mut PgConnection,
        mark: &Mark,
        marked: &Marked,
    ) -> Result<bool, sqlx::Error> {
        let ask = match marked.row {
            Row::Mark => sqlx::query_scalar::<_, bool>(self.statements.left_behind.sql())
                .bind(mark.slot())
                .bind(self.consumer.as_str())
                .bind(mark.id),
            Row::Numbers { line } => sqlx::query_scalar(self.statements.number_left_behind.sql())
                .bind(self.consumer.as_str())
                .bind(line),
        };
        let ask = ask.bind(&marked.xid).fetch_optional(connection);
        Ok(within(ANSWER, ask).await?.unwrap_or(false))
    }
}

#[cfg(test)]
#[path = "mark_tests.rs"]
mod tests;
