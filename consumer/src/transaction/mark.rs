//! The mark: its insert, which decides, and its proof.

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{ANSWER, Database, within};
use crate::mark::Mark;

/// A mark that this transaction has inserted.
#[derive(Debug, Clone)]
pub(crate) struct Marked {
    pub(crate) slot: i16,
    /// The transaction.
    pub(crate) xid: String,
    /// The backend that runs it. Its number may be given again, together with its start it is unique.
    pub(crate) pid: i32,
    pub(crate) backend_start: Option<OffsetDateTime>,
}

/// What the proof found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// The mark is there and of this transaction.
    Ours,
    /// It is not: the handler has ended the transaction.
    NotOurs,
}

type MarkRow = (i16, String, i32, Option<OffsetDateTime>);

impl Database {
    /// Inserts the mark. None: it is there, somebody else has settled the delivery.
    pub(super) async fn insert_mark(
        &self,
        connection: &mut PgConnection,
        mark: &Mark,
        outcome: i16,
        deadline: Duration,
    ) -> Result<Option<Marked>, sqlx::Error> {
        let insert = sqlx::query_as::<_, MarkRow>(self.statements.mark())
            .bind(self.consumer.as_str())
            .bind(mark.id)
            .bind(outcome)
            .bind(&mark.digest[..])
            .fetch_optional(connection);
        let row = within(deadline + ANSWER, insert).await?;
        Ok(row.map(|(slot, xid, pid, backend_start)| Marked {
            slot,
            xid,
            pid,
            backend_start,
        }))
    }

    /// The last statement before COMMIT. It fails in an aborted transaction, whose COMMIT would be a rollback.
    pub(super) async fn prove(
        &self,
        connection: &mut PgConnection,
        mark: &Mark,
        marked: &Marked,
        deadline: Duration,
    ) -> Result<Proof, sqlx::Error> {
        let ask = sqlx::query_as::<_, (bool, String)>(self.statements.proof())
            .bind(marked.slot)
            .bind(self.consumer.as_str())
            .bind(mark.id)
            .fetch_optional(connection);
        let row = within(deadline + ANSWER, ask).await?;
        Ok(match row {
            Some((true, _)) => Proof::Ours,
            Some((false, _)) | None => Proof::NotOurs,
        })
    }

    /// Whether a transaction that was rolled back has left its mark all the same: then the handler had committed it.
    pub(super) async fn left_its_mark(
        &self,
        connection: &mut PgConnection,
        mark: &Mark,
        marked: &Marked,
    ) -> Result<bool, sqlx::Error> {
        let ask = sqlx::query_scalar::<_, bool>(self.statements.left_behind())
            .bind(marked.slot)
            .bind(self.consumer.as_str())
            .bind(mark.id)
            .bind(&marked.xid)
            .fetch_optional(connection);
        Ok(within(ANSWER, ask).await?.unwrap_or(false))
    }
}
