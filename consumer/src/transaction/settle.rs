//! Settling without a handler: a dead letter, or a message that is ignored, with its mark in one transaction.

use std::time::Duration;

use super::{ANSWER, COMMIT, Database, within};
use crate::dead_letter::Letter;
use crate::faults::{Failpoint, pass};
use crate::mark::Mark;
use crate::plan::Settling;
use crate::session::Session;

/// How long each of its statements may take on the server, twice: nobody else's code runs here.
const DEADLINE: Duration = Duration::from_secs(20);

const ROLL_BACK: Duration = Duration::from_secs(1);

/// The outcome of a mark with a dead letter.
const DEAD: i16 = 2;
/// The outcome of a mark whose message the consumer ignores.
const IGNORED: i16 = 4;

/// What is to be settled.
pub(crate) struct ToSettle<'a> {
    pub(crate) mark: &'a Mark,
    /// None: ignored.
    pub(crate) letter: Option<&'a Letter<'a>>,
    /// The transaction in which a handler has committed the mark by itself: then the mark is ours to change.
    pub(crate) ended: Option<&'a str>,
}

impl Database {
    /// Writes mark and letter. The mark comes first: whoever inserts it decides.
    pub(crate) async fn settle(&self, what: &ToSettle<'_>) -> Result<Settling, sqlx::Error> {
        let mut session = self.begin(DEADLINE).await?;
        match self.write(&mut session, what).await {
            Ok(Settling::Written) => {
                pass(Failpoint::BeforeCommit);
                within(COMMIT, session.commit()).await?;
                Ok(Settling::Written)
            }
            other => {
                session.roll_back(ROLL_BACK).await;
                other
            }
        }
    }

    async fn write(
        &self,
        session: &mut Session,
        what: &ToSettle<'_>,
    ) -> Result<Settling, sqlx::Error> {
        let outcome = if what.letter.is_some() { DEAD } else { IGNORED };
        let marked = self
            .insert_mark(session.connection(), what.mark, outcome, DEADLINE)
            .await?;
        if marked.is_none() && !self.take_over(session, what, outcome).await? {
            return Ok(Settling::Duplicate);
        }
        if let Some(letter) = what.letter {
            let insert = letter.insert(&self.statements, &self.consumer, what.mark.id);
            within(DEADLINE + ANSWER, insert.execute(session.connection())).await?;
        }
        Ok(Settling::Written)
    }

    async fn take_over(
        &self,
        session: &mut Session,
        what: &ToSettle<'_>,
        outcome: i16,
    ) -> Result<bool, sqlx::Error> {
        let Some(xid) = what.ended else {
            return Ok(false);
        };
        let update = sqlx::query(self.statements.take_over())
            .bind(self.consumer.as_str())
            .bind(what.mark.id)
            .bind(xid)
            .bind(outcome)
            .execute(session.connection());
        let updated = within(DEADLINE + ANSWER, update).await?;
        Ok(updated.rows_affected() > 0)
    }
}
