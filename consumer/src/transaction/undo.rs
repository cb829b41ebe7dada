//! The end of a transaction whose handler has not made it to the commit.

use std::time::Duration;

use super::ended::{Ended, after_undo, describe};
use super::mark::{Marked, Row};
use super::{Database, ROLL_BACK, Ran};
use crate::mark::Mark;
use crate::plan::Run;
use crate::session::Session;

/// The error of a message whose handler has committed or rolled back on its own.
const ENDED: &str = "the handler has ended the transaction by itself (SQL commit or rollback)";

/// As above; its number does not tell who has settled it.
const ENDED_BY_NUMBER: &str = "the handler has ended the transaction by itself (SQL commit or rollback); \
     it is told by its sequence, and another member may have handled it since";

/// A handler that has ended otherwise than by a commit.
pub(super) struct Undo<'a> {
    pub(super) mark: &'a Mark,
    pub(super) marked: &'a Marked,
    pub(super) ended: Ended,
    /// As of [`reach`](Database::reach).
    pub(super) reached: Option<bool>,
    pub(super) deadline: Duration,
}

impl Database {
    /// Ends on the server what a handler was at that did not end by itself. None: it did; else whether the server could be reached.
    pub(super) async fn reach(&self, ended: &Ended, marked: &Marked) -> Option<bool> {
        match ended {
            Ended::Deadline | Ended::Killed => Some(self.cancel(marked).await.is_ok()),
            Ended::Done | Ended::Failed(_) | Ended::Panicked(_) => None,
        }
    }

    /// Ends the transaction on the server, and tells what the attempt came to.
    pub(super) async fn undo(&self, session: Session, undo: Undo<'_>) -> Ran {
        let Undo {
            mark,
            marked,
            ended,
            mut reached,
            deadline,
        } = undo;
        let rolled_back = session.roll_back(ROLL_BACK).await;
        let clean = rolled_back.is_some();
        if let Some(mut session) = rolled_back {
            let connection = session.connection();
            // Only one who is asked can know; if the answer is lost, the next attempt's conflict decides.
            if let Ok(true) = self.left_its_mark(connection, mark, marked).await {
                return ended_by_handler(marked);
            }
        } else if reached.is_none() {
            // A query that the handler has dropped may still run and hold the mark.
            reached = Some(self.cancel(marked).await.is_ok());
        }
        let error = describe(&ended, deadline);
        Ran::new(after_undo(&ended, clean, reached != Some(false)), error)
    }
}

pub(super) fn ended_by_handler(marked: &Marked) -> Ran {
    let error = match marked.row {
        Row::Mark => ENDED,
        Row::Numbers { .. } => ENDED_BY_NUMBER,
    };
    Ran {
        ended: Some(marked.xid.clone()),
        ..Ran::new(Run::Ended, error)
    }
}
