//! Settling a delivery without a handler: a dead letter, a message that is ignored, has expired or is to wait, with its mark in one
//! transaction.

use std::time::Duration;

use onceward_core::Message;
use sqlx::PgConnection;

use super::mark::Says;
use super::{ANSWER, COMMIT, Database, ROLL_BACK, Waiting, within};
use crate::dead_letter::Letter;
use crate::faults::{Failpoint, pass};
use crate::joining::waits_already;
use crate::mark::Mark;
use crate::plan::Settling;
use crate::sequence::Decides;
use crate::session::Session;

/// How long each of its statements may take on the server, twice: nobody else's code runs here.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// What a delivery is to be settled as.
pub(crate) enum SettleAs<'a> {
    Ignored,
    Expired,
    Dead(Letter<'a>),
    Deferred(Waiting<'a>),
}

/// What is to be settled.
pub(crate) struct ToSettle<'a> {
    pub(crate) mark: &'a Mark,
    /// None: it could not be read as one.
    pub(crate) message: Option<&'a Message>,
    pub(crate) what: SettleAs<'a>,
    /// The transaction in which a handler has committed the mark by itself: then the mark is ours to change.
    pub(crate) ended: Option<&'a str>,
}

impl Database {
    /// Writes the mark and what belongs to it. The mark comes first: whoever inserts it decides.
    pub(crate) async fn settle(&self, settle: &ToSettle<'_>) -> Result<Settling, sqlx::Error> {
        let mut session = self.begin(DEADLINE).await?;
        match self.write(&mut session, settle).await {
            Ok(Settling::Written) => {
                pass(Failpoint::BeforeCommit);
                within(COMMIT, session.commit()).await?;
                Ok(Settling::Written)
            }
            Err(error) if waits_already(&error) => {
                session.roll_back(ROLL_BACK).await;
                Ok(Settling::Duplicate)
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
        settle: &ToSettle<'_>,
    ) -> Result<Settling, sqlx::Error> {
        let says = match settle.what {
            SettleAs::Ignored => Says::Ignored,
            SettleAs::Expired => Says::Expired,
            SettleAs::Dead(_) => Says::Dead,
            SettleAs::Deferred(_) => Says::Deferred,
        };
        let (connection, mark) = (session.connection(), settle.mark);
        match self.settle_number(connection, settle).await? {
            Decides::Mark => {}
            Decides::Number => return Ok(Settling::Written),
            Decides::Settled => return Ok(Settling::Duplicate),
        }
        let marked = self.insert_mark(connection, mark, says, DEADLINE).await?;
        let ours = match (marked, settle.ended) {
            (Some(_), _) => true,
            (None, Some(xid)) => self.take_over(connection, mark, xid, says).await?,
            (None, None) => false,
        };
        if !ours {
            let conflict = self.is_conflict(connection, mark).await?;
            return Ok(if conflict {
                Settling::IdConflict
            } else {
                Settling::Duplicate
            });
        }
        match &settle.what {
            SettleAs::Ignored | SettleAs::Expired => {}
            SettleAs::Dead(letter) => self.write_letter(connection, mark, letter, None).await?,
            SettleAs::Deferred(waiting) => self.add(connection, waiting).await?,
        }
        Ok(Settling::Written)
    }

    /// Writes a dead letter, in the place of the one that was replayed if there is one.
    pub(super) async fn write_letter(
        &self,
        connection: &mut PgConnection,
        mark: &Mark,
        letter: &Letter<'_>,
        replayed: Option<i64>,
    ) -> Result<(), sqlx::Error> {
        if letter.reason.was_handled() {
            // Not before: without the letter it would be handled again as if nothing were.
            self.forget_starts(connection, &[mark.id]).await?;
        }
        let again = match replayed {
            Some(id) => {
                let again = letter.again(&self.statements, &self.consumer, id);
                let again = again.execute(&mut *connection);
                within(DEADLINE + ANSWER, again).await?.rows_affected() > 0
            }
            None => false,
        };
        if !again {
            let insert = letter.insert(&self.statements, &self.consumer, mark.id);
            within(DEADLINE + ANSWER, insert.execute(&mut *connection)).await?;
        }
        match &self.outbound {
            Some(topic) => self.send_on(connection, topic, mark.id, letter).await,
            None => Ok(()),
        }
    }
}
