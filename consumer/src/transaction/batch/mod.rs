//! One attempt at several messages: all marks, handler, proof, commit.

mod guard;
mod open;

use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward_core::{Message, Origin};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use open::Opened;

use super::ended::{Ended, SAVEPOINT, after_commit, handle_batch, unproven, without_mark};
use super::mark::{Marked, Proof};
use super::undo::{Undo, ended_by_handler};
use super::{COMMIT, Database, ROLL_BACK, Ran, within};
use crate::alarm::Alarm;
use crate::batch::AnyBatch;
use crate::faults::{Bug, Failpoint, pass, planted};
use crate::handler::HandlerError;
use crate::keeper::Keeper;
use crate::mark::Mark;
use crate::plan::Run;
use crate::session::Session;
use crate::sql::Waits;
use crate::trouble::{chain, classify};

/// How long a batch waits for a lock: one message that somebody else works on must not hold up the others for long.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is to be run.
pub(crate) struct BatchOrder<'a> {
    pub(crate) handler: &'a dyn AnyBatch,
    /// Those of a key in their order; no mark twice.
    pub(crate) entries: &'a [Entry<'a>],
    pub(crate) deadline: Duration,
    /// As of an [`Order`](super::Order).
    pub(crate) kill: &'a CancellationToken,
    pub(crate) alarm: &'a Alarm,
    /// Keeps the starts of those that may kill their process.
    pub(crate) keeper: &'a Keeper,
}

/// A message of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) message: &'a Arc<Message>,
    pub(crate) mark: &'a Mark,
    /// Whether it may have been in work when a process died.
    pub(crate) suspect: bool,
    /// Whether its mark may have been forgotten.
    pub(crate) in_doubt: bool,
    pub(crate) origin: &'a Origin,
}

/// What a batch means for one of its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lot {
    /// The mark is ours, and the handler gets it.
    Ours,
    /// The mark was there.
    Duplicate,
    /// It is to be looked at alone: its key is held, the mark was there and is that of another message, or it is too old to tell.
    Alone,
}

/// What an attempt at a batch came to.
#[derive(Debug)]
pub(crate) struct BatchRan {
    pub(crate) ran: Ran,
    /// Of each message, as far as the attempt came. They hold only if the transaction was committed, by us or by the handler.
    pub(crate) lots: Vec<Lot>,
}

impl BatchRan {
    pub(crate) fn new(run: Run, error: impl Into<String>) -> Self {
        Self {
            ran: Ran::new(run, error),
            lots: Vec::new(),
        }
    }
}

impl Database {
    /// Runs the handler once for all that is new of the batch, in the transaction of its marks.
    pub(crate) async fn attempt_batch(&self, order: &BatchOrder<'_>) -> BatchRan {
        let waits = Waits::of(order.entries.iter().any(|entry| entry.suspect));
        let begun = self.begin_with(order.deadline, PATIENCE, waits).await;
        let mut session = match begun {
            Ok(session) => session,
            Err(error) => return BatchRan::new(Run::Outage, chain(&error)),
        };
        pass(Failpoint::BeforeMark);
        let opened = match self.open_batch(session.connection(), order).await {
            Ok(Some(opened)) => opened,
            Ok(None) => {
                session.roll_back(ROLL_BACK).await;
                return BatchRan::new(Run::Conflict, "a key has been held meanwhile");
            }
            Err(error) => {
                session.roll_back(ROLL_BACK).await;
                return BatchRan::new(without_mark(classify(&error)), chain(&error));
            }
        };
        if let Err(ran) = Self::may_start_batch(order, &opened.lots).await {
            session.roll_back(ROLL_BACK).await;
            return ran;
        }
        let ran = match &opened.first {
            Some(first) => self.run_batch(order, session, &opened, first).await,
            None => {
                session.roll_back(ROLL_BACK).await;
                Ran::new(Run::Handled, "")
            }
        };
        BatchRan {
            ran,
            lots: opened.lots,
        }
    }

    /// Runs the handler for those whose turn it is, and commits.
    async fn run_batch(
        &self,
        order: &BatchOrder<'_>,
        session: Session,
        opened: &Opened,
        (mark, marked): &(Mark, Marked),
    ) -> Ran {
        let deadline = Instant::now() + order.deadline;
        let ours = order.entries.iter().zip(&opened.lots);
        let ours = ours.filter(|(_, lot)| **lot == Lot::Ours);
        let (messages, marks): (Vec<Arc<Message>>, Vec<Uuid>) = ours
            .map(|(entry, _)| (entry.message.clone(), entry.mark.id))
            .unzip();
        let (session, ended) = if messages.is_empty() {
            (session, Ended::Done)
        } else {
            let content = (messages.into(), marks.into());
            handle_batch(order, content, session, deadline).await
        };
        pass(Failpoint::AfterHandler);
        let (session, ended) = match ended {
            Ended::Done => match self.finish_batch(order, session, opened, marked).await {
                Ok(ran) => return ran,
                Err((session, error)) => (session, Ended::Failed(error)),
            },
            Ended::Failed(_) | Ended::Panicked(_) | Ended::Deadline | Ended::Killed => {
                (session, ended)
            }
        };
        let ended = ended.in_time(deadline);
        let (reached, ()) = tokio::join!(
            self.reach(&ended, marked),
            Self::batch_has_ended(order, &opened.lots)
        );
        // If the handler has committed, it has committed all marks alike.
        let undo = Undo {
            mark,
            marked,
            ended,
            reached,
            deadline: order.deadline,
        };
        self.undo(session, undo).await
    }

    /// Proves the marks and commits. An error is to be undone.
    async fn finish_batch(
        &self,
        order: &BatchOrder<'_>,
        mut session: Session,
        opened: &Opened,
        marked: &Marked,
    ) -> Result<Ran, (Session, HandlerError)> {
        if session.has_savepoint() {
            return Err((session, HandlerError::from(SAVEPOINT)));
        }
        let proven = self
            .prove_batch(session.connection(), order, marked, &opened.marks)
            .await;
        match proven {
            Ok(Proof::Ours) => {}
            Ok(Proof::NotOurs) => {
                Self::batch_has_ended(order, &opened.lots).await;
                session.roll_back(ROLL_BACK).await;
                return Ok(ended_by_handler(marked));
            }
            Err(error) => return Err((session, unproven(error))),
        }
        pass(Failpoint::BeforeCommit);
        Ok(match within(COMMIT, session.commit()).await {
            Ok(()) => Ran::new(Run::Handled, ""),
            Err(error) => {
                Self::batch_has_ended(order, &opened.lots).await;
                Ran::new(after_commit(classify(&error)), chain(&error))
            }
        })
    }

    /// The marks were written by one statement: what proves one proves all.
    async fn prove_batch(
        &self,
        connection: &mut PgConnection,
        order: &BatchOrder<'_>,
        marked: &Marked,
        marks: &[Uuid],
    ) -> Result<Proof, sqlx::Error> {
        if planted(Bug::CommitWithoutProof) {
            return Ok(Proof::Ours);
        }
        if order.entries.iter().any(|entry| entry.suspect) {
            self.forget_starts(connection, marks).await?;
        }
        self.prove(connection, marked, order.deadline).await
    }
}
